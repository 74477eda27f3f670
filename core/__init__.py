"""Terrarium: a lab for small language models.

    from core import open_experiment

    run = open_experiment("insert_spaces").train()

Importing core is cheap: what is heavy is imported when it is used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import Interrupted, RunFailed, UserError
from core.listener import Listener

if TYPE_CHECKING:
    from core.chat.conversation import Conversation, Message
    from core.data.dataset import Dataset
    from core.data.documents import Example
    from core.lab.api import OpenExperiment, TrainedRun, open_experiment, train_model
    from core.lab.comparing import compare_experiments
    from core.lab.model import LoadedModel
    from core.plugins import hookimpl
    from core.sweeps.api import train_models
    from core.tracking.tracker import Tracker

LAZY = {
    "Conversation": "core.chat.conversation",
    "Example": "core.data.documents",
    "Message": "core.chat.conversation",
    "Dataset": "core.data.dataset",
    "LoadedModel": "core.lab.model",
    "OpenExperiment": "core.lab.api",
    "TrainedRun": "core.lab.api",
    "open_experiment": "core.lab.api",
    "train_model": "core.lab.api",
    "train_models": "core.sweeps.api",
    "compare_experiments": "core.lab.comparing",
    "Tracker": "core.tracking.tracker",
    "hookimpl": "core.plugins",
}

__all__ = [
    "Conversation", "Dataset", "Example", "Interrupted", "Listener", "LoadedModel", "Message", "OpenExperiment",
    "RunFailed", "Tracker", "TrainedRun", "UserError", "compare_experiments", "hookimpl", "open_experiment", "train_model",
    "train_models",
]  # fmt: skip
if not Path(__file__).with_name("sweeps").is_dir():  # a capability may be taken out
    __all__.remove("train_models")


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(importlib.import_module(LAZY[name]), name)
    raise AttributeError(f"module 'core' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
