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
    from core.cli.chosen import every_group, no_runs, out_of
    from core.errors import UserError
    from core.plugins.discovery import find, summary
    from core.report.experiment_report import write_experiment_report
    from core.report.plots import write_plots
    from core.report.run_report import write_report
    from core.tracking.run import find_run

    found = find(experiment)
    out = out_of(found, variant, overrides)
    if name is not None:
        folder = find_run(found, out, name)
        write_plots(folder)
        page = write_report(folder)
    else:
        groups = every_group(found, out)
        if not groups:
            raise UserError(f"{found.name} has no runs yet", place=str(found.folder), remedy=no_runs(found))
        page = write_experiment_report(
            out, found.name, summary(found), groups, sorted(out.glob("sweeps/*/report.html"))
        )
    if not quiet:
        click.echo(f"report: {page}\n        {page.with_suffix('.md')}")


COMMANDS = (report,)
