"""The commands prepare, train and loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from core.cli import options, outcome, where

if TYPE_CHECKING:
    from core.data.dataset import Dataset
    from core.lab.opened import Opened
    from core.lab.training import Wish


@click.command()
@options.experiment
@options.stage
@options.force
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=None,
    help="With --on ray: workers that encode.  [default: one for each CPU]",
)
@where.cluster
@options.as_json
@options.settings
def prepare(
    experiment: str, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any
) -> None:
    """Make the dataset, unless it is current. With stages, make those of all of them."""
    from core.lab.coding import opened_coding
    from core.lab.pipeline import prepare_all

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    with opened_coding(opened, choices["on"], choices["jobs"], choices["address"]) as coding:
        made = prepare_all(opened, choices["stage"], force=choices["force"], coding=coding)
    if as_json:
        found = {name: dataset_as_json(opened.experiment.name, dataset) for name, dataset in made.items()}
        options.say_json(found.get("", {"experiment": opened.experiment.name, "stages": found}))


def dataset_as_json(experiment: str, dataset: Dataset) -> dict[str, Any]:
    """A dataset for --json."""
    sides = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {
        "experiment": experiment,
        "folder": str(dataset.folder),
        "tokens": {side: split.tokens for side, split in sides.items() if split},
        "vocab_size": dataset.encoder.vocab_size,
        "data_hash": dataset.data_hash,
    }


@click.command()
@options.experiment
@options.training
@options.rows_as_json
@options.settings
def train(
    experiment: str, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any
) -> None:
    """Train a run, or continue an unfinished one. With stages, train all of them."""
    from core.lab.loop import train as train_whole

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    run = train_whole(opened, wished(opened, choices))
    if as_json:
        options.say_json(outcome.run_as_json(run.folder), line=True)


@click.command()
@options.experiment
@options.training
@options.rows_as_json
@options.settings
def loop(experiment: str, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any) -> None:
    """Prepare, train, evaluate, sample and report. With stages, do so for each one that is not finished."""
    from core.lab.loop import loop as run_loop

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    page = run_loop(opened, wished(opened, choices), console.write if console.interactive else None)
    if as_json:
        found = outcome.pipeline_as_json if opened.stages else outcome.run_as_json
        options.say_json(found(page.parent), line=True)


def wished(opened: Opened, choices: dict[str, Any]) -> Wish:
    """The Wish for a run, from the options."""
    from core.lab.training import Wish

    name = click.get_current_context().info_name or "train"
    again = options.train_command(opened, choices["name"], stage=choices["stage"], command=name)
    return Wish(**choices, command=options.this_command(), again=again)


COMMANDS = (prepare, train, loop)
