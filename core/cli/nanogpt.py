"""The commands import-nanogpt and export-nanogpt."""

from __future__ import annotations

from pathlib import Path

import click

from core.cli import options

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("import-nanogpt")
@options.experiment
@click.argument("checkpoint", metavar="CKPT.PT", type=FILE)
@options.run
@options.as_json
@options.settings
def import_nanogpt(
    experiment: str,
    checkpoint: Path,
    name: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Make a run of EXP from nanoGPT's ckpt.pt, to sample, evaluate or train further.

    EXP's dataset must have the vocabulary that the checkpoint was trained with.
    """
    from core.lab.exchange import import_run

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    run = import_run(opened, checkpoint, name or "nanogpt", options.this_command())
    if as_json:
        options.say_json(options.run_as_json(run.folder))


@click.command("export-nanogpt")
@options.experiment
@click.argument("checkpoint", metavar="CKPT.PT", type=FILE)
@options.run
@options.as_json
@options.settings
def export_nanogpt(
    experiment: str,
    checkpoint: Path,
    name: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Write a run with preset gpt2 as ckpt.pt, for nanoGPT's sample.py and train.py."""
    from core.lab.exchange import export_run

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    export_run(opened, checkpoint, name)
    if as_json:
        run = name or opened.default_run
        options.say_json({"experiment": opened.experiment.name, "run": run, "checkpoint": str(checkpoint.absolute())})


COMMANDS = (import_nanogpt, export_nanogpt)
