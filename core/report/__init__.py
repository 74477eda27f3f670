"""Pictures, tables and pages of runs; registers the tracker that draws the pictures of a run when it ends."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_trackers(register: Register) -> None:
    """plots: loss_curves.png and lr_schedule.png, drawn from metrics.csv when the run ends."""
    from core.report.plots import Plots

    register("plots", Plots)
