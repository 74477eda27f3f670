"""How far a run is: everything that a resume needs besides weights and optimizer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from core.errors import UserError
from core.private import hidden
from core.roles import flat
from core.toml import completed
from core.tracking.begin import changed, listed, resumable
from core.tracking.run import Run
from core.training import checkpoints


@dataclass
class Progress:
    """Counters of a run. step: optimizer steps done; tokens: input tokens seen; seconds: spent in steps; wall_seconds: in all."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    best_val_loss: float | None = None  # the lowest of the run
    best_step: int | None = None  # of checkpoint `best`
    best_evaluation: dict[str, float] = field(default_factory=dict)  # metrics of checkpoint `best`
    train_loss: float | None = None
    evaluation: dict[str, float] = field(default_factory=dict)  # the latest one's metrics
    evaluated_step: int | None = None  # of the latest evaluation
    evaluation_seconds: float = 0.0  # what the latest one took, hooks included, without checkpoint `best`
    saving_seconds: float = 0.0  # what the latest checkpoint took
    loss_sum: float = 0.0  # of the steps since the last row of metrics
    loss_count: int = 0
    skipped: list[int] = field(default_factory=list)  # numbers of batches that are left out, ascending
    reached: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # see `note_reached`
    stopped_by: str = ""  # the condition of train.runtime.stop_when that ended the run

    @property
    def batch(self) -> int:
        """The number of the next step's batch: that of the step, past those that are left out."""
        number = self.step
        for left_out in self.skipped:
            number += number >= left_out
        return number

    def count(self, loss: float) -> None:
        """Take one step's loss into the mean of the next row of metrics."""
        self.loss_sum += loss
        self.loss_count += 1

    def take_mean_loss(self) -> float:
        """Mean loss of the steps since the last call; starts the next mean."""
        self.train_loss = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        return self.train_loss


THRESHOLDS = (0.5, 0.9, 0.99, 1.0)  # of an accuracy


def note_reached(progress: Progress, row: dict[str, float]) -> None:
    """Note the first step and second at which each side's accuracy passed each of THRESHOLDS: side -> threshold -> both."""
    for side in ("train", "val"):
        for threshold in THRESHOLDS:
            reached = progress.reached.setdefault(side, {}) if f"{side}_accuracy" in row else {}
            if row.get(f"{side}_accuracy", -1.0) >= threshold and f"{threshold:g}" not in reached:
                reached[f"{threshold:g}"] = {"step": progress.step, "seconds": round(progress.seconds, 3)}


def score(metrics: dict[str, float]) -> list[float]:
    """What makes one state better than another, larger first: exact match where it is known, then a lower loss.

    A loss alone would choose wrongly where prompts are learnt too: they cannot be foreseen, so it rises while answers improve.
    """
    return [metrics.get("val_accuracy", 0.0), -metrics["val_loss"]]


def copy(
    run: Run,
    name: str,
    progress: Progress,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> Callable[[], Path]:
    """Copy all that a checkpoint holds. Returns what writes it: the run may go on before that is called.

    identity: what the dataset is, kept in the checkpoint.
    """
    tensors, plain = checkpoints.flatten(optimizer)
    state = {
        "step": progress.step,
        "progress": asdict(progress),
        "rng": random_state(),
        "optimizer": deepcopy(plain),
        "config": hidden(run.config.model_dump()),
        **identity,
    }
    weights, tensors = copied(checkpoints.weights(model)), copied(tensors)
    return lambda: checkpoints.save(run.checkpoints, name, weights, tensors, state)


def copied(tensors: checkpoints.Tensors) -> checkpoints.Tensors:
    """The tensors in main memory, apart from those that training changes."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def restore(run: Run, model: torch.nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]) -> Progress:
    """Load the newest whole checkpoint into model and optimizer; a Progress at step 0 if the run ended before its first.

    A damaged one is renamed, and warned of. Raises UserError where the checkpoint was trained on other data than `identity` names.
    """
    if not checkpoints.candidates(run.checkpoints, "last"):
        return Progress()
    checkpoint = checkpoints.load(run.checkpoints, "last")
    with checkpoints.understanding(checkpoint.folder):
        return take(run, checkpoint, model, optimizer, identity)


def take(
    run: Run,
    checkpoint: checkpoints.Checkpoint,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> Progress:
    """Put a checkpoint into model, optimizer and generators. Raises UserError for other data, and FOREIGN for other content."""
    state = checkpoint.state
    progress = TypeAdapter(Progress).validate_json(json.dumps(asdict(Progress(**state["progress"]))), strict=True)
    if progress.step < 0:
        raise ValueError("step is below 0")
    for key, value in identity.items():
        if state[key] != value:
            raise UserError(
                f"the checkpoint was trained with another {key.replace('_', ' ')} than the dataset has now",
                place=str(checkpoint.folder),
                remedy="Train with `fresh=True`, or under another name: `run=NAME`.",
            )
    settings = changed(flat(completed(state["config"])), flat(run.config.model_dump()))
    if foreign := {key: values for key, values in settings.items() if not resumable(key)}:
        raise other_settings(checkpoint.folder, foreign)
    checkpoints.put_weights(model, checkpoint.model, str(checkpoint.folder))
    if not alike(state["optimizer"]["groups"], optimizer.state_dict()["param_groups"]):
        raise ValueError("its optimizer has other groups of parameters")
    checkpoints.unflatten(optimizer, checkpoint.optimizer, state["optimizer"])
    set_random_state(state["rng"])
    checkpoints.set_aside_damaged(run.checkpoints, "last", checkpoint.folder)
    for name in ("last", "best"):
        checkpoints.tidy(run.checkpoints, name)
    return progress


def other_settings(folder: Path, differences: dict[str, tuple[Any, Any]]) -> UserError:
    """The checkpoint is of another model than the run's config.toml describes, though its weights may fit."""
    return UserError(
        f"the checkpoint was trained with other settings: {listed(differences)}",
        place=str(folder),
        remedy="Set them back in config.toml of the run, leave them out of the command, or train with `fresh=True`.",
    )


def alike(one: Any, other: Any) -> bool:
    """Whether JSON values have the same keys, lengths and kinds, whatever the numbers and texts are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    kinds = [float if type(value) is int else type(value) for value in (one, other)]
    return kinds[0] is kinds[1]


def random_state() -> dict[str, str]:
    """States of torch's generators (what dropout draws from), base64."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def set_random_state(states: dict[str, str]) -> None:
    """Undo `random_state`."""
    tensors = {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=np.uint8).copy())
        for name, text in states.items()
    }
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
