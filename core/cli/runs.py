"""The command `runs`: the runs of an experiment in a table; --prune removes those that failed, or are old."""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from core import durable, files
from core.cli import options
from core.errors import UserError
from core.plugins.discovery import find
from core.report.tables import Table, as_text, shown
from core.tracking.run import DEFAULT, damaged_runs, lock_file, out_folder, read_summary, run_folders

KEPT = DEFAULT  # what other runs are compared with, in EXPERIMENT_LOG.md too


@dataclass(frozen=True)
class Listed:
    """A run's folder with its summary."""

    folder: Path
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def started(self) -> str:
        """Local time in ISO 8601; "" where it is not known, which counts as old."""
        return str(self.summary.get("started") or "")


@click.command()
@options.experiment
@options.as_json
@click.option("--prune", is_flag=True, help=f"Remove runs that failed; never '{KEPT}', or a run in use. Asks first.")
@click.option(
    "--older-than", metavar="DAYS", type=click.FloatRange(min=0), help="With --prune: older runs, too, failed or not."
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=0),
    help="With --prune: runs that did not fail, too, but the N newest.",
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
    """The runs of an experiment, the newest last."""
    from core.toml import load_config

    if not prune and (yes or older_than is not None or keep is not None):
        raise UserError("--older-than, --keep and --yes say what --prune removes", remedy="Add --prune.")
    if prune and as_json:
        raise UserError("--json and --prune exclude each other", remedy="Leave out one of them.")
    found = find(experiment)
    config, _ = load_config(found.folder, variant, overrides)
    out = out_folder(found, config)
    listed = [Listed(folder, read_summary(folder)) for folder in run_folders(found, out)]
    for error in damaged_runs(out):
        click.echo(f"{error.place}: {error.message}; this run is left out", err=True)
    if as_json:
        click.echo(json.dumps([run.summary for run in listed], indent=2, ensure_ascii=False))
    elif prune:
        prune_runs(out, chosen(listed, older_than, keep), yes)
    elif listed:
        click.echo(as_text(table(listed)))
    else:
        click.echo(f"{experiment} has no runs yet. Train one: {found.command.format('train')}")


def table(listed: list[Listed]) -> Table:
    """Runs, the newest last."""
    columns = ("run", "started", "status", "seed", "steps", "val loss", "accuracy", "seconds", "description")
    return Table(columns, [cells(run) for run in sorted(listed, key=lambda run: run.started)])


def cells(run: Listed) -> list[str]:
    """One line of the table."""
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
    """When it began, to the minute."""
    return run.started[:16].replace("T", " ") or "-"


def chosen(listed: list[Listed], older_than: float | None, keep: int | None) -> list[tuple[Listed, str]]:
    """The runs to remove, each with the reason; the newest last. older_than: days; keep: so many newest ones stay."""
    others = sorted((run for run in listed if run.name != KEPT), key=lambda run: run.started)
    whole = [run for run in others if run.summary.get("status") != "failed"]
    newest = whole[len(whole) - min(keep or 0, len(whole)) :]
    before = None if older_than is None else (datetime.datetime.now() - datetime.timedelta(days=older_than)).isoformat()

    def reason(run: Listed) -> str:
        if run not in whole:
            return "failed"
        if run in newest or (before is None and keep is None):
            return ""
        if before is None:
            return f"not among the {keep} newest"
        return f"older than {older_than:g} days" if run.started < before else ""

    return [(run, why) for run in others if (why := reason(run))]


def prune_runs(out: Path, condemned: list[tuple[Listed, str]], yes: bool) -> None:
    """Say what is to be removed, ask, and remove it. Raises UserError where there is nobody to ask."""
    files.tidy(out)
    free = []
    for run, why in condemned:
        try:
            with files.lock(lock_file(run.folder), f"run {run.name}"):
                free.append((run, why))
        except UserError as error:
            click.echo(f"kept: {error.message}")
    if not free:
        click.echo(f"Nothing to remove in {out}.")
        return
    sizes = [size(run.folder) for run, _ in free]
    rows = [
        [run.name, date(run), why, files.megabytes(used), shown(run.summary.get("description"))]
        for (run, why), used in zip(free, sizes, strict=True)
    ]
    click.echo(as_text(Table(("run", "started", "why", "size", "description"), rows)))
    what = f"{len(free)} run{'s' * (len(free) != 1)}, {files.megabytes(sum(sizes))}"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"nobody can be asked whether to remove {what}", place=str(out), remedy="Add --yes.")
        if not click.confirm(f"Remove {what}, for good?"):
            click.echo("Nothing was removed.")
            return
    for run, _ in free:
        remove(run.folder)
    click.echo(f"removed {what}. EXPERIMENT_LOG.md keeps their entries.")


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def remove(folder: Path) -> None:
    """Remove a run; a kill leaves it as a whole, or as a hidden folder that the next --prune removes."""
    with files.lock(lock_file(folder), f"run {folder.name}"):
        hidden = files.temporary_name(folder)
        durable.rename(folder, hidden)
        durable.sync_path(folder.parent)
        durable.remove_tree(hidden)


COMMANDS = (runs,)
