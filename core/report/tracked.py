"""Trackers for a user's own loop that draw the plots and write the report when the run ends.

`train` and `loop` do this themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.plugins.discovery import is_experiment

if TYPE_CHECKING:
    from core.tracking.run import Run


class AtTheEnd:
    """A tracker that does nothing before the run ends."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Nothing: metrics.csv has the row."""


class Plots(AtTheEnd):
    """Draws the plots from metrics.csv."""

    def close(self) -> None:
        from core.report.plots import write_plots

        write_plots(self.run.folder)


class Report(AtTheEnd):
    """Writes report.html and report.md at the end, and the entry in EXPERIMENT_LOG.md if the run belongs to an experiment."""

    def close(self) -> None:
        """summary.json is written by now. Raises UserError where a file of the experiment's runs is damaged."""
        from core.report.log import write_log_entry
        from core.report.run_report import write_report

        write_report(self.run.folder)
        if is_experiment(self.run.experiment.folder):
            write_log_entry(self.run)
