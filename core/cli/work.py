"""Commands that make things: prepare, train, loop."""

from __future__ import annotations

from typing import Any

import click

from core.cli import options


@click.command()
@options.experiment
@options.force
@options.settings
def prepare(experiment: str, force: bool, overrides: tuple[str, ...], variant: str, quiet: bool) -> None:
    """Make the dataset; skipped when it is current."""
    options.open_lab(experiment, overrides, variant, quiet).prepare(force=force)


@click.command()
@options.experiment
@options.training
@options.settings
def train(experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any) -> None:
    """Train a run, or go on with it."""
    from core.cli.training import train_run
    from core.report.plots import write_plots
    from core.report.run_report import write_report

    lab = options.open_lab(experiment, overrides, variant, quiet)
    finished = train_run(lab, **choices)
    write_plots(finished.folder)
    write_report(finished.folder)


@click.command()
@options.experiment
@options.training
@options.settings
def loop(experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, **choices: Any) -> None:
    """Prepare, train, evaluate, sample and report."""
    from core.cli.trained import Work
    from core.cli.training import train_run

    lab = options.open_lab(experiment, overrides, variant, quiet)
    finished = train_run(lab, **choices)
    work = Work.open(lab, finished.name)
    work.evaluate()
    work.report(work.sample())


COMMANDS = (prepare, train, loop)
