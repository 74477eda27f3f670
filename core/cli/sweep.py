"""The command sweep: many runs of one experiment, over seeds, grids and ranges."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from core.cli import options
from core.errors import Interrupted, RunFailed

if TYPE_CHECKING:
    from core.cli.lab import Lab
    from core.sweeps.plan import Point, Sweep
    from core.sweeps.state import State
    from core.sweeps.workers import Job


@click.command()
@options.experiment
@click.option("--seeds", metavar="0..4|0,1,2", default="", help="Seeds of every setting.  [default: the config's]")
@click.option(
    "--grid", "grids", metavar="KEY=V1,V2", multiple=True, help="Values of one key; repeated, every combination."
)
@click.option(
    "--random", "draws", metavar="N", type=click.IntRange(min=1), default=None, help="Draw N settings from the ranges."
)
@click.option(
    "--range",
    "ranges",
    metavar="KEY=LOW..HIGH[:log]",
    multiple=True,
    help="What --random draws one key from. Repeatable.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs at once; threads are divided among them.",
)
@click.option(
    "--halving",
    is_flag=True,
    help="Stop runs that are behind at an eighth, a quarter and a half of their steps (needs Optuna).",
)
@click.option("--name", metavar="NAME", default="", help="Name of the sweep.  [default: the keys]")
@click.option("--retry", is_flag=True, help="Try runs that failed once more.")
@click.option(
    "--description", metavar="TEXT", default="", help="What the sweep is to find out; kept with it and its runs."
)
@options.as_json
@options.settings
def sweep(
    experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, as_json: bool, **choices: Any
) -> None:
    """Train many runs: seeds, grids, random draws. The same command goes on after an end of any kind."""
    from core.sweeps.plan import plan
    from core.sweeps.space import read_space
    from core.sweeps.state import open_state

    space = read_space(choices["seeds"], choices["grids"], choices["ranges"], choices["draws"] or 0)
    lab = options.open_lab(experiment, overrides, variant, quiet, as_json=as_json)
    planned = plan(
        lab.experiment, variant, overrides, space,
        name=choices["name"], halving=choices["halving"], description=choices["description"],
    )  # fmt: skip
    labs = labs_of(lab, planned)
    with locked(planned):
        state = open_state(planned, prepared(planned, labs), retry=choices["retry"])
        try:
            train_all(lab, state, choices["jobs"])
        except Interrupted:
            report_so_far(lab, state)
            raise
        conclude(lab, state, as_json=as_json)


def locked(planned: Sweep) -> contextlib.AbstractContextManager[None]:
    """Two sweeps of one name would train the same runs."""
    from core import files
    from core.tracking.run import lock_file

    return files.lock(
        lock_file(planned.folder), f"sweep {planned.title}", "Wait until it ends, or choose another name with --name."
    )


def labs_of(lab: Lab, planned: Sweep) -> list[Lab]:
    """The lab of each point. Raises UserError for what a config alone does not tell: an unknown model, optimizer or device."""
    from core.cli.lab import Lab, hide_home
    from core.cli.training import refuse_unknown
    from core.toml import load_config

    labs = []
    for point in planned.points:
        config, settings = load_config(lab.experiment.folder, lab.variant, point.overrides)
        hide_home(config)
        hide_home(point.config)  # as the run's own config.toml has it, which it is compared with
        labs.append(Lab(lab.experiment, config, settings, point.overrides, lab.code, lab.console, lab.variant))
        refuse_unknown(labs[-1])
    return labs


def prepared(planned: Sweep, labs: Sequence[Lab]) -> dict[str, str]:
    """Make every dataset that the runs need, once. Returns run -> fingerprint."""
    made: dict[str, str] = {}
    result: dict[str, str] = {}
    for point, lab in zip(planned.points, labs, strict=True):
        key = json.dumps(lab.config.prepare.model_dump(), sort_keys=True, default=str)
        if key not in made:
            made[key] = lab.prepare().fingerprint
        result[point.run] = made[key]
    return result


def train_all(lab: Lab, state: State, jobs: int) -> None:
    """Train what is left. Raises Interrupted, whose remedy is the command to go on with."""
    from core.sweeps.live import live_table, sentence
    from core.sweeps.state import command
    from core.sweeps.workers import Crew

    left, planned = state.left(), state.sweep
    halving = None
    if planned.halving:
        from core.sweeps.halving import Halving

        halving = Halving(state)
    done = len(planned.points) - len(left)
    lab.console.say(
        f"sweep {planned.title}: {len(planned.points)} runs, {done} of them done, {min(jobs, max(len(left), 1))} at once"
    )

    with contextlib.ExitStack() as stack:
        show: Callable[[Sequence[Job]], None] = silent
        say: Callable[[str], None] = lab.console.say
        if left and lab.console.interactive:
            show, say = stack.enter_context(live_table(state, lab.console.stream))

        def ended(point: Point, seconds: float) -> None:
            if halving:
                halving.ended(state, point)
            say(sentence(state, point, seconds))

        crew = Crew(state, jobs, show=show, ended=ended, say=say, watch=halving.watch if halving else None)
        crew.work(left, f"Go on with: {command()}")


def silent(jobs: Sequence[Job]) -> None:
    """Shows nothing."""


def report_so_far(lab: Lab, state: State) -> None:
    """Write the results of an interrupted sweep. That it was interrupted is what counts, whatever becomes of this."""
    from core.sweeps.report import write_results

    try:
        write_results(state)
    except Exception as error:
        lab.console.say(f"no report of what is finished: {error}")
    else:
        lab.console.say(f"report so far: {state.sweep.folder / 'report.html'}")


def conclude(lab: Lab, state: State, *, as_json: bool) -> None:
    """Write the results and show them. Raises RunFailed where not every run has come to an end."""
    from core.report.tables import as_text
    from core.sweeps import results
    from core.sweeps.report import write_results
    from core.sweeps.state import FILE

    found = write_results(state)
    lab.console.say("\n".join([as_text(results.table(state.sweep, found)), *results.remarks(state, found)]))
    lab.console.say(f"report: {state.sweep.folder / 'report.html'}")
    if as_json:
        click.echo(json.dumps(results.as_json(state, found), indent=2, ensure_ascii=False))
    wrong = [
        (run, progress) for run, progress in state.progress.items() if progress.status in ("failed", "interrupted")
    ]
    if wrong:
        listed = "".join(f"\n  {run}: {progress.error or progress.status}" for run, progress in wrong[:5])
        raise RunFailed(
            f"{len(wrong)} of {len(state.progress)} runs of {state.sweep.title} have no result:{listed}\n"
            f"  The others are whole. {FILE} beside the results lists all; --retry tries failed runs once more."
        )


COMMANDS = (sweep,)
