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
@options.as_json
@options.settings
def prepare(experiment: str, force: bool, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool) -> None:
    """Make the dataset, unless it is current."""
    from core.lab.opened import prepared

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    opened, dataset = prepared(opened, force=force)
    if as_json:
        sides = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        options.say_json({
            "experiment": opened.experiment.name,
            "folder": str(dataset.folder),
            "tokens": {side: split.tokens for side, split in sides.items() if split},
            "vocab_size": dataset.encoder.vocab_size,
            "data_hash": dataset.data_hash,
        })  # fmt: skip


@click.command()
@options.experiment
@options.training
@options.as_json
@options.settings
def train(
    experiment: str, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any
) -> None:
    """Train a run, or continue an unfinished one."""
    from core.lab.loop import train as train_whole

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    run = train_whole(opened, wished(opened, choices))
    if as_json:
        options.say_json(options.run_as_json(run.folder))


@click.command()
@options.experiment
@options.training
@options.as_json
@options.settings
def loop(experiment: str, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any) -> None:
    """Prepare, train, evaluate, sample and report."""
    from core.lab.loop import loop as run_loop

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    page = run_loop(opened, wished(opened, choices), console.write if console.interactive else None)
    if as_json:
        options.say_json(options.run_as_json(page.parent))


def wished(opened: Opened, choices: dict[str, Any]) -> Wish:
    """The Wish for a run, from the options."""
    from core.lab.training import Wish

    return Wish(**choices, command=options.this_command(), again=options.train_command(opened, choices["name"]))


COMMANDS = (prepare, train, loop)
