"""An optimizer step that is recorded, then replayed: on a GPU, small models wait for Python, not for the GPU.

The first steps of a run are taken as usual. Then the gradient and the update are recorded as two CUDA graphs, because a loss
may be looked at in between. What cannot be recorded is computed as usual, with a warning.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from core import process
from core.config import Train
from core.errors import UserError
from core.models.recorded import REHEARSALS, Recorder, fill, record, rehearsing
from core.training import memory
from core.training.compiling import operations
from core.training.machine import Machine
from core.training.muon import Muon
from core.training.objectives import Objective
from core.training.step import Array, Step, add_gradients, clip_gradient, targets_in

# A step of up to so many operations waits for Python: it needs about 10 ms for the 500 to 1,000 kernels of a step, in which an
# H100 does 4e12 operations at the 400 TFLOP/s of training.
SMALL_STEP = 4e12
LONG_STEPS = 100  # shorter runs are over before recording, which takes less than a second, has paid off
FUSED = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)  # of torch: they can read a rate on the device


def is_worth_recording(config: Train, device: torch.device, *, own_code: bool) -> bool:
    """Whether train.runtime.cuda_graphs = "auto" means to record: a small GPT on a GPU, without code of the experiment in the step.

    Code that is not ours may decide anew at each step, which a replay would not notice.
    """
    is_ours = config.model.kind == "gpt" and config.objective.kind == "tokens" and not own_code
    is_long = config.runtime.max_minutes is not None or config.schedule.max_iters >= LONG_STEPS
    alone = process.launch().world == 1 and not config.runtime.exact_across
    return device.type == "cuda" and is_ours and is_long and alone and operations(config) <= SMALL_STEP


def refuse_without_graphs(device: torch.device) -> None:
    """Raise UserError for a device where train.runtime.cuda_graphs = true cannot work."""
    if device.type != "cuda":
        raise UserError(
            f'there are no CUDA graphs on device "{device}"',
            place="train.runtime.cuda_graphs = true",
            remedy='Train on an NVIDIA or AMD GPU, or set train.runtime.cuda_graphs = "auto".',
        )


def step_of(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    machine: Machine,
    grad_clip: float | None,
    objective: Objective,
) -> Step:
    """The step as a machine takes it."""
    kind = GraphedStep if machine.cuda_graphs else Step
    return kind(model, optimizer, machine, grad_clip, objective)


@dataclass
class Recorded:
    """What was recorded, with the memory that it reads and writes. taken: steps that have updated the weights before."""

    taken: int = 0
    refused: bool = False
    batch: tuple[torch.Tensor, ...] = ()
    total: torch.Tensor | None = None
    figures: torch.Tensor | None = None
    gradient: Callable[[], Any] | None = None
    numbers: torch.Tensor | None = None
    update: Callable[[], Any] | None = None


@dataclass(frozen=True)
class GraphedStep(Step):
    """A step that is recorded after `REHEARSALS` steps. Its batches have one shape. recorder: as `record`."""

    recorder: Recorder = record

    @functools.cached_property
    def recorded(self) -> Recorded:
        return Recorded()

    def eager(self) -> Step:
        """The same step, neither compiled nor recorded."""
        machine = replace(self.machine, compile=False, cuda_graphs=False)
        return Step(self.model, self.optimizer, machine, self.grad_clip, self.objective)

    def share_state(self) -> None:
        """Forget what was recorded: the optimizer's state may be other tensors now."""
        vars(self).pop("recorded", None)
        self.optimizer.zero_grad(set_to_none=True)

    def gradient(self, inputs: Array, targets: Array, *more: Any) -> torch.Tensor:
        """As Step's."""
        batch, held = (inputs, targets, *more), self.recorded
        if held.gradient is not None and [array.shape for array in batch] != [tuple(each.shape) for each in held.batch]:
            self.refuse("the shape of its batches changes")
            self.optimizer.zero_grad(set_to_none=True)
        due = held.gradient is None and held.taken >= REHEARSALS and not held.refused
        if due and not self.trying(lambda: self.record_gradient(batch)):
            self.optimizer.zero_grad(set_to_none=True)
        if held.gradient is None or held.total is None or held.figures is None:
            with rehearsing(self.machine.device):
                return super().gradient(*batch)
        for place, array in zip(held.batch, batch, strict=True):
            fill(place, torch.from_numpy(array))
        fill(held.total, torch.tensor(float(max(targets_in(batch), 1))))
        held.gradient()
        return held.figures.clone()

    def update(self, targets: Array) -> bool:
        """As Step's, but a recorded gradient keeps its memory."""
        held = self.recorded
        if held.gradient is None:
            taught = super().update(targets)
            held.taken += taught
            return taught
        if not (targets >= 0).any():
            return False
        if not isinstance(self.optimizer, (Muon, *FUSED)):
            self.optimizer.step()
            return True
        numbers = numbers_of(self.optimizer)
        if held.update is None and not held.refused:
            self.trying(lambda: self.record_update(len(numbers)))
        if held.update is None or held.numbers is None:
            apply(self.optimizer, numbers)
            self.optimizer.zero_grad(set_to_none=True)
        else:
            fill(held.numbers, torch.tensor(numbers))
            held.update()
        return True

    def record_gradient(self, batch: tuple[Any, ...]) -> None:
        held, device = self.recorded, self.machine.device
        held.batch = tuple(torch.from_numpy(array).to(device) for array in batch)
        held.total = total = torch.ones((), device=device)

        def gradient() -> torch.Tensor:
            loss = add_gradients(self.loss, zip(*held.batch, strict=True), total, self.machine)
            return torch.stack((loss, clip_gradient(self.model, self.grad_clip)))

        held.gradient, held.figures = self.recorder(gradient)

    def record_update(self, count: int) -> None:
        held = self.recorded
        held.numbers = torch.zeros(count, device=self.machine.device)
        numbers = held.numbers.unbind()
        held.update, _ = self.recorder(lambda: apply(self.optimizer, numbers))

    def trying(self, recording: Callable[[], None]) -> bool:
        """Record, or say why that does not work. Returns whether it does."""
        try:
            recording()
        except RuntimeError as error:
            if memory.used_up(error):
                raise
            self.refuse((str(error).strip().splitlines() or [type(error).__name__])[0][:200])
            return False
        return True

    def refuse(self, why: str) -> None:
        """Go on without recordings: gradient and update share memory, so both or none are replayed."""
        held = self.recorded
        held.refused, held.gradient, held.update = True, None, None
        warnings.warn(
            f"train.runtime.cuda_graphs: the step cannot be recorded ({why}), so its operations are started one by one",
            stacklevel=2,
        )


def numbers_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """What changes in an optimizer from step to step, apart from tensors. Counts the step."""
    return optimizer.numbers() if isinstance(optimizer, Muon) else [group["lr"] for group in optimizer.param_groups]


def apply(optimizer: torch.optim.Optimizer, numbers: Sequence[float] | Sequence[torch.Tensor]) -> None:
    """Update the parameters with these numbers, which may be on the device."""
    if isinstance(optimizer, Muon):
        optimizer.apply(numbers)
        return
    former = [dict(group) for group in optimizer.param_groups]
    on_device = isinstance(numbers[0], torch.Tensor)
    try:
        for group, rate in zip(optimizer.param_groups, numbers, strict=True):
            group.update({"lr": rate} | ({"capturable": True} if on_device and "capturable" in group else {}))
        optimizer.step()
    finally:
        for group, before in zip(optimizer.param_groups, former, strict=True):
            group.update(before)
