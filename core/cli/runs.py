"""The command runs: a table of an experiment's runs. --prune removes failed or old ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from core import files
from core.cli import options
from core.errors import UserError
from core.lab.pruning import KEPT, Condemned, Listed, chosen, condemn, listed_runs, remove
from core.plugins.discovery import find
from core.report.tables import Table, as_text, shown
from core.tracking.run import damaged_runs, out_folder


@click.command()
@options.experiment
@options.as_json
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
    prune: bool,
    older_than: float | None,
    keep: int | None,
    yes: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """List the runs of an experiment, newest last."""
    from core.toml import load_config

    if not prune and (yes or older_than is not None or keep is not None):
        raise UserError("--older-than, --keep and --yes only work with --prune", remedy="Add --prune.")
    if prune and as_json:
        raise UserError("--json and --prune exclude each other", remedy="Leave out one of them.")
    found = find(experiment)
    config, _ = load_config(found.folder, variant, overrides)
    out = out_folder(found, config)
    listed = listed_runs(found, out)
    for error in damaged_runs(out):
        click.echo(f"{error.place}: {error.message}; this run is left out", err=True)
    if as_json:
        by_name = sorted(listed, key=lambda run: run.name)
        click.echo(json.dumps([run.summary for run in by_name], indent=2, ensure_ascii=False))
    elif prune:
        prune_runs(out, chosen(listed, older_than, keep), yes)
    elif listed:
        click.echo(as_text(table(listed)))
    else:
        click.echo(f"{experiment} has no runs yet. Train one: {found.command.format('train')}")


def table(listed: Sequence[Listed]) -> Table:
    """A table of runs, newest last."""
    columns = ("run", "started", "status", "seed", "steps", "val loss", "accuracy", "seconds", "description")
    return Table(columns, [cells(run) for run in listed])


def cells(run: Listed) -> list[str]:
    """One row of the table."""
    summary, accuracy, seconds = run.summary, run.summary.get("accuracy"), run.summary.get("train_seconds")
    return [
        run.name,
        date(run),
        *(shown(summary.get(key)) for key in ("status", "seed", "steps", "best_val_loss")),
        "-" if accuracy is None else f"{accuracy:.1%}",
        "-" if seconds is None else f"{seconds:.1f}",
        shown(summary.get("description")),
    ]


def date(run: Listed) -> str:
    """When a run was started, to the minute."""
    return run.started[:16].replace("T", " ") or "-"


def prune_runs(out: Path, candidates: list[tuple[Listed, str]], yes: bool) -> None:
    """List what will be removed, ask, and remove it. Raises UserError if there is no terminal to ask on."""
    files.tidy(out)
    condemned, kept = condemn(candidates)
    for sentence in kept:
        click.echo(f"kept: {sentence}")
    if not condemned:
        click.echo(f"Nothing to remove in {out}.")
        return
    click.echo(as_text(Table(("run", "started", "why", "size", "description"), list(map(reasons, condemned)))))
    total = files.megabytes(sum(each.size for each in condemned))
    what = f"{len(condemned)} run{'s' * (len(condemned) != 1)}, {total}"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"cannot ask whether to remove {what}: no terminal", place=str(out), remedy="Add --yes.")
        if not click.confirm(f"Remove {what}, permanently?"):
            click.echo("Nothing was removed.")
            return
    for each in condemned:
        remove(each.run.folder)
    click.echo(f"removed {what}. EXPERIMENT_LOG.md keeps their entries.")


def reasons(each: Condemned) -> list[str]:
    """One row of the table of runs to remove."""
    description = shown(each.run.summary.get("description"))
    return [each.run.name, date(each.run), each.why, files.megabytes(each.size), description]


COMMANDS = (runs,)
