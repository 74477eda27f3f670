"""What `runs --prune` says and asks before it removes runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from core import files
from core.errors import UserError
from core.lab.pruning import Condemned, Listed, condemn, remove
from core.report.tables import Table, as_text, shown


def date(run: Listed) -> str:
    """When a run was started, to the minute."""
    return run.started[:16].replace("T", " ") or "-"


def prune_runs(out: Path, candidates: list[tuple[Listed, str]], yes: bool, say: Callable[[str], None]) -> None:
    """List what will be removed, ask, and remove it. Raises UserError if there is no terminal to ask on."""
    files.tidy(out)
    condemned, kept = condemn(candidates)
    for sentence in kept:
        say(f"kept: {sentence}")
    if not condemned:
        say(f"Nothing to remove in {out}.")
        return
    say(as_text(Table(("run", "started", "why", "size", "description"), list(map(reasons, condemned)))))
    total = files.megabytes(sum(each.size for each in condemned))
    what = f"{len(condemned)} run{'s' * (len(condemned) != 1)}, {total}"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"cannot ask whether to remove {what}: no terminal", place=str(out), remedy="Add --yes.")
        if not click.confirm(f"Remove {what}, permanently?"):
            say("Nothing was removed.")
            return
    for each in condemned:
        remove(each.run.folder)
    say(f"removed {what}. EXPERIMENT_LOG.md keeps their entries.")


def reasons(each: Condemned) -> list[str]:
    """One row of the table of runs to remove."""
    description = shown(each.run.summary.get("description"))
    return [each.run.name, date(each.run), each.why, files.megabytes(each.size), description]
