"""Every hook that a plugin, or an experiment's prepare.py, may implement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("terrarium")
Register = Callable[[str, Any], None]


@hookspec
def experiment_folders() -> list[Path]:  # type: ignore[empty-body]
    """Return folders that are experiments, or that hold experiments."""


@hookspec
def register_encoders(register: Register) -> None:
    """Call `register(name, encoder)`: a class of the shape of `core.encoders.base.Encoder`; `prepare.encoder` names it."""


@hookspec
def register_models(register: Register) -> None:
    """Call `register(name, build)`: `build(config, vocab_size)` takes the section [train.model] and returns a
    torch.nn.Module that maps token ids (B, T) to logits (B, T, V); `train.model.kind` names it."""


@hookspec
def register_optimizers(register: Register) -> None:
    """Call `register(name, build)`: `build(model, config)` takes the section [train.optim] and returns a
    torch.optim.Optimizer; `train.optim.name` names it."""


@hookspec
def register_trackers(register: Register) -> None:
    """Call `register(name, open)`: `open(run)` returns an object with `log(step, metrics)` and `close()`, and `end(status)`
    if it is to be told, just before that, how the run ended; `train.runtime.trackers` lists names."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line: `@cli.command()`."""


@hookspec
def on_train_start(run: Any) -> None:
    """A run (`core.tracking.run.Run`) begins or goes on; nothing is trained yet."""


@hookspec
def on_metrics(run: Any, step: int, metrics: dict[str, float]) -> None:
    """A row of metrics was written."""


@hookspec
def on_checkpoint(run: Any, step: int, path: Path) -> None:
    """A checkpoint is whole and on disk."""


@hookspec
def on_train_end(run: Any, summary: dict[str, Any]) -> None:
    """The run ended, and summary.json says how."""
