"""The command sweep: many runs of one experiment, over seeds, grids and ranges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from core.cli import options
from core.private import command_line
from core.process import Program

if TYPE_CHECKING:
    from core.lab.opened import Opened

OF_ONE = {
    "--seeds": "seeds", "--grid": "grids", "--random": "draws", "--range": "ranges", "--halving": "halving", "--name": "name", "--description": "description",
}  # fmt: skip


@click.command()
@options.experiment
@click.option(
    "--seeds", metavar="0..4|0,1,2", help="Train every setting with each of these seeds.  [default: the config's seed]"
)
@click.option(
    "--grid",
    "grids",
    metavar="KEY=V1,V2",
    multiple=True,
    help="Try these values of a key. Repeatable: every combination is tried.",
)
@click.option(
    "--random",
    "draws",
    metavar="N",
    type=click.IntRange(min=1),
    default=None,
    help="Draw N random settings from the ranges.",
)
@click.option(
    "--range",
    "ranges",
    metavar="KEY=LOW..HIGH[:log]",
    multiple=True,
    help="The range of a key for --random. Repeatable.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of runs at a time. The CPU threads are divided among them.",
)
@click.option(
    "--halving",
    is_flag=True,
    help="Stop the worse runs after an eighth, a quarter and a half of their steps (needs Optuna).",
)
@click.option("--name", metavar="NAME", default="", help="Name of the sweep.  [default: from its keys]")
@click.option("--study", metavar="NAME", help="Train all sweeps that study.NAME.toml of the experiment lists.")
@click.option("--retry", is_flag=True, help="Train failed runs again.")
@click.option(
    "--description", metavar="TEXT", default="", help="The question behind the sweep, stored with it and its runs."
)
@options.as_json
@options.settings
def sweep(
    experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, as_json: bool, **choices: Any
) -> None:
    """Train many runs: seeds, grids, random draws.

    Give the same command again to continue after an interruption or failure.
    """
    if choices["study"] is not None:
        study(experiment, overrides, variant, quiet, as_json, choices)
        return
    from core.cli.console import phrased
    from core.cli.spaces import read_grid, read_range, read_seeds
    from core.sweeps import results
    from core.sweeps.live import Screen
    from core.sweeps.plan import Call, plan
    from core.sweeps.running import refuse_unfinished, run_sweep
    from core.sweeps.space import Space, check_space

    space = check_space(
        Space(
            () if choices["seeds"] is None else read_seeds(choices["seeds"]),
            tuple(map(read_grid, choices["grids"])),
            tuple(map(read_range, choices["ranges"])),
            choices["draws"] or 0,
        )
    )
    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    description = choices["description"]
    call = Call(options.this_command(), "name", partial(train_command, opened, description))
    planned = plan(opened, space, name=choices["name"], halving=choices["halving"], description=description, call=call)
    screen = Screen(console.stream, phrased) if console.interactive else None
    state = run_sweep(planned, choices["jobs"], retry=choices["retry"], screen=screen)
    if as_json:
        click.echo(json.dumps(results.as_json(state, results.results_of(state)), indent=2, ensure_ascii=False))
    refuse_unfinished(state)


def study(
    experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, as_json: bool, choices: dict[str, Any]
) -> None:
    """Train all sweeps of a study."""
    from core.cli.console import Console, phrased
    from core.sweeps import results
    from core.sweeps.live import Screen
    from core.sweeps.plan import Call
    from core.sweeps.study import plan_study, refuse_failures, run_study

    options.refuse_together(
        "--study", {"--variant": variant, **{option: choices[name] for option, name in OF_ONE.items()}}
    )
    console = Console(quiet=quiet, json=as_json)
    click.get_current_context().call_on_close(console.close)

    def call_of(opened: Opened, description: str) -> Call:
        return Call("", "name", partial(train_command, opened, description))

    planned = plan_study(experiment, choices["study"], overrides, console, options.this_command(), call_of)
    screen = Screen(console.stream, phrased) if console.interactive else None
    states = run_study(planned, choices["jobs"], retry=choices["retry"], screen=screen)
    if as_json:
        found = [results.as_json(state, results.results_of(state)) for state in states]
        options.say_json({"experiment": states[0].sweep.experiment.name, "study": planned.name, "sweeps": found})
    refuse_failures(states)


def train_command(opened: Opened, description: str, run: str, overrides: Sequence[str]) -> str:
    """The command that trains one run of the sweep alone."""
    return command_line([
        *Program.words, "train", opened.experiment.address or opened.experiment.name, "--run", run,
        *(["--variant", opened.variant] if opened.variant else []),
        *(["--description", description] if description else []),
        *(part for text in overrides for part in ("-s", text)),
    ])  # fmt: skip


COMMANDS = (sweep,)
