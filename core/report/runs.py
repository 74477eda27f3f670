"""Read run folders for a report, and group runs that differ only in their seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.roles import flat, is_setting
from core.toml import completed
from core.tracking.metrics import read_rows
from core.tracking.run import read_config, read_summary

Row = dict[str, Any]


@dataclass(frozen=True)
class RunData:
    """folder: of the run; summary: summary.json; config: config.toml with dotted keys; rows: of metrics.csv."""

    folder: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    rows: list[Row]

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
    return RunData(
        folder, read_summary(folder), flat(completed(read_config(folder))), read_rows(folder / "metrics.csv")
    )


def by_settings(runs: Iterable[RunData]) -> list[list[RunData]]:
    """Groups of runs that differ only in their seed, in the order of their first run. Each is sorted by seed."""
    groups: dict[tuple[Any, ...], list[RunData]] = {}
    for run in runs:
        settings = {key: repr(value) for key, value in run.config.items() if is_setting(key)}
        key = (run.summary.get("experiment"), run.summary.get("dataset_fingerprint"), *sorted(settings.items()))
        groups.setdefault(key, []).append(run)
    return [sorted(group, key=lambda run: (run.seed is None, run.seed or 0)) for group in groups.values()]
