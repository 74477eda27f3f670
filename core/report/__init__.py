"""Plots, tables and pages of runs. Registers the trackers that draw plots and write the report when a run ends."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_trackers(register: Register) -> None:
    """For a user's own loop. plots: loss_curves.png and lr_schedule.png at its end; report: the page and the log entry."""
    from core.report.tracked import Plots, Report

    register("plots", Plots)
    register("report", Report)
