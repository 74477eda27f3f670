"""One optimizer step, used by the training loop, the benchmarks and the timing of a run's settings.

Legend: G micro-batches of a step, B rows, T tokens.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.training import checkpoints
from core.training.compiling import compiled
from core.training.machine import Machine
from core.training.objectives import Objective

Array = npt.NDArray[np.int64]
Loss = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Step:
    """Takes optimizer steps. grad_clip: 0 or None means off."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    machine: Machine
    grad_clip: float | None
    objective: Objective

    @functools.cached_property
    def loss(self) -> Loss:
        """Inputs and targets (B, T), and what else a batch has -> sum of losses. If the machine compiles, it is compiled the
        first time it is used."""
        model, objective = self.model, self.objective

        def loss(*batch: torch.Tensor) -> torch.Tensor:
            return objective(model, *batch)

        return compiled(loss, self.machine)

    def eager(self) -> Step:
        """The same step, not compiled."""
        return replace(self, machine=replace(self.machine, compile=False))

    @property
    def compiles(self) -> bool:
        """Whether the first step takes longer, because it is compiled."""
        return self.machine.compile

    @property
    def where(self) -> str:
        """What computes, for messages."""
        return str(self.machine.device)

    @property
    def reads_freely(self) -> bool:
        """Whether reading a figure waits for nothing, as on a CPU."""
        return self.machine.device.type == "cpu"

    def read(self, figures: list[Any]) -> list[list[float]]:
        """The figures that `gradient` has returned. Reading them waits for the device."""
        found: list[list[float]] = torch.stack(figures).tolist()
        return found

    def share_state(self) -> None:
        """Give the other processes of a team this one's state. One process alone has nobody to give it to."""

    def writing(self) -> checkpoints.Write | None:
        """How a checkpoint's tensors are written, if not by this process alone."""
        return None

    def bring_back(self) -> None:
        """Let model and optimizer have the state of the run, to write it. Here they always have it."""

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """A context in which this process has all weights, to evaluate or to write. Alone it always has them."""
        return contextlib.nullcontext()

    def norm(self) -> float:
        """The Euclidean norm of everything that is trained."""
        with torch.no_grad():
            return float(torch.nn.utils.get_total_norm(list(trained(self.model))))

    def gradient(self, inputs: Array, targets: Array, *more: Any) -> Any:
        """Compute the gradient of the mean loss over all targets of (G, B, T) inputs, and clip it.

        more: other arrays of the batch, (G, ...), for the objective. Returns (2,), on the device, for `read`: the mean loss in nats per target, and the gradient's norm before clipping.
        """
        loss = accumulate_gradient(self.loss, (inputs, targets, *more), self.machine)
        return torch.stack((loss, clip_gradient(self.model, self.grad_clip)))

    def update(self, targets: Array) -> bool:
        """Update the weights and clear the gradient. Returns whether anything was updated: not, if a batch had no target.

        Its gradient is zero, but momentum and weight decay would still move the weights.
        """
        taught = bool((targets >= 0).any())
        if taught:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return taught

    def __call__(self, inputs: Array, targets: Array, *more: Any) -> None:
        """Take a whole step, for timing. On a CPU it also reads the loss, as the training loop does there."""
        figures = self.gradient(inputs, targets, *more)
        if self.reads_freely:
            self.read([figures])
        self.update(targets)


def accumulate_gradient(loss: Loss, batch: tuple[Any, ...], machine: Machine) -> torch.Tensor:
    """Add up the gradient of the mean loss over all targets of a batch of arrays (G, ...), inputs and targets first.

    Returns the mean, nats, on the device.
    """
    parts = [to_device(array, machine) for array in batch]
    return add_gradients(loss, zip(*parts, strict=True), targets_in(batch), machine)


def targets_in(batch: tuple[Any, ...]) -> int:
    """How many targets a batch has."""
    return int((batch[1] >= 0).sum())


def add_gradients(
    loss: Loss, micro_batches: Iterable[tuple[torch.Tensor, ...]], total: int | torch.Tensor, machine: Machine
) -> torch.Tensor:
    """Add the gradient of the loss of each micro-batch, divided by `total` targets: at least 1, if it is on the device.

    Returns the sum of these parts.
    """
    mean = torch.zeros((), device=machine.device)
    for micro in micro_batches:
        with machine.autocast():
            nats = loss(*micro)
        part = nats / (total if isinstance(total, torch.Tensor) else max(total, 1))
        part.backward()  # type: ignore[no-untyped-call]
        mean += part.detach()
    return mean


def to_device(array: npt.NDArray[Any], machine: Machine) -> torch.Tensor:
    """Copy an array to the device. For a GPU, pinned memory lets the copy overlap with computing."""
    tensor = torch.from_numpy(array)
    if machine.device.type == "cuda":
        return tensor.pin_memory().to(machine.device, non_blocking=True)
    return tensor.to(machine.device)


def trained(model: torch.nn.Module) -> Iterable[torch.Tensor]:
    """The parameters that are not frozen."""
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def clip_gradient(model: torch.nn.Module, limit: float | None) -> torch.Tensor:
    """Clip the gradient to a norm; 0 or None means off. Returns the norm before clipping, on the device."""
    if limit:
        return torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
