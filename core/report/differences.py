"""What differed between groups of runs: their runs go in, out come the config keys, data, code and environment that are not the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core.report.runs import RunData, is_setting
from core.report.tables import Table

SHOWN_VALUES, SHOWN_DIGITS = 6, 12
UNKNOWN = "-"
HEIR = re.compile(r"^sample\.runtime\.")  # its keys are those of [train.runtime], if they are not set
CODE = ("git_commit", "code")  # of the environment: what was run, not what it ran on
# Facts of [prepare] that say where data is, not what it is; the fingerprint says that.
PLACES = ("prepare.variant", "prepare.dataset_dir", "prepare.raw_dir", "prepare.input", "prepare.sha256")
Facts = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """kind: config, data, code or environment; values: of each group, every one that its runs have ("-" for none)."""

    kind: str
    key: str
    values: tuple[str, ...]


def differences(groups: Sequence[Sequence[RunData]]) -> list[Difference]:
    """All that is not the same in every group: settings first, then data, code and environment."""
    readers: list[tuple[str, Callable[[RunData], Facts]]] = [
        ("config", lambda run: run.config), ("data", data), ("code", code), ("environment", environment),
    ]  # fmt: skip
    found = [row for kind, read in readers for row in of_kind(kind, [[read(run) for run in group] for group in groups])]
    values = {row.key: row.values for row in found}
    return [
        row for row in found if values.get(HEIR.sub("train.runtime.", row.key)) != row.values or not HEIR.match(row.key)
    ]


def of_kind(kind: str, groups: Sequence[Sequence[Facts]]) -> list[Difference]:
    """The keys whose values are not the same in every group. A group that does not know a fact differs in nothing by it.

    A key that config.toml lacks is known all the same: it is null.
    """
    keys = dict.fromkeys(key for group in groups for facts in group for key in facts)
    rows = [(key, [distinct(facts.get(key) for facts in group) for group in groups]) for key in keys]
    return [
        Difference(kind, key, tuple(map(listed, values)))
        for key, values in rows
        if len({frozenset(value) for value in values if kind == "config" or value != [UNKNOWN]}) > 1
    ]


def distinct(values: Iterable[Any]) -> list[str]:
    """Each value once, as text; numbers by size, else in the order in which they come."""
    found = {shown(value): value for value in values}
    if all(type(value) in (int, float) for value in found.values()):
        return sorted(found, key=lambda text: float(found[text]))
    return list(found)


def shown(value: Any) -> str:
    """One value; null is what a run does not have."""
    if isinstance(value, str):
        return value
    return UNKNOWN if value is None else json.dumps(value, ensure_ascii=False)


def listed(values: Sequence[str]) -> str:
    """0, 1, 2, 3, 4, 5 and 14 more."""
    rest = len(values) - SHOWN_VALUES
    return ", ".join(values[:SHOWN_VALUES]) + (f" and {rest} more" if rest > 0 else "")


def data(run: RunData) -> Facts:
    """The dataset's fingerprint: a hash of the experiment's code, [prepare] and the raw inputs."""
    fingerprint = run.summary.get("dataset_fingerprint")
    return {"fingerprint": fingerprint and str(fingerprint)[:SHOWN_DIGITS]}


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
    """Settings, data included, that differ within a group, which ought to differ in its seed alone."""
    found = of_kind(
        "config", [[{k: v for k, v in run.config.items() if is_setting(k) and k not in PLACES}] for run in group]
    )
    return [difference.key for difference in found] + (["the data"] if len(fingerprints(group)) > 1 else [])


def fingerprints(runs: Iterable[RunData]) -> set[str]:
    """The datasets that runs were trained on."""
    return {str(run.summary.get("dataset_fingerprint")) for run in runs}


def as_table(found: Sequence[Difference], names: Sequence[str]) -> Table:
    """One row per difference, a column per group."""
    return Table(
        ("what", "key", *names), [(difference.kind, difference.key, *difference.values) for difference in found]
    )
