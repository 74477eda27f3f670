"""The command sweep: many runs of one experiment, over seeds, grids and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from core.cli import completion, options, where
from core.cli.study import study, train_command

if TYPE_CHECKING:
    from core.sweeps.space import Space


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
    default=None,
    help="Number of runs at a time. Threads and GPUs are divided among them.  [default: 1; with --on, as many as there is room for]",
)
@where.cluster
@click.option(
    "--halving",
    is_flag=True,
    help="Stop the worse runs after an eighth, a quarter and a half of their steps (needs Optuna).",
)
@click.option("--name", metavar="NAME", default="", help="Name of the sweep.  [default: from its keys]")
@click.option(
    "--study",
    metavar="NAME",
    shell_complete=completion.studies,
    help="Train all sweeps that study.NAME.toml of the experiment lists.",
)
@click.option("--retry", is_flag=True, help="Train failed runs again.")
@click.option(
    "--description", metavar="TEXT", default="", help="The question behind the sweep, stored with it and its runs."
)
@options.rows_as_json
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
    from core.cli.phrasing import phrased
    from core.sweeps import results
    from core.sweeps.live import Screen
    from core.sweeps.plan import Call, plan
    from core.sweeps.running import Where, refuse_unfinished, run_sweep

    space = space_of(choices)
    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    description = choices["description"]
    call = Call(options.this_command(), "name", partial(train_command, opened, description))
    planned = plan(opened, space, name=choices["name"], halving=choices["halving"], description=description, call=call)
    screen = Screen(console.stream, phrased) if console.interactive else None
    place = Where(choices["on"], choices["jobs"], choices["address"])
    state = run_sweep(planned, place, retry=choices["retry"], screen=screen)
    if as_json:
        options.say_json(results.as_json(state, results.results_of(state)), line=True)
    refuse_unfinished(state)


def space_of(choices: Mapping[str, Any]) -> Space:
    """The settings to try, from the options. Raises UserError."""
    from core.cli.spaces import read_grid, read_range, read_seeds
    from core.sweeps.space import Space, check_space

    return check_space(
        Space(
            () if choices["seeds"] is None else read_seeds(choices["seeds"]),
            tuple(map(read_grid, choices["grids"])),
            tuple(map(read_range, choices["ranges"])),
            choices["draws"] or 0,
        )
    )


COMMANDS = (sweep,)
