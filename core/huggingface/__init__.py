"""Models that were pretrained elsewhere: load one, train adapters for it, write these in PEFT's format. Needs the extra hf.

The packages of the extra are imported where they are used, never here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_models(register: Register) -> None:
    """train.model.kind = "hf"."""
    from core.defaults import PRETRAINED_KIND
    from core.huggingface.pretrained import Pretrained

    register(PRETRAINED_KIND, Pretrained)


@hookimpl
def register_encoders(register: Register) -> None:
    """prepare.encoder = "hf"."""
    from core.huggingface.encoder import HfEncoder

    register(HfEncoder.kind, HfEncoder)


@hookimpl
def on_train_start(run: Any) -> None:
    """Write the adapters that a kill between a checkpoint and its adapter has left out."""
    if is_adapted(run):
        from core.huggingface.adapters import catch_up

        catch_up(run)


@hookimpl
def on_checkpoint(run: Any, step: int, path: Path) -> None:
    """Write the adapter of a checkpoint beside it, in PEFT's format."""
    if is_adapted(run):
        from core.huggingface.adapters import adapter_of_checkpoint

        adapter_of_checkpoint(run, path, path.name)


@hookimpl
def on_train_end(run: Any, summary: dict[str, Any]) -> None:
    """Of a run that has come to its end, the last adapter is the final one."""
    if is_adapted(run) and summary.get("status") == "completed":
        from core.huggingface.adapters import adapter_of_checkpoint

        adapter_of_checkpoint(run, run.checkpoints / "last", "final")


def is_adapted(run: Any) -> bool:
    """Whether a run trains adapters. lora is true unless it is given."""
    from core.defaults import PRETRAINED_KIND

    model = run.config.train.model
    return bool(model.kind == PRETRAINED_KIND and model.params.get("lora", True))
