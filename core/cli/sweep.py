"""The command sweep: many runs of one experiment, over seeds, grids and ranges."""

from __future__ import annotations

import json
from typing import Any

import click

from core.cli import options
from core.cli.spaces import GRID, RANGE, SEEDS


@click.command()
@options.experiment
@click.option(
    "--seeds", metavar="0..4|0,1,2", type=SEEDS, default=None, help="Seeds of every setting.  [default: the config's]"
)
@click.option(
    "--grid",
    "grids",
    metavar="KEY=V1,V2",
    type=GRID,
    multiple=True,
    help="Values of one key; repeated, every combination.",
)
@click.option(
    "--random", "draws", metavar="N", type=click.IntRange(min=1), default=None, help="Draw N settings from the ranges."
)
@click.option(
    "--range",
    "ranges",
    metavar="KEY=LOW..HIGH[:log]",
    type=RANGE,
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
    from core.cli.console import phrased
    from core.sweeps import results
    from core.sweeps.live import Screen
    from core.sweeps.plan import plan
    from core.sweeps.running import refuse_unfinished, run_sweep
    from core.sweeps.space import Space, check_space

    space = check_space(
        Space(choices["seeds"] or (), tuple(choices["grids"]), tuple(choices["ranges"]), choices["draws"] or 0)
    )
    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    planned = plan(
        opened, space, name=choices["name"], halving=choices["halving"], description=choices["description"],
        command=options.this_command(),
    )  # fmt: skip
    screen = Screen(console.stream, phrased) if console.interactive else None
    state = run_sweep(planned, choices["jobs"], retry=choices["retry"], screen=screen)
    if as_json:
        click.echo(json.dumps(results.as_json(state, results.results_of(state)), indent=2, ensure_ascii=False))
    refuse_unfinished(state)


COMMANDS = (sweep,)
