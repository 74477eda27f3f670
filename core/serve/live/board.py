"""The board of a class: groups of runs that differ by their seed alone, by time to a target or by exact match.

A place is decided by the bad end of the 95 % interval over seeds, so that a lucky seed wins nothing. A group has no interval, and
stands below without a place, where it has one seed only, or a run without a figure: one that still trains, was stopped, has
failed, or never reached the target. So no seed is left out of what counts, but by removing its run, which nobody can see
afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.lab.choosing import grouped
from core.report.bootstrap import Sides, interval
from core.report.comparison import Group
from core.report.proportions import interval_of_share
from core.report.runs import RunData, datasets_of
from core.serve.errors import Refused
from core.serve.live.catalog import Entry, stamp
from core.serve.live.configs import finite_dict, run_data
from core.serve.live.parameters import Parameters
from core.serve.live.rows import commit_of
from core.serve.live.view import View

LEAST, MOST_RUNS = 2, 2000  # seeds for an interval; runs on the board
# Of a summary: with the config, what groups depend on.
TOLD = ("experiment", "data_hash", "dataset_fingerprint", "seed")
Account = dict[str, Any]


@dataclass(frozen=True)
class Shared:
    """Which runs have the same settings: the name of each group with its folders, the experiments, and which runs cannot be read."""

    groups: list[tuple[str, list[Path]]]
    experiments: list[str]
    left_out: list[str]


def about_board(view: View, asked: Parameters) -> Account:
    """The board: a ranking for each experiment, its data and the side that it is measured on.

    by: accuracy (the reported side), or target: seconds until val_accuracy has reached target.
    """
    view.catalog.update(1.0)
    by = asked.one_of("by", ("accuracy", "target"))
    target = share(asked.text("target") or "0.9")
    experiment = asked.text("experiment")
    entries = {
        entry.folder: entry
        for entry in view.catalog.entries.values()
        if experiment in ("", entry.experiment.name)  # hidden ones too: else one could hide the bad seeds
    }
    if len(entries) > MOST_RUNS:
        raise Refused(f"the board is of at most {MOST_RUNS:,} runs: choose an experiment", param="experiment")
    shared = shared_settings(view, experiment, list(entries.values()))
    groups = [Group(name, [as_it_is(entries[folder]) for folder in folders]) for name, folders in shared.groups]
    rankings: dict[tuple[str, str, str], list[Account]] = {}
    for group, data in zip(groups, datasets_of([group.runs[0].summary for group in groups]), strict=True):
        of = [entries[run.folder] for run in group.runs]
        if (found := ranked(view, group, of, by, target)) is not None:
            side = "" if by == "target" else str(group.counted[0].summary.get("side") or "")
            rankings.setdefault((of[0].experiment.name, str(data or ""), side), []).append(found)
    told = [
        {"experiment": name, "data": data, "side": side, "entries": placed(found, lower_is_better=by == "target")}
        for (name, data, side), found in sorted(rankings.items())
    ]
    experiments, left_out = shared.experiments, shared.left_out
    return finite_dict({"by": by, "target": target, "experiments": experiments, "rankings": told, "left_out": left_out})


def as_it_is(entry: Entry) -> RunData:
    """A run as it is now, but for its config, which its group has been found by."""
    return RunData(entry.folder, dict(entry.summary) | {"status": entry.status, "run": entry.name}, {})


def shared_settings(view: View, chosen: str, entries: Sequence[Entry]) -> Shared:
    """The groups of some runs, found anew only when there are others, or others of their settings. chosen: the experiment, or ""."""
    key = tuple(
        (entry.folder, stamp(entry.folder / "config.toml"), entry.problem, *map(str, map(entry.summary.get, TOLD)))
        for entry in entries
    )
    if not entries:
        return found_groups(entries)
    known = view.shared.get(chosen)
    if known is None or known[0] != key:
        known = view.shared[chosen] = key, found_groups(entries)
    return known[1]


def found_groups(entries: Sequence[Entry]) -> Shared:
    """Groups of runs that differ by their seed alone; each of one lab and one experiment."""
    by_place: dict[tuple[str, str], list[RunData]] = {}
    left_out = []
    for entry in entries:
        try:
            by_place.setdefault((entry.lab.name, entry.experiment.name), []).append(run_data(entry))
        except Refused as error:
            left_out.append(error.message)
    groups = [group for runs in by_place.values() for group in grouped(runs)]
    if len({lab for lab, _ in by_place}) > 1:
        groups = named_alike(groups)
    experiments = sorted({name for _, name in by_place})
    return Shared([(group.name, [run.folder for run in group.runs]) for group in groups], experiments, left_out)


def named_alike(groups: Sequence[Group]) -> list[Group]:
    """Groups of several labs with names by what differs in all labs, so that one setting has one name."""
    names: dict[Path, str] = {}
    for experiment in {group.runs[0].summary.get("experiment") for group in groups}:
        everywhere = grouped(
            [run for group in groups for run in group.runs if run.summary.get("experiment") == experiment]
        )
        if len(everywhere) > 1:
            names |= {run.folder: group.name for group in everywhere for run in group.runs}
    return [Group(names.get(group.runs[0].folder, group.name), group.runs) for group in groups]


def ranked(view: View, group: Group, entries: Sequence[Entry], by: str, target: float) -> Account | None:
    """The entry of a group; None if none of its runs has a figure. entries: its runs."""
    figures = [accuracy_of(run) if by == "accuracy" else time_to(view, entry, target) for run, entry in zip(group.runs, entries, strict=True)]  # fmt: skip
    known = [(run, figure) for run, figure in zip(group.runs, figures, strict=True) if figure is not None]
    if not known:
        return None
    worst = min if by == "accuracy" else max
    of_seeds: dict[int | str, float] = {}  # several runs of one seed are one value: their worst
    for run, figure in known:
        seed = run.name if run.seed is None else run.seed
        of_seeds[seed] = worst(figure, of_seeds.get(seed, figure))
    values, without = list(of_seeds.values()), len(group.runs) - len(known)
    asked = min(run.summary.get("prompts") or 0 for run, _ in known) if by == "accuracy" else None
    low, high = (None, None) if without else ends(values, asked)
    seconds = [float(run.summary["train_seconds"]) for run, _ in known if run.summary.get("train_seconds") is not None]
    first = entries[0]
    return {
        "lab": first.lab.name,
        "experiment": first.experiment.name,
        "name": group.name,
        "runs": [entry.id for entry in entries],
        "seeds": sorted(of_seeds, key=lambda seed: (isinstance(seed, str), seed)),
        "without": without,
        "value": sum(values) / len(values),
        "low": low,
        "high": high,
        "seconds": sum(seconds) / len(seconds) if seconds else None,
        "parameters": known[0][0].summary.get("parameters"),
        "commits": list(dict.fromkeys(commit_of(entry.summary) for entry in entries)),  # other code counts, too
        "command": str(first.summary.get("command") or ""),
    }


def accuracy_of(run: RunData) -> float | None:
    """Exact match of a run that is completed; None without."""
    found = run.summary.get("accuracy") if run.summary.get("status") == "completed" else None
    return float(found) if found is not None and math.isfinite(found) else None


def time_to(view: View, entry: Entry, target: float) -> float | None:
    """Seconds of training until val_accuracy had reached the target; None if it never had."""
    seconds, accuracy = view.table(entry).curve("val_accuracy", "seconds")
    reached = seconds[accuracy >= target]
    return float(reached[0]) if len(reached) else None


def ends(values: Sequence[float], prompts: int | None) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean over seeds; None with one seed. prompts: of a share, how many each seed was asked; else None."""
    given = np.array(values, dtype=np.float64)
    if len(values) < LEAST:
        return None, None
    if prompts is not None:
        return interval_of_share(given, prompts) or (None, None)
    mean = float(given.mean())
    low, high = interval(Sides(np.zeros_like(given), given, True, ()), mean) if np.ptp(given) else (mean, mean)
    return max(0.0, low), high


def placed(entries: list[Account], *, lower_is_better: bool) -> list[Account]:
    """Entries with their places, by the bad end of the interval; then those without an interval, which have none."""

    def order(entry: Account) -> tuple[bool, float]:
        bad = entry["high"] if lower_is_better else entry["low"]
        worst = entry["value"] if bad is None else bad
        return entry["low"] is None, worst if lower_is_better else -worst

    return [
        entry | {"place": None if entry["low"] is None else number}
        for number, entry in enumerate(sorted(entries, key=order), 1)
    ]


def share(text: str) -> float:
    """A share from 0 to 1. Raises Refused."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise Refused(f"target = {text[:60]!r} is no share above 0 and up to 1", param="target", code="invalid_value")
    return value
