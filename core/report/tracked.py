"""Write the report and the log entry when the trackers of a user's own loop are closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.plugins.discovery import is_experiment

if TYPE_CHECKING:
    from core.tracking.run import Run


class Report:
    """A tracker that writes the report at the end, for a user's own loop. `train` and `loop` write it themselves."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Nothing: metrics.csv has the row."""

    def close(self) -> None:
        """Write report.html and report.md, and the entry in EXPERIMENT_LOG.md if the run belongs to an experiment.

        summary.json is written by now. Raises UserError where a file of the experiment's runs is damaged.
        """
        from core.report.log import write_log_entry
        from core.report.run_report import write_report

        write_report(self.run.folder)
        if is_experiment(self.run.experiment.folder):
            write_log_entry(self.run)
