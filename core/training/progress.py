"""The progress of a run: everything that a resume needs besides weights and optimizer."""

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
from core.training import checkpoints, ladder
from core.training.schedules import Plateau


@dataclass
class Progress:
    """Counters of a run, saved in its checkpoints."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # input tokens seen
    seconds: float = 0.0  # spent in steps
    wall_seconds: float = 0.0  # in total
    best_val_loss: float | None = None  # of checkpoint `best`
    best_step: int | None = None  # of checkpoint `best`
    best_evaluation: dict[str, float] = field(default_factory=dict)  # metrics of checkpoint `best`
    train_loss: float | None = None
    evaluation: dict[str, float] = field(default_factory=dict)  # metrics of the latest evaluation
    evaluated_step: int | None = None  # of the latest evaluation
    evaluation_seconds: float = 0.0  # of the latest evaluation, with hooks, without saving `best`
    saving_seconds: float = 0.0  # of the latest checkpoint
    loss_sum: float = 0.0  # of the steps since the last row of metrics
    loss_count: int = 0
    sums: dict[str, tuple[float, int]] = field(
        default_factory=dict
    )  # other figures of these steps: their sum and number
    skipped: list[int] = field(default_factory=list)  # numbers of the batches that are skipped, ascending
    reached: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # see `note_reached`
    silent: int = 0  # steps in a row whose batch had no target, so that they changed nothing
    stopped_by: str = ""  # what ended the run early: the condition of train.runtime.stop_when, or a collapse
    plateau: Plateau = field(default_factory=Plateau)  # of train.schedule.decay = "plateau"

    @property
    def batch(self) -> int:
        """The number of the next step's batch: the step's number, moved past the skipped batches."""
        number = self.step
        for left_out in self.skipped:
            number += number >= left_out
        return number

    def count(self, loss: float) -> None:
        """Add one step's loss to the mean of the next row of metrics."""
        self.loss_sum += loss
        self.loss_count += 1

    def take_mean_loss(self) -> float:
        """Return the mean loss of the steps since the last call, and start the next mean."""
        self.train_loss = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        return self.train_loss

    def note(self, figures: dict[str, float]) -> None:
        """Add a batch's figures to their means in the next row of metrics."""
        for name, value in figures.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def take_means(self) -> dict[str, float]:
        """Return the means of the figures since the last call, and start the next means."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


THRESHOLDS = (0.5, 0.9, 0.99, 1.0)  # of an accuracy


def note_reached(progress: Progress, row: dict[str, float]) -> None:
    """Note when each side's accuracy first passed each of THRESHOLDS: side -> threshold -> step and seconds."""
    for side in ("train", "val"):
        for threshold in THRESHOLDS:
            reached = progress.reached.setdefault(side, {}) if f"{side}_accuracy" in row else {}
            if row.get(f"{side}_accuracy", -1.0) >= threshold and f"{threshold:g}" not in reached:
                reached[f"{threshold:g}"] = {"step": progress.step, "seconds": round(progress.seconds, 3)}


def delay_of(reached: dict[str, dict[str, dict[str, float]]]) -> int | None:
    """Optimizer steps from memorising to generalising: from 0.99 of the training prompts right to 0.99 of the validation
    prompts. Negative where validation came first; None where one of them was not reached."""
    train, val = (reached.get(side, {}).get("0.99") for side in ("train", "val"))
    return int(val["step"] - train["step"]) if train and val else None


def score(metrics: dict[str, float]) -> list[float]:
    """Rank a state, larger is better: by a reward of its own, by exact match, as far as they are known, then by lower loss.

    The loss alone would choose wrongly if prompts are learnt too: they cannot be predicted, so the loss may rise while
    answers improve.
    """
    return [metrics.get("val_reward", 0.0), metrics.get("val_accuracy", 0.0), -metrics["val_loss"]]


def copy(
    run: Run,
    name: str,
    progress: Progress,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    write: checkpoints.Write | None = None,
) -> Callable[[], Path]:
    """Copy everything for a checkpoint and return a function that writes it. Training may go on in the meantime.

    identity: of the dataset, kept in the checkpoint. write: how tensors are written, if not by this process alone. They are not copied
    then, so call the function at once.
    """
    tensors, plain = checkpoints.flatten(optimizer)
    state = origin_of_weights(run, progress.step, model, identity) | {
        "progress": asdict(progress),
        "rng": random_state(),
        "optimizer": deepcopy(plain),
    }
    weights = checkpoints.weights(model)
    if write is None:
        weights, tensors = copied(weights), copied(tensors)
    return lambda: checkpoints.save(run.checkpoints, name, weights, tensors, state, write)


def copy_weights(run: Run, step: int, model: torch.nn.Module, identity: dict[str, Any]) -> Callable[[], Path]:
    """As `copy`, for the weights of a kept step alone. Nothing in it depends on a clock, so a step has the same bytes always."""
    name, state = ladder.kept_name(step), origin_of_weights(run, step, model, identity)
    weights = copied(checkpoints.weights(model))
    return lambda: checkpoints.save(run.checkpoints, name, weights, None, state)


def origin_of_weights(run: Run, step: int, model: torch.nn.Module, identity: dict[str, Any]) -> dict[str, Any]:
    """What says where weights are from: the step, the config, the dataset and the base that they belong to."""
    base = checkpoints.base_of(model)
    state = {"step": step, "config": hidden(run.config.model_dump()), **identity}
    return state if base is None else state | {"base": hidden(base)}


def copied(tensors: checkpoints.Tensors) -> checkpoints.Tensors:
    """Copies in main memory, which training does not change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def restore(run: Run, model: torch.nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]) -> Progress:
    """Load the newest whole checkpoint into model and optimizer. Returns step 0 if the run ended before its first one.

    Damaged checkpoints are renamed, with a warning. Raises UserError if the checkpoint was trained on other data than
    `identity`.
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
    """Put a checkpoint into model, optimizer and random generators.

    Raises UserError for other data or settings, and FOREIGN for content of another version.
    """
    state = checkpoint.state
    progress = TypeAdapter(Progress).validate_json(json.dumps(asdict(Progress(**state["progress"]))), strict=True)
    if progress.step < 0:
        raise ValueError("step is below 0")
    unused = (
        "dataset_fingerprint" if "data_hash" in state else "data_hash"
    )  # checkpoints of earlier versions have no hash
    for key, value in identity.items():
        if key != unused and state[key] != value:
            raise UserError(
                f"the dataset has another {key.replace('_', ' ')} now than when the checkpoint was trained",
                place=str(checkpoint.folder),
                remedy="Train with `fresh=True`, or under another name: `run=NAME`.",
            )
    settings = changed(flat(completed(state["config"])), flat(run.config.model_dump()))
    if foreign := {key: values for key, values in settings.items() if not resumable(key)}:
        raise other_settings(checkpoint.folder, foreign)
    checkpoints.refuse_other_base(model, state, str(checkpoint.folder))
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
    """The error for a checkpoint that does not match the run's config.toml, even if its weights fit."""
    return UserError(
        f"the checkpoint was trained with other settings: {listed(differences)}",
        place=str(folder),
        remedy="Change them back in the run's config.toml, leave them out of the command, or train with `fresh=True`.",
    )


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values have the same structure: keys, lengths and types. Numbers and texts may differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    kinds = [float if type(value) is int else type(value) for value in (one, other)]
    return kinds[0] is kinds[1]


def random_state() -> dict[str, str]:
    """States of torch's random generators, which dropout uses, in base64."""
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
