"""Run folders and metrics; registers the built-in trackers. `Tracker` writes the run folder of a user's own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.plugins import hookimpl
from core.plugins.hookspecs import Register

if TYPE_CHECKING:
    from core.tracking.tracker import Tracker

__all__ = ["Tracker"]


def __getattr__(name: str) -> Any:
    if name == "Tracker":  # most commands load the plugins of this layer, and track no loop of the user's
        from core.tracking.tracker import Tracker

        return Tracker
    raise AttributeError(f"module 'core.tracking' has no attribute '{name}'")


@hookimpl
def register_trackers(register: Register) -> None:
    """tensorboard: event files in logs/tb of the run. wandb: logs/wandb of the run. mlflow: a SQLite file beside the runs."""
    from core.tracking.mlflow import MLflow
    from core.tracking.tensorboard import TensorBoard
    from core.tracking.wandb import WandB

    register("tensorboard", TensorBoard)
    register("wandb", WandB)
    register("mlflow", MLflow)
