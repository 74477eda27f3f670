"""An optimizer step that a team of processes takes together: the batch of one process, cut into shares.

The main process draws the batch and sends it. Each process computes the gradient of its share, they are summed, and each
takes the same optimizer step, so all have the same weights without sending them.

Legend: W processes, G micro-batches of the whole step, B rows, P numbers in a gradient.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch

from core.process import STOPPING, StopRequest
from core.training import checkpoints
from core.training.messages import Values
from core.training.step import Array, Step, add_gradients, clip_gradient, targets_in, to_device, trained
from core.training.team import ALONE, Team

Tensors = tuple[torch.Tensor, ...]
ALIGNED = 16  # numbers: a tensor starts at a multiple of 64 bytes, as freshly allocated ones do
SEEDS = 2**62  # of the random numbers of a step


@dataclass(frozen=True)
class TeamStep(Step):
    """A step that is shared. exact: its result has the same bits for any number of processes, this one alone included.

    stop: notes a signal. One that any process gets stops the main one.
    """

    team: Team = ALONE
    exact: bool = False
    stop: StopRequest = field(default_factory=StopRequest)

    def share_state(self) -> None:
        """Send weights and optimizer to the other processes. Waits until they have them."""
        moments, plain = checkpoints.flatten(self.optimizer)
        named = {name: [list(each.shape), str(each.dtype)[6:], each.is_cuda] for name, each in moments.items()}
        self.team.broadcast({"do": "state", "optimizer": plain, "tensors": named})
        for tensor in (*checkpoints.weights(self.model).values(), *moments.values()):
            self.team.send(tensor.contiguous())
        self.team.barrier()

    def take_state(self, order: Values, place: str) -> None:
        """Receive what `share_state` sends. Raises UserError at `place` if the model here is another one."""
        own = {name: torch.empty_like(each) for name, each in checkpoints.weights(self.model).items()}
        moments = {
            name: torch.empty(shape, dtype=getattr(torch, dtype), device=self.machine.device if on_device else "cpu")
            for name, (shape, dtype, on_device) in order["tensors"].items()
        }
        for tensor in (*own.values(), *moments.values()):
            self.team.send(tensor)
        checkpoints.put_weights(self.model, own, place)
        checkpoints.unflatten(self.optimizer, moments, order["optimizer"])
        self.team.barrier()

    def gradient(self, inputs: Array, targets: Array, *more: Any) -> Any:
        """As Step's. The seed of the step's random numbers is drawn here, so it is part of the state of a run."""
        seed = int(torch.randint(SEEDS, ()))
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.team.broadcast({"do": "step", "seed": seed, "rates": rates}, (inputs, targets, *more))
        return self.shared_gradient((inputs, targets, *more), seed)

    def help(self, order: Values, batch: tuple[Any, ...]) -> None:
        """Take part in a step of the main process, which decides by the same figures whether the weights change."""
        for group, rate in zip(self.optimizer.param_groups, order["rates"], strict=True):
            group["lr"] = rate
        figures = self.shared_gradient(batch, order["seed"])
        # On a GPU, the main process does not wait for the figures either: if they are not finite, it sends an older state.
        if self.machine.device.type == "cpu" and not all(map(math.isfinite, figures.tolist())):
            self.optimizer.zero_grad(set_to_none=True)
            return
        self.update(batch[1])

    def shared_gradient(self, batch: tuple[Any, ...], seed: int) -> Any:
        """The gradient of the whole step, on every process, and the loss with the norm as `gradient` gives them."""
        devices = [self.machine.device] if self.machine.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            loss = self.in_order(batch, seed) if self.exact else self.at_once(batch, seed)
        return torch.stack((loss, clip_gradient(self.model, self.grad_clip)))

    def at_once(self, batch: tuple[Any, ...], seed: int) -> torch.Tensor:
        """Each process takes as many rows as the others, and their gradients are added up in whatever order is fastest.

        Random numbers, as of dropout, come from the seed and the number of the process.
        """
        torch.manual_seed(seed + self.team.rank)
        shares = [share for share in row_shares(batch, self.team) if targets_in(share)]
        loss = add_gradients(self.loss, self.on_device(shares), targets_in(batch), self.machine)
        found = self.taken(loss)
        for vector in found.vectors.values():
            self.team.sum(vector)
        return self.put(found)

    def in_order(self, batch: tuple[Any, ...], seed: int) -> torch.Tensor:
        """Each process takes whole micro-batches, and their gradients are added up one by one in the order of the batch.

        Random numbers come from the seed and the number of the micro-batch. In a round, each process computes one gradient,
        gets a piece of everybody's, and adds these pieces in their order.
        """
        team, count, total = self.team, len(batch[0]), targets_in(batch)
        sums: dict[torch.dtype, torch.Tensor] = {}
        has = [False] * len(self.trained)
        for first in range(0, count, team.world):
            own = first + team.rank
            micro = [tuple(array[own] for array in batch)] if own < count else []
            torch.manual_seed(seed + own)
            loss = add_gradients(self.loss, self.on_device(micro), total, self.machine)
            found = self.taken(loss, nothing=-0.0)  # x + -0.0 is x, whatever x is
            has = [before or now for before, now in zip(has, found.has, strict=True)]
            for dtype, vector in found.vectors.items():
                for piece in team.exchange(vector)[: count - first]:
                    sums[dtype] = sums[dtype] + piece if dtype in sums else piece
        return self.put(FlatGradient({dtype: team.gather(piece) for dtype, piece in sums.items()}, has))

    @functools.cached_property
    def trained(self) -> list[torch.Tensor]:
        """The parameters that are not frozen."""
        return list(trained(self.model))

    @functools.cached_property
    def layout(self) -> Layout:
        """The places of the gradients, and of the loss after them."""
        loss = torch.zeros((), device=self.machine.device)
        return laid_out([*self.trained, loss], self.team.world * ALIGNED)

    def on_device(self, micro_batches: Iterable[tuple[npt.NDArray[Any], ...]]) -> Iterator[Tensors]:
        for micro in micro_batches:
            yield tuple(to_device(array, self.machine) for array in micro)

    def taken(self, loss: torch.Tensor, nothing: float = 0.0) -> FlatGradient:
        """Take the gradient out of the model. nothing: stands where it has none."""
        gradients = [each.grad for each in self.trained]
        for each in self.trained:
            each.grad = None
        vectors = self.layout.flat([*gradients, loss], nothing, self.machine.device)
        return FlatGradient(vectors, [each is not None for each in gradients])

    def note_stop(self, has: list[bool]) -> list[float]:
        """Note a signal of another process. Returns how many processes say yes to each of `has`."""
        votes = torch.tensor([*has, *(self.stop.number == number for number in STOPPING)], dtype=torch.float32)
        self.team.sum(votes)
        *found, interrupted, terminated = votes.tolist()
        if not (self.stop.number or self.team.rank):
            self.stop.number = next((number for number, came in zip(STOPPING, (interrupted, terminated), strict=True) if came), 0)  # fmt: skip
        return found

    def put(self, found: FlatGradient) -> torch.Tensor:
        """Put a gradient into the model. Returns the loss."""
        has = self.note_stop(found.has)
        *gradients, loss = self.layout.apart(found.vectors)
        for parameter, gradient, known in zip(self.trained, gradients, has, strict=True):
            parameter.grad = gradient if known else None
        return loss


def team_step(step: Step, team: Team, *, exact: bool, stop: StopRequest) -> Step:
    """The step as a team takes it. A process alone takes it as it is, unless its result must not depend on being alone."""
    if team.world == 1 and not exact:
        return step
    return TeamStep(
        step.model, step.optimizer, step.machine, step.grad_clip, step.objective, team=team, exact=exact, stop=stop
    )


def row_shares(batch: tuple[Any, ...], team: Team) -> list[tuple[Any, ...]]:
    """The rows of arrays (G, B, ...) that a process takes, in micro-batches of at most B rows, as equal as can be."""
    count, most = batch[0].shape[0] * batch[0].shape[1], batch[0].shape[1]
    first, last = count * team.rank // team.world, count * (team.rank + 1) // team.world
    parts = -(-(last - first) // most)
    bounds = [first + (last - first) * part // parts for part in range(parts + 1)] if parts else []
    rows = [array.reshape(count, *array.shape[2:]) for array in batch]
    return [tuple(array[begin:end] for array in rows) for begin, end in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class FlatGradient:
    """A gradient and its loss as one vector for each dtype. has: which parameters have a gradient at all."""

    vectors: dict[torch.dtype, torch.Tensor]
    has: list[bool]


@dataclass(frozen=True)
class Layout:
    """Where tensors stand in vectors: each one's dtype, offset and shape; and the vectors' sizes."""

    places: list[tuple[torch.dtype, int, torch.Size]]
    sizes: dict[torch.dtype, int]

    def flat(self, tensors: list[torch.Tensor | None], nothing: float, device: torch.device) -> dict[torch.dtype, torch.Tensor]:  # fmt: skip
        """The vectors with copies of tensors. `nothing` stands for a missing one, and between them."""
        found = {dtype: torch.full((size,), nothing, dtype=dtype, device=device) for dtype, size in self.sizes.items()}
        for place, tensor in zip(self.apart(found), tensors, strict=True):
            if tensor is not None:
                place.copy_(tensor)
        return found

    def apart(self, vectors: dict[torch.dtype, torch.Tensor]) -> list[torch.Tensor]:
        """The tensors in vectors, as views."""
        return [vectors[dtype][first : first + shape.numel()].view(shape) for dtype, first, shape in self.places]


def laid_out(tensors: list[torch.Tensor], multiple: int) -> Layout:
    """The places of tensors in vectors whose sizes are multiples of a number."""
    places, ends = [], dict[torch.dtype, int]()
    for tensor in tensors:
        first = -(-ends.get(tensor.dtype, 0) // ALIGNED) * ALIGNED
        places.append((tensor.dtype, first, tensor.shape))
        ends[tensor.dtype] = first + tensor.numel()
    return Layout(places, {dtype: -(-end // multiple) * multiple for dtype, end in ends.items()})


def help_with_steps(step: TeamStep, place: str) -> None:
    """Follow the main process through a run, until it ends. Raises UserError at `place` if the model here is another one."""
    step.model.train()
    while (message := step.team.broadcast())[0]["do"] != "end":
        order, arrays = message
        if order["do"] == "state":
            step.take_state(order, place)
        else:
            step.help(order, arrays)
