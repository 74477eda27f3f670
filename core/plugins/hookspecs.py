"""The hooks that a plugin or an experiment's prepare.py can implement."""

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
    """Return folders that are experiments or contain experiments."""


@hookspec
def register_encoders(register: Register) -> None:
    """Call `register(name, encoder)` with a class like `core.encoders.base.Encoder`. `prepare.encoder = name` selects it."""


@hookspec
def register_models(register: Register) -> None:
    """Call `register(name, build)`: `build(config, vocab_size)` gets the section [train.model] and returns a
    torch.nn.Module that maps token ids (B, T) to logits (B, T, V). `train.model.kind = name` selects it. Keyword-only
    parameters of `build` are keys of [train.model.params]. A parameter `folder` gets the experiment's folder, where relative paths
    start. A method `cut_at_head(ids)` of the module saves memory with large vocabularies, see `core.models.loss.CutAtHead`."""


@hookspec
def register_optimizers(register: Register) -> None:
    """Call `register(name, build)`: `build(model, config)` gets the section [train.optim] and returns a
    torch.optim.Optimizer. `train.optim.name = name` selects it. Keyword-only parameters of `build` are keys of
    [train.optim.params]."""


@hookspec
def register_objectives(register: Register) -> None:
    """Call `register(name, loss)`: `loss(model, batch)` returns the mean loss over the targets of a micro-batch, a tensor
    without dimensions; `batch.inputs` and `batch.targets` are ids (B, T), -1 where there is no target.
    `train.objective.kind = name` selects it."""


@hookspec
def register_trackers(register: Register) -> None:
    """Call `register(name, open)`: `open(run)` returns an object with `log(step, metrics)` and `close()`. It may also have
    `end(status)`, which is called just before `close()` with how the run ended. `train.runtime.trackers` lists names."""


@hookspec
def register_suites(register: Register) -> None:
    """Call `register(name, read)`: `read(path)` gets the folder or file of `terrarium evaluate EXP --suite PATH` and returns a
    `core.evaluation.suites.task.Suite`, or None if that is not of its form."""


@hookspec
def register_launchers(register: Register) -> None:
    """Call `register(name, open)`: `open(opened, jobs, address)` returns a context manager of a
    `core.sweeps.launching.Launcher`, which starts the runs of `terrarium sweep EXP --on NAME`. opened: the experiment.
    jobs: runs at a time, or None for the launcher's own choice. address: of a cluster, or "". A method `coding` of the launcher lets
    `terrarium prepare EXP --on NAME` encode with it, see `core.data.encode.Coding`."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line: `@cli.command()`."""


@hookspec
def on_train_start(run: Any) -> None:
    """A run (`core.tracking.run.Run`) starts or resumes. Nothing is trained yet."""


@hookspec
def on_metrics(run: Any, step: int, metrics: dict[str, float]) -> None:
    """A row of metrics was written."""


@hookspec
def on_checkpoint(run: Any, step: int, path: Path) -> None:
    """A checkpoint is complete and on disk."""


@hookspec
def on_train_end(run: Any, summary: dict[str, Any]) -> None:
    """The run ended. `summary` is what summary.json contains."""
