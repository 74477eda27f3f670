"""Run folders, metrics and the built-in trackers. `Tracker` writes a run folder from your own training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.plugins import hookimpl
from core.plugins.hookspecs import Register

if TYPE_CHECKING:
    from core.tracking.tracker import Tracker

__all__ = ["Tracker"]


def __getattr__(name: str) -> Any:
    if name == "Tracker":  # imported late: most commands load this package but do not need it
        from core.tracking.tracker import Tracker

        return Tracker
    raise AttributeError(f"module 'core.tracking' has no attribute '{name}'")


@hookimpl
def register_trackers(register: Register) -> None:
    """tensorboard: event files in the run's logs/tb. wandb: the run's logs/wandb. mlflow: a SQLite file next to the runs."""
    from core.tracking.mlflow import MLflow
    from core.tracking.tensorboard import TensorBoard
    from core.tracking.wandb import WandB

    register("tensorboard", TensorBoard)
    register("wandb", WandB)
    register("mlflow", MLflow)
