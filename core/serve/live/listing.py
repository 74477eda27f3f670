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
from core.serve.live.catalog import SOURCES, stamp
from core.serve.live.labs import Lab
from core.serve.live.parameters import Parameters
from core.serve.live.rows import Row
from core.serve.live.view import FRESH, View
from core.toml import STAGES

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
            "lab": place.lab.name,
            **described(place.lab, place.experiment),
            "runs": counts.get((place.lab.name, place.experiment.name), 0),
            "command": place.experiment.command.format("loop"),
            "problem": place.problem,
        }
        for place in view.catalog.places.values()
    ]
    return {
        "labs": [
            {"name": lab.name, "folder": str(lab.folder), "problem": view.catalog.problems.get(lab.name, "")}
            for lab in view.catalog.labs
        ],
        "problem": view.catalog.problems.get("", ""),  # of no lab: why none is known
        "read_only": view.read_only,
        "can_act": asked.may_act,
        "version": version(PACKAGE),
        "experiments": experiments,
        "tags": sorted(tags, key=str.casefold),
    }


def described(lab: Lab, experiment: Experiment) -> Account:
    """An experiment: its name, what it is, its variants and its stages. stages_of_variants: of variants with others."""
    files = tuple(stamp(experiment.folder / name) for name in SOURCES)
    told = read_description(lab, experiment, files)
    paths = {variant: experiment.folder / f"config.{variant}.toml" for variant in told["variants"]}
    own = {variant: stages_of(lab, path, stamp(path)) for variant, path in paths.items()}
    usual = experiment.folder / "config.toml"
    return told | {
        "stages": stages_of(lab, usual, stamp(usual)) or [],
        "stages_of_variants": {variant: stages for variant, stages in own.items() if stages is not None},
    }


@functools.lru_cache(maxsize=1024)
def read_description(lab: Lab, experiment: Experiment, at: tuple[tuple[int, int], ...]) -> Account:
    """`described` without the stages, once for each state of its files. Nothing is imported, and nothing is checked."""
    try:
        names = sorted(path.name for path in experiment.folder.iterdir())
    except OSError:
        names = []
    variants = [match[1] for name in names if (match := VARIANT.match(name))]
    try:
        told = summary(experiment, lab.read_source)
    except (OSError, RecursionError, MemoryError):
        told = ""
    return {
        "name": experiment.name,
        "summary": told[:300],
        "variants": variants,
    }


@functools.lru_cache(maxsize=4096)
def stages_of(lab: Lab, path: Path, at: tuple[int, int]) -> list[str] | None:
    """The names of the stages that a config.toml lists, once for each state of the file; None where it lists none."""
    try:
        listed = tomli.loads(lab.read_source(path).decode()).get(STAGES)
        return None if listed is None else [str(entry["name"]) for entry in listed]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def about_runs(view: View, asked: Parameters) -> Account:
    """The rows that match, sorted, from an offset on."""
    view.catalog.update(FRESH)
    rows = [(entry, row) for entry, row in view.rows() if matches(row, asked)]
    key = asked.text("sort") or "started"
    if rows and key not in rows[0][1]:
        raise Refused(f"sort = {key[:100]!r} is no column of the table", param="sort", code="invalid_value")
    rows.sort(key=lambda one: sortable(one[1][key]), reverse=asked.flag("descending"))
    rows.sort(key=lambda one: one[1][key] in (None, ""))  # what is not known stands last, in both directions
    offset, limit = asked.number("offset", 0, 0, 10**9), asked.number("limit", 100, 0, MOST_ROWS)
    shown = [view.row(entry) for entry, _ in rows[offset : offset + limit]]
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
