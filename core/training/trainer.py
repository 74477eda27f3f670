"""The training loop: batches and a model go in; checkpoints, metrics and a Progress come out.

Legend: G micro-batches of an optimizer step, B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.config import Optim, Train
from core.errors import RunFailed
from core.models.loss import token_loss
from core.plugins.manager import Plugins
from core.tracking.metrics import MetricsFile
from core.tracking.run import Run
from core.training import progress as saving
from core.training.machine import Machine
from core.training.pace import Pace
from core.training.progress import Progress
from core.training.schedules import fraction
from core.training.signals import StopRequest

Array = npt.NDArray[np.int64]
Row = dict[str, float]


@dataclass
class Parts:
    """What the loop works with; whoever starts a run puts it together.

    batch(step) -> inputs and targets (G, B, T), -1 where there is no target; a pure function of the step.
    evaluate(model) -> metrics with at least val_loss. trackers: objects with log(step, row).
    identity: the dataset's fingerprint and encoder, kept in every checkpoint.
    tell(row, wall): shows progress, wall seconds of the run included.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    machine: Machine
    batch: Callable[[int], tuple[Array, Array]]
    evaluate: Callable[[torch.nn.Module], Row]
    trackers: list[Any]
    plugins: Plugins
    identity: dict[str, Any]
    tell: Callable[[Row, float], None]


def train(run: Run, parts: Parts, progress: Progress, metrics: MetricsFile, stop: StopRequest) -> None:
    """Train from `progress` on, which is kept current, until steps or minutes are used up or a stop request comes.

    The state is saved either way, and evaluated unless a request cut the run short.
    Raises RunFailed when the loss is not finite; the checkpoint on disk is then the last finite one.
    """
    config, model, optimizer = run.config.train, parts.model, parts.optimizer
    pace = Pace(config, progress)
    forward = torch.compile(model) if parts.machine.compile else model
    parts.plugins.manager.hook.on_train_start(run=run)
    unread: list[torch.Tensor] = []  # losses that a device may still be computing
    model.train()

    stopping = False
    while not (stopping or pace.over()):
        due = pace.due()
        set_learning_rate(optimizer, config, progress.step, pace.gone())
        inputs, targets = parts.batch(progress.step)
        unread.append(accumulate_gradient(forward, inputs, targets, parts.machine))
        if due.losses or parts.machine.device.type == "cpu":  # reading stalls a GPU, and costs a CPU nothing
            read_losses(unread, progress, run)
        row = clip_gradient(model, config.optim.grad_clip or 0.0, measure=due.row)
        if not math.isfinite(row.get("grad_norm", 0.0)):
            raise diverged(run, "norm of the gradient", row["grad_norm"], progress.step + 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += inputs.size
        progress.seconds += pace.lap()

        if due.row:
            row |= pace.figures() | {
                "train_loss": progress.take_mean_loss(),
                "learning_rate": optimizer.param_groups[0]["lr"],
                "param_norm": norm(model.parameters()),
            }
            if due.evaluation:
                row |= evaluate(run, parts, progress, pace)
            metrics.append(row)
            publish(run, parts, row, pace.wall_seconds())
            publishing = pace.lap()
            if due.evaluation:
                progress.evaluation_seconds += publishing
        stopping = bool(stop.number)  # read once: a request that comes after this waits for the next step's save
        if due.checkpoint or stopping or pace.over():
            metrics.sync()  # a resume keeps the rows up to its checkpoint, so these must not be lost before it
            save(run, parts, progress, pace, "last")


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Train, step: int, gone: float | None) -> None:
    """Scale every group's peak rate by the schedule. gone: share of a budget in time, None where steps are counted."""
    scale = fraction(step, config.schedule, config.optim.learning_rate or 0.0, gone)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * scale


def step_of(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    optim: Optim,
    machine: Machine,
    inputs: Array,
    targets: Array,
) -> None:
    """One optimizer step alone, as the loop takes it, to be timed."""
    loss = accumulate_gradient(model, inputs, targets, machine)
    if machine.device.type == "cpu":
        loss.item()
    clip_gradient(model, optim.grad_clip or 0.0, measure=False)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def accumulate_gradient(
    model: Callable[..., torch.Tensor], inputs: Array, targets: Array, machine: Machine
) -> torch.Tensor:
    """Gradients of the mean loss over all targets of (G, B, T) inputs. Returns that mean, nats per token, on the device."""
    total = int((targets >= 0).sum())
    x, y = to_device(inputs, machine), to_device(targets, machine)
    mean = torch.zeros((), device=machine.device)
    for micro in range(len(inputs)):
        with machine.autocast():
            nats, _ = token_loss(model(x[micro]), y[micro])
        part = nats / max(total, 1)
        part.backward()  # type: ignore[no-untyped-call]
        mean += part.detach()
    return mean


def to_device(array: Array, machine: Machine) -> torch.Tensor:
    """A tensor on the device; to a GPU through pinned memory, so that the copy overlaps with computing."""
    tensor = torch.from_numpy(array)
    if machine.device.type == "cuda":
        return tensor.pin_memory().to(machine.device, non_blocking=True)
    return tensor.to(machine.device)


def read_losses(unread: list[torch.Tensor], progress: Progress, run: Run) -> None:
    """Count the losses of the last steps. Raises RunFailed if one is not finite."""
    for loss in torch.stack(unread).tolist():
        if not math.isfinite(loss):
            raise diverged(run, "loss", loss, progress.step + 1)
        progress.count(loss)
    unread.clear()


def diverged(run: Run, what: str, value: float, step: int) -> RunFailed:
    """A figure is not finite: nothing can be learnt from here on."""
    return RunFailed(
        f"{run.title}: the {what} is {value} at step {step}. What was saved before is whole.\n"
        f"  Lower train.optim.learning_rate (now {run.config.train.optim.learning_rate:g}), "
        "raise train.schedule.warmup_iters, or set train.optim.grad_clip = 1.0; then train with --fresh."
    )


def clip_gradient(model: torch.nn.Module, limit: float, *, measure: bool) -> Row:
    """Clip to a norm, 0: do not. Returns grad_norm, before clipping, if it is to be measured."""
    if not (limit or measure):
        return {}
    total = torch.nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf)
    return {"grad_norm": float(total)} if measure else {}


def norm(tensors: Iterable[torch.Tensor]) -> float:
    """Euclidean norm of all tensors together."""
    with torch.no_grad():
        return float(torch.nn.utils.get_total_norm(list(tensors)))


def evaluate(run: Run, parts: Parts, progress: Progress, pace: Pace) -> Row:
    """Metrics of the validation side; the best state so far is kept as checkpoint `best`."""
    parts.model.eval()
    with torch.inference_mode():
        row = parts.evaluate(parts.model)
    parts.model.train()
    if not math.isfinite(row["val_loss"]):
        raise diverged(run, "validation loss", row["val_loss"], progress.step)
    progress.evaluation, progress.evaluated_step, progress.evaluation_seconds = row, progress.step, pace.lap()
    best = math.inf if progress.best_val_loss is None else progress.best_val_loss
    progress.best_val_loss = min(row["val_loss"], best)
    if not progress.best_evaluation or saving.score(row) > saving.score(progress.best_evaluation):
        progress.best_evaluation, progress.best_step = row, progress.step
        save(run, parts, progress, pace, "best")
    return row


def save(run: Run, parts: Parts, progress: Progress, pace: Pace, name: str) -> None:
    """Write checkpoint `name` and note what it took, hooks included."""
    pace.lap()
    path = saving.save(run, name, progress, parts.model, parts.optimizer, parts.identity)
    parts.plugins.manager.hook.on_checkpoint(run=run, step=progress.step, path=path)
    progress.saving_seconds = pace.lap()


def publish(run: Run, parts: Parts, row: Row, wall_seconds: float) -> None:
    """Hand a row of metrics to the trackers, to hooks and, with the time of the run so far, to the screen."""
    step = int(row["step"])
    for tracker in parts.trackers:
        tracker.log(step, row)
    parts.plugins.manager.hook.on_metrics(run=run, step=step, metrics=row)
    parts.tell(row, wall_seconds)
