"""Find the config keys, data, code and environment that differ between groups of runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.report.runs import RunData, datasets_of
from core.report.tables import Table
from core.roles import is_setting

SHOWN_VALUES, SHOWN_DIGITS = 6, 12
UNKNOWN = "-"
TIMED = ("train.runtime.dtype", "train.runtime.attention", "train.runtime.threads")  # in the order of a timing's name
INHERITED = re.compile(r"^sample\.runtime\.")  # these keys take the values of [train.runtime] unless they are set
CODE = ("git_commit", "code")  # keys of the environment that say what was run, not what it ran on
Facts = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """kind: config, data, code or environment. values: for each group, every value of its runs ("-" for none)."""

    kind: str
    key: str
    values: tuple[str, ...]


def differences(groups: Sequence[Sequence[RunData]]) -> list[Difference]:
    """Everything that is not the same in every group: settings first, then data, code and environment."""
    readers: list[tuple[str, Callable[[RunData], Facts]]] = [
        ("config", lambda run: run.config), ("data", data), ("code", code), ("environment", environment),
    ]  # fmt: skip
    found = [row for kind, read in readers for row in of_kind(kind, [[read(run) for run in group] for group in groups])]
    values = {row.key: row.values for row in found}
    return [
        with_timed(row, groups)
        for row in found
        if values.get(INHERITED.sub("train.runtime.", row.key)) != row.values or not INHERITED.match(row.key)
    ]


def with_timed(row: Difference, groups: Sequence[Sequence[RunData]]) -> Difference:
    """A difference that says where nobody has set a value: it was the fastest of several that were timed."""
    if row.kind != "config" or row.key not in TIMED:
        return row
    place = TIMED.index(row.key)
    timed = [all(was_timed(run, place) for run in group) for group in groups]
    values = [f"{value} (chosen by timing)" if own else value for value, own in zip(row.values, timed, strict=True)]
    return replace(row, values=tuple(values))


def was_timed(run: RunData, place: int) -> bool:
    """Whether a run's timings differ at a place of their names, such as `bfloat16, sdpa attention, 1 thread`."""
    timings = (run.summary.get("choices") or {}).get("milliseconds")
    return isinstance(timings, dict) and len({tuple(name.split(", ")[place : place + 1]) for name in timings}) > 1


def of_kind(kind: str, groups: Sequence[Sequence[Facts]]) -> list[Difference]:
    """The keys whose values are not the same in every group. A group that does not know a fact does not differ in it.

    A key that is missing in config.toml is known: it is null.
    """
    keys = dict.fromkeys(key for group in groups for facts in group for key in facts)
    rows = [(key, [distinct(facts.get(key) for facts in group) for group in groups]) for key in keys]
    return [
        Difference(kind, key, tuple(map(listed, values)))
        for key, values in rows
        if len({frozenset(value) for value in values if kind == "config" or value != [UNKNOWN]}) > 1
    ]


def distinct(values: Iterable[Any]) -> list[str]:
    """Each value once, as text. Numbers are sorted, other values keep their order."""
    found = {shown(value): value for value in values}
    if all(type(value) in (int, float) for value in found.values()):
        return sorted(found, key=lambda text: float(found[text]))
    return list(found)


def shown(value: Any) -> str:
    """One value as text. null is shown as missing."""
    if isinstance(value, str):
        return value
    return UNKNOWN if value is None else json.dumps(value, ensure_ascii=False)


def listed(values: Sequence[str]) -> str:
    """0, 1, 2, 3, 4, 5 and 14 more."""
    rest = len(values) - SHOWN_VALUES
    return ", ".join(values[:SHOWN_VALUES]) + (f" and {rest} more" if rest > 0 else "")


def data(run: RunData) -> Facts:
    """The hash of the dataset's bytes. Older runs have its fingerprint: a hash of code, [prepare] and the raw inputs."""
    whole, fingerprint = run.summary.get("data_hash"), run.summary.get("dataset_fingerprint")
    return {
        "hash": whole and str(whole)[:SHOWN_DIGITS],
        "fingerprint": None if whole else fingerprint and str(fingerprint)[:SHOWN_DIGITS],
    }


def code(run: RunData) -> Facts:
    """The experiment, the commit (with +changes where the tree differed from it), and a hash of the experiment's own *.py."""
    known = run.summary.get("environment") or {}
    commit, _, changed = str(known.get("git_commit") or "").partition("+")
    return {
        "experiment": run.summary.get("experiment"),
        "git commit": (commit[:SHOWN_DIGITS] + ("+" + changed if changed else "")) or None,
        "prepare.py and other *.py": known.get("code") and str(known["code"])[:SHOWN_DIGITS],
    }


def environment(run: RunData) -> Facts:
    """What the run ran on: versions, processor, threads, device and precision."""
    known = {key: value for key, value in (run.summary.get("environment") or {}).items() if key not in CODE}
    return known | {"device": run.summary.get("device"), "dtype": run.summary.get("dtype")}


def mixed_settings(group: Sequence[RunData]) -> list[str]:
    """Settings, and the data, that differ within a group. Its runs should differ in their seed only."""
    found = of_kind("config", [[{k: v for k, v in run.config.items() if is_setting(k)}] for run in group])
    several = len(set(datasets_of([run.summary for run in group]))) > 1
    return [difference.key for difference in found] + (["the data"] if several else [])


def as_table(found: Sequence[Difference], names: Sequence[str]) -> Table:
    """One row per difference, one column per group."""
    return Table(
        ("what", "key", *names), [(difference.kind, difference.key, *difference.values) for difference in found]
    )
