"""The commands prepare, train and loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from core.cli import options

if TYPE_CHECKING:
    from core.lab.opened import Opened
    from core.lab.training import Wish


@click.command()
@options.experiment
@options.force
@options.settings
def prepare(experiment: str, force: bool, overrides: tuple[str, ...], variant: str, quiet: bool) -> None:
    """Make the dataset, unless it is current."""
    from core.lab.opened import prepared

    opened, _ = options.opened(experiment, overrides, variant, quiet)
    prepared(opened, force=force)


@click.command()
@options.experiment
@options.training
@options.settings
def train(experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any) -> None:
    """Train a run, or continue an unfinished one."""
    from core.lab.loop import train as train_whole

    opened, _ = options.opened(experiment, overrides, variant, quiet)
    train_whole(opened, wished(opened, choices))


@click.command()
@options.experiment
@options.training
@options.settings
def loop(experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any) -> None:
    """Prepare, train, evaluate, sample and report."""
    from core.lab.loop import loop as run_loop

    opened, console = options.opened(experiment, overrides, variant, quiet)
    run_loop(opened, wished(opened, choices), console.write if console.interactive else None)


def wished(opened: Opened, choices: dict[str, Any]) -> Wish:
    """The Wish for a run, from the options."""
    from core.lab.training import Wish

    return Wish(**choices, command=options.this_command(), again=options.train_command(opened, choices["name"]))


COMMANDS = (prepare, train, loop)
