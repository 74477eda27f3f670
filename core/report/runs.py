"""Read run folders for a report, and group runs that differ only in their seed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.roles import flat, is_setting
from core.toml import completed
from core.tracking.figures import read_figures
from core.tracking.metrics import read_rows
from core.tracking.run import read_config

Row = dict[str, Any]


@dataclass(frozen=True)
class RunData:
    """folder: of the run; summary: summary.json; config: config.toml with dotted keys."""

    folder: Path
    summary: dict[str, Any]
    config: dict[str, Any]

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The rows of metrics.csv."""
        return read_rows(self.folder / "metrics.csv")

    @property
    def name(self) -> str:
        return str(self.summary.get("run") or self.folder.name)

    @property
    def title(self) -> str:
        """experiment/run."""
        return f"{self.summary.get('experiment', '')}/{self.name}"

    @property
    def seed(self) -> int | None:
        return self.summary.get("seed")


def read_run(folder: Path) -> RunData:
    """Read a run's folder. Raises UserError where its config.toml or summary.json is missing or damaged."""
    return RunData(folder, read_figures(folder), flat(completed(read_config(folder))))


def by_settings(runs: Iterable[RunData]) -> list[list[RunData]]:
    """Groups of runs that differ only in their seed, in the order of their first run. Each is sorted by seed."""
    groups: dict[tuple[Any, ...], list[RunData]] = {}
    found = list(runs)
    for run, data in zip(found, datasets_of([run.summary for run in found]), strict=True):
        settings = {key: repr(value) for key, value in run.config.items() if is_setting(key)}
        key = (run.summary.get("experiment"), data, *sorted(settings.items()))
        groups.setdefault(key, []).append(run)
    return [sorted(group, key=lambda run: (run.seed is None, run.seed or 0)) for group in groups.values()]


def datasets_of(summaries: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """What tells the dataset of each run from others: the hash of its bytes, or the fingerprint of an older run.

    An older run has the bytes of a newer one with the same fingerprint. None: the run does not say.
    """
    known = {
        summary.get("dataset_fingerprint"): summary["data_hash"] for summary in summaries if summary.get("data_hash")
    }
    found = []
    for summary in summaries:
        fingerprint = summary.get("dataset_fingerprint")
        found.append(summary.get("data_hash") or known.get(fingerprint, fingerprint))
    return found
