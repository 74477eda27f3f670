"""The command runs: a table of an experiment's runs and their groups of seeds. --prune removes failed or old ones."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from core.cli import options
from core.cli.console import Console
from core.cli.prune import date, prune_runs
from core.errors import UserError
from core.lab.pruning import KEPT, Listed, chosen, listed_runs
from core.plugins.discovery import find
from core.report.tables import Table, as_text, shown
from core.tracking.figures import exact_match_columns, share_text
from core.tracking.run import damaged_runs, out_folder

EVERY = 2  # seconds between two tables of --watch


@click.command()
@options.experiment
@options.as_json
@click.option("--watch", is_flag=True, help=f"Show the table again every {EVERY} seconds, until Ctrl-C.")
@click.option("--prune", is_flag=True, help=f"Remove failed runs, but never '{KEPT}' or a run in use. Asks first.")
@click.option(
    "--older-than", metavar="DAYS", type=click.FloatRange(min=0), help="With --prune: also remove older runs."
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=0),
    help="With --prune: also remove runs that did not fail, except the N newest.",
)
@click.option("--yes", is_flag=True, help="With --prune: do not ask.")
@options.settings
def runs(
    experiment: str,
    as_json: bool,
    watch: bool,
    prune: bool,
    older_than: float | None,
    keep: int | None,
    yes: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """List the runs of an experiment, newest last, and each setting with mean ± deviation over its seeds.

    A run is `running` while a process trains it, and `interrupted` if its process ended before the run did.
    """
    from core.toml import load_config

    if not prune and (yes or older_than is not None or keep is not None):
        raise UserError("--older-than, --keep and --yes only work with --prune", remedy="Add --prune.")
    if watch:
        options.refuse_together("--watch", {"--quiet": quiet})
    chosen_ones = [name for name, given in (("--json", as_json), ("--prune", prune), ("--watch", watch)) if given]
    if len(chosen_ones) > 1:
        raise UserError(f"{' and '.join(chosen_ones)} exclude each other", remedy="Leave out one of them.")
    found = find(experiment)
    config, _ = load_config(found.folder, variant, overrides)
    out = out_folder(found, config)
    listed, say = listed_runs(found, out), Console(quiet=quiet).say
    for error in damaged_runs(out):
        click.echo(f"{error.place}: {error.message}; this run is left out", err=True)
    if as_json:
        by_name = sorted(listed, key=lambda run: run.name)
        options.say_json([run.summary for run in by_name])
    elif prune:
        prune_runs(out, chosen(listed, older_than, keep), yes, say)
    elif watch:
        while True:
            click.clear()
            click.echo(as_seen(listed_runs(found, out)))
            time.sleep(EVERY)
    elif listed:
        say(as_seen(listed))
    else:
        say(f"{experiment} has no runs yet. Train one: {found.command.format('train')}")


def as_seen(listed: Sequence[Listed]) -> str:
    """The table of runs, and under it the settings that have several runs."""
    from core.lab.choosing import groups_of_seeds
    from core.report.comparison import Comparison
    from core.report.comparison import table as table_of_groups

    groups = groups_of_seeds([run.folder for run in listed])
    if all(len(group.runs) == 1 for group in groups):
        return as_text(table(listed))
    figures = as_text(table_of_groups(Comparison(groups, [], [], [])))
    return f"{as_text(table(listed))}\n\nMean ± standard deviation over seeds:\n{figures}"


def table(listed: Sequence[Listed]) -> Table:
    """A table of runs, newest last."""
    title, prompts = exact_match_columns([[run.summary] for run in listed])
    columns = ("run", "started", "status", "seed", "steps", title, "val loss", "seconds", "description")
    return Table(columns, [cells(run, of) for run, of in zip(listed, prompts, strict=True)])


def cells(run: Listed, prompts: str) -> list[str]:
    """One row of the table. prompts: what its exact match is of, if the title does not say it."""
    summary, accuracy, seconds = run.summary, run.summary.get("accuracy"), run.summary.get("train_seconds")
    return [
        run.name,
        date(run),
        *(shown(summary.get(key)) for key in ("status", "seed", "steps")),
        "-" if accuracy is None else share_text(accuracy) + prompts,
        shown(summary.get("best_val_loss")),
        "-" if seconds is None else f"{seconds:.1f}",
        shown(summary.get("description")),
    ]


COMMANDS = (runs,)
