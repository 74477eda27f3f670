"""An optimizer step that is recorded, then replayed: on a GPU, small models wait for Python, not for the GPU.

The first steps of a run are taken as usual. Then the gradient and the update are recorded as two CUDA graphs, because a loss
may be looked at in between. What cannot be recorded is computed as usual, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from core import process
from core.config import Train
from core.errors import UserError, first_line
from core.models.recorded import BY_RULE, REHEARSALS, Recorder, fill, record, rehearsing
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

    Nothing is while BY_RULE is off. Code that is not ours may decide anew at each step, which a replay would not notice.
    """
    is_ours = config.model.kind == "gpt" and config.objective.kind == "tokens" and not own_code
    is_long = config.runtime.max_minutes is not None or config.schedule.max_iters >= LONG_STEPS
    alone = process.launch().world == 1 and not config.runtime.exact_across
    return BY_RULE and device.type == "cuda" and is_ours and is_long and alone and operations(config) <= SMALL_STEP


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
    """The memory that replays read and write, and what is recorded. taken: steps that have updated the weights before.

    gradient, update: start a replay; None while there is none. figures: the loss and the gradient's norm.
    """

    batch: tuple[torch.Tensor, ...]
    total: torch.Tensor
    figures: torch.Tensor
    numbers: torch.Tensor | None = None
    gradient: Callable[[], Any] | None = None
    update: Callable[[], Any] | None = None
    taken: int = 0
    refused: bool = False

    def fits(self, batch: tuple[Array, ...]) -> bool:
        """Whether a batch has the shape of the memory."""
        return [array.shape for array in batch] == [tuple(each.shape) for each in self.batch]


@dataclass(frozen=True)
class GraphedStep(Step):
    """A step that is recorded after `REHEARSALS` steps. Its batches have one shape. recorder: as `record`.

    What is not recorded is computed with the same operations from the same memory, so that a resume has the bits of an unbroken run.
    """

    recorder: Recorder = record

    def eager(self) -> Step:
        """The same step, neither compiled nor recorded."""
        machine = replace(self.machine, compile=False, cuda_graphs=False)
        return Step(self.model, self.optimizer, machine, self.grad_clip, self.objective)

    def share_state(self) -> None:
        """Forget what was recorded: the optimizer's state may be other tensors now."""
        vars(self).pop("held", None)
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def recorded(self) -> Recorded | None:
        """What there is from earlier steps."""
        return vars(self).get("held")

    def gradient(self, inputs: Array, targets: Array, *more: Any) -> torch.Tensor:
        """As Step's."""
        batch, held = (inputs, targets, *more), self.recorded
        if held is None or not held.fits(batch):
            held = self.begin(batch, held)
        for place, array in zip(held.batch, batch, strict=True):
            fill(place, torch.from_numpy(array))
        fill(held.total, torch.tensor(float(max(targets_in(batch), 1))))
        if held.gradient is None and held.taken >= REHEARSALS and not held.refused:
            self.trying(held, self.record_gradient)
        if held.gradient is None:
            self.optimizer.zero_grad(set_to_none=True)
            with rehearsing(self.machine.device):
                held.figures = self.computed(held)
        else:
            held.gradient()
        return held.figures.clone()

    def update(self, targets: Array) -> bool:
        """As Step's, but the gradient keeps its memory."""
        held, taught = self.recorded, bool((targets >= 0).any())
        if not taught or held is None:
            return taught
        held.taken += 1
        if not isinstance(self.optimizer, (Muon, *FUSED)):
            self.optimizer.step()
            return taught
        numbers = torch.tensor(numbers_of(self.optimizer))
        if held.numbers is None:
            held.numbers = numbers.to(self.machine.device)
        fill(held.numbers, numbers)
        if held.gradient is not None and held.update is None and not held.refused:
            self.trying(held, self.record_update)
        if held.update is None:
            apply(self.optimizer, held.numbers.unbind())
        else:
            held.update()
        return taught

    def begin(self, batch: tuple[Any, ...], held: Recorded | None) -> Recorded:
        """Memory for batches of this shape. Batches that change it are not recorded."""
        device = self.machine.device
        new = Recorded(
            tuple(torch.from_numpy(array).to(device) for array in batch), torch.ones((), device=device), torch.zeros(2)
        )
        if held is not None and not held.refused:
            self.refuse(new, "the shape of its batches changes")
        new.refused = held is not None
        vars(self)["held"] = new
        return new

    def computed(self, held: Recorded) -> torch.Tensor:
        """The gradient of what is in memory. Returns the figures."""
        loss = add_gradients(self.loss, zip(*held.batch, strict=True), held.total, self.machine)
        return torch.stack((loss, clip_gradient(self.model, self.grad_clip)))

    def record_gradient(self, held: Recorded) -> None:
        self.optimizer.zero_grad(set_to_none=True)  # a replay allocates none

        def gradient() -> torch.Tensor:
            return self.computed(held)

        held.gradient, held.figures = self.recorder(gradient)

    def record_update(self, held: Recorded) -> None:
        assert held.numbers is not None
        numbers = held.numbers.unbind()
        held.update, _ = self.recorder(lambda: apply(self.optimizer, numbers, recording=True))

    def trying(self, held: Recorded, recording: Callable[[Recorded], None]) -> None:
        """Record, or say why that does not work."""
        try:
            recording(held)
        except RuntimeError as error:
            if memory.used_up(error):
                raise
            self.refuse(held, first_line(error))

    def refuse(self, held: Recorded, why: str) -> None:
        """Go on without recordings: gradient and update share memory, so both or none are replayed."""
        held.refused, held.gradient, held.update = True, None, None
        warnings.warn(
            f"train.runtime.cuda_graphs: the step cannot be recorded ({why}), so its operations are started one by one",
            stacklevel=2,
        )


def numbers_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """What changes in an optimizer from step to step, apart from tensors. Counts the step."""
    return optimizer.numbers() if isinstance(optimizer, Muon) else [group["lr"] for group in optimizer.param_groups]


def apply(optimizer: torch.optim.Optimizer, numbers: Sequence[torch.Tensor], *, recording: bool = False) -> None:
    """Update the parameters with these numbers, each a tensor () on the device."""
    if isinstance(optimizer, Muon):
        optimizer.apply(numbers)
        return
    former = [dict(group) for group in optimizer.param_groups]
    try:
        for group, rate in zip(optimizer.param_groups, numbers, strict=True):
            group["lr"] = rate
            if recording and "capturable" in group:  # otherwise torch refuses, or warns
                group["capturable"] = True
        optimizer.step()
    finally:
        for group, before in zip(optimizer.param_groups, former, strict=True):
            group.update(before)
