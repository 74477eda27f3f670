"""The command report: a page about an experiment or one of its runs, from the files on disk."""

from __future__ import annotations

import click

from core.cli import options


@click.command()
@options.experiment
@click.option("--run", "name", metavar="NAME", help="Report on this run only.")
@options.settings
def report(experiment: str, name: str | None, overrides: tuple[str, ...], variant: str, quiet: bool) -> None:
    """Write a report on all runs of an experiment, or on one run.

    A report is one HTML page, which opens from disk, and the same in Markdown. Runs and sweeps write their own reports;
    this command updates them.
    """
    from core.lab.choosing import out_of
    from core.lab.reporting import report_of_experiment, report_of_run
    from core.plugins.discovery import find
    from core.tracking.run import find_run

    found = find(experiment)
    out = out_of(found, variant, overrides)
    page = report_of_experiment(found, out) if name is None else report_of_run(find_run(found, out, name))
    if not quiet:
        click.echo(f"report: {page}\n        {page.with_suffix('.md')}")


COMMANDS = (report,)
