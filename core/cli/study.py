"""`sweep --study`: all sweeps that a file lists; and the command that trains one run of a sweep."""

from __future__ import annotations

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


def study(
    experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, as_json: bool, choices: dict[str, Any]
) -> None:
    """Train all sweeps of a study."""
    from core.cli.console import Console
    from core.cli.phrasing import phrased
    from core.sweeps import results
    from core.sweeps.live import Screen
    from core.sweeps.plan import Call
    from core.sweeps.running import Where
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
    place = Where(choices["on"], choices["jobs"], choices["address"])
    states = run_study(planned, place, retry=choices["retry"], screen=screen)
    if as_json:
        found = [results.as_json(state, results.results_of(state)) for state in states]
        options.say_json(
            {"experiment": states[0].sweep.experiment.name, "study": planned.name, "sweeps": found}, line=True
        )
    refuse_failures(states)


def train_command(opened: Opened, description: str, run: str, overrides: Sequence[str]) -> str:
    """The command that trains one run of the sweep alone."""
    return command_line([
        *Program.words, "train", opened.experiment.argument, "--run", run,
        *(["--variant", opened.variant] if opened.variant else []),
        *(["--description", description] if description else []),
        *(part for text in overrides for part in ("-s", text)),
    ])  # fmt: skip
