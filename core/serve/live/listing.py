"""Answers about many runs: the labs with their experiments, and the table of runs."""

from __future__ import annotations

import functools
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli

from core.plugins.discovery import Experiment, summary
from core.plugins.manager import PACKAGE
from core.serve.errors import Refused
from core.serve.live.catalog import stamp
from core.serve.live.parameters import Parameters
from core.serve.live.rows import Row
from core.serve.live.view import FRESH, View

MOST_ROWS = 1000  # in one answer
VARIANT = re.compile(r"^config\.(.+)\.toml$")
Account = dict[str, Any]


def about_lab(view: View, asked: Parameters) -> Account:
    """The labs, and every experiment with its variants and stages."""
    view.catalog.update(FRESH)
    counts: dict[tuple[str, str], int] = {}
    tags: set[str] = set()
    for entry in view.catalog.entries.values():
        key = (entry.lab.name, entry.experiment.name)
        counts[key] = counts.get(key, 0) + 1
        tags.update(entry.notes.get("tags", ()))
    experiments = [
        {
            "lab": lab.name,
            **described(experiment),
            "runs": counts.get((lab.name, experiment.name), 0),
            "command": experiment.command.format("loop"),
        }
        for lab, experiment in view.catalog.experiments
    ]
    return {
        "labs": [{"name": lab.name, "folder": str(lab.folder)} for lab in view.catalog.labs],
        "read_only": view.read_only,
        "can_act": asked.may_act,
        "version": version(PACKAGE),
        "experiments": experiments,
        "tags": sorted(tags, key=str.casefold),
    }


def described(experiment: Experiment) -> Account:
    """An experiment: its name, what it is, its variants and its stages."""
    files = tuple(stamp(experiment.folder / name) for name in ("config.toml", "prepare.py", "Readme.md", "."))
    return dict(read_description(experiment, files))


@functools.lru_cache(maxsize=1024)
def read_description(experiment: Experiment, at: tuple[tuple[int, int], ...]) -> Account:
    """`described`, once for each state of its files. Nothing is imported, and nothing is checked."""
    names = sorted(path.name for path in experiment.folder.iterdir())
    variants = [match[1] for name in names if (match := VARIANT.match(name))]
    try:
        told = summary(experiment)
    except (OSError, RecursionError, MemoryError):
        told = ""
    return {
        "name": experiment.name,
        "summary": told[:300],
        "variants": variants,
        "stages": stages_of(experiment.folder / "config.toml"),
    }


def stages_of(path: Path) -> list[str]:
    """The names of the stages that a config.toml lists; [] where it cannot be read."""
    try:
        entries = tomli.loads(path.read_text(encoding="utf-8")).get("stages", [])
        return [str(entry["name"]) for entry in entries]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def about_runs(view: View, asked: Parameters) -> Account:
    """The rows that match, sorted, from an offset on."""
    view.catalog.update(FRESH)
    entries = view.catalog.entries
    rows = [row for row in map(view.short_row, entries.values()) if matches(row, asked)]
    key = asked.text("sort") or "started"
    if rows and key not in rows[0]:
        raise Refused(f"sort = {key[:100]!r} is no column of the table", param="sort", code="invalid_value")
    rows.sort(key=lambda row: sortable(row[key]), reverse=asked.flag("descending"))
    rows.sort(key=lambda row: row[key] is None or row[key] == "")  # what is not known stands last, in both directions
    offset, limit = asked.number("offset", 0, 0, 10**9), asked.number("limit", 100, 0, MOST_ROWS)
    shown = [view.row(entries[row["id"]]) for row in rows[offset : offset + limit]]
    return {"total": len(rows), "offset": offset, "rows": shown}


def matches(row: Row, asked: Parameters) -> bool:
    """Whether a row is one of those that are asked for."""
    if row["hidden"] and not asked.flag("hidden"):
        return False
    if asked.flag("starred") and not row["starred"]:
        return False
    if (tag := asked.text("tag")) and tag not in row["tags"]:
        return False
    for key in ("lab", "experiment", "status"):
        if (wanted := asked.text(key)) and row[key] != wanted:
            return False
    words = asked.text("text").casefold().split()
    text = " ".join([row["id"], row["description"], *row["tags"]]).casefold() if words else ""
    return all(word in text for word in words)


def sortable(value: Any) -> tuple[int, Any]:
    """What values of one column are sorted by: numbers before texts, texts without regard to case."""
    if value is None:
        return (0, 0)
    return (0, value) if isinstance(value, (bool, int, float)) else (1, str(value).casefold())
