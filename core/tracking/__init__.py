"""Run folders and metrics; registers the built-in trackers."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_trackers(register: Register) -> None:
    """tensorboard: event files in logs/tb of the run."""
    from core.tracking.tensorboard import TensorBoard

    register("tensorboard", TensorBoard)
