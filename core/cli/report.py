"""The command report: pages about an experiment, or about one run of it, from what is on disk."""

from __future__ import annotations

import click

from core.cli import options


@click.command()
@options.experiment
@click.option("--run", "name", metavar="NAME", help="Report on this run alone.")
@options.settings
def report(experiment: str, name: str | None, overrides: tuple[str, ...], variant: str, quiet: bool) -> None:
    """Write a report: all runs of an experiment side by side, or one run.

    Each is one page of HTML, which opens from disk, and the same in Markdown. Runs and sweeps have theirs already; this
    writes them again.
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
