"""An optimizer step of a team whose weights are divided (core.training.divided).

The main process also has the whole model, in main memory, and the whole optimizer's settings. Both are what the training loop, evaluations
and a resume work with, so these need not know of divided weights: `share_state` deals the whole state out, `whole` collects the weights.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core import shards
from core.errors import RunFailed
from core.process import StopRequest
from core.training import checkpoints
from core.training.compiling import compiled
from core.training.divided import Divided, divide
from core.training.messages import Values
from core.training.muon import Muon, local
from core.training.step import Array, Loss, Step, add_gradients, targets_in, trained
from core.training.team import Team
from core.training.team_step import TeamStep, row_shares

Optimizer = torch.optim.Optimizer


@dataclass(frozen=True)
class DividedStep(TeamStep):
    """A shared step. model, optimizer: of the pieces of this process. whole_model, whole_optimizer: the main process's own."""

    divided: Divided | None = None
    whole_model: nn.Module | None = None
    whole_optimizer: Optimizer | None = None

    @property
    def pieces(self) -> Divided:
        assert self.divided is not None
        return self.divided

    @functools.cached_property
    def loss(self) -> Loss:
        return compiled(self.pieces.loss, self.machine)

    def share_state(self) -> None:
        """Deal out the state of the whole model and optimizer, whose tensors are then forgotten."""
        assert self.whole_model is not None and self.whole_optimizer is not None
        moments, plain = checkpoints.flatten(self.whole_optimizer)
        named = {name: [list(each.shape), str(each.dtype)[6:]] for name, each in moments.items()}
        order = {"do": "state", "optimizer": plain, "tensors": named}
        self.team.broadcast(order)
        self.deal(order, checkpoints.weights(self.whole_model), moments)
        self.whole_optimizer.state.clear()

    def take_state(self, order: Values, place: str) -> None:
        """Take this process's pieces of what `share_state` deals out."""
        self.deal(order, {}, {})

    @torch.no_grad()
    def deal(self, order: Values, weights: checkpoints.Tensors, moments: checkpoints.Tensors) -> None:
        """Send whole tensors, one after the other, and keep the own pieces. weights, moments: what the main process has."""
        self.optimizer.zero_grad(set_to_none=True)  # of a step that came to nothing
        for name, own in checkpoints.weights(self.model).items():
            whole = weights[name].contiguous() if weights else torch.empty(own.shape, dtype=own.dtype)
            self.team.send(whole)
            self.pieces.put(own, whole)
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        parts = {}
        for name, (shape, dtype) in order["tensors"].items():
            whole = moments[name].contiguous() if moments else torch.empty(shape, dtype=getattr(torch, dtype))
            self.team.send(whole)
            parts[name] = self.pieces.like(parameters[int(name.partition(".")[0])], whole)
        checkpoints.unflatten(self.optimizer, parts, order["optimizer"])
        self.team.barrier()

    def gradient(self, inputs: Array, targets: Array, *more: Any) -> Any:
        """As TeamStep's. The rates are those that the training loop has given the whole optimizer."""
        assert self.whole_optimizer is not None
        for group, whole in zip(self.optimizer.param_groups, self.whole_optimizer.param_groups, strict=True):
            group["lr"] = whole["lr"]
        return super().gradient(inputs, targets, *more)

    def help(self, order: Values, batch: tuple[Any, ...]) -> None:
        """Take part in what the main process does: a step, or what follows one."""
        if order["do"] == "whole":
            for _ in self.pieces.weights():
                pass
        elif order["do"] == "norm":
            self.norm()
        elif order["do"] == "save":
            self.write_own(Path(order["folder"]))
        else:
            super().help(order, batch)

    def shared_gradient(self, batch: tuple[Any, ...], seed: int) -> torch.Tensor:
        """The gradient of the whole step, each process the rows that it has; the loss and the norm as `gradient` gives them.

        FSDP2 adds the gradients of a micro-batch at once, so that nobody holds a whole one.
        """
        devices = [self.machine.device] if self.machine.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed + self.team.rank)
            loss = add_gradients(
                self.loss, self.on_device(equal_shares(batch, self.team)), targets_in(batch), self.machine
            )
        gradients = [each.grad for each in trained(self.model) if each.grad is not None]
        figures = torch.stack((loss, squares(gradients, self.machine.device)))
        self.team.sum(figures)
        self.note_stop([])
        loss, norm = figures[0], figures[1].sqrt()
        if self.grad_clip and gradients:
            share = (self.grad_clip / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            torch._foreach_mul_([local(each) for each in gradients], share)
        return torch.stack((loss, norm))

    def norm(self) -> float:
        """As Step's."""
        if not self.team.rank:
            self.team.broadcast({"do": "norm"})
        with torch.no_grad():
            found = squares(list(trained(self.model)), self.machine.device)
        self.team.sum(found)
        return float(found.sqrt())

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Collect the weights in the whole model, which is on the device inside this context."""
        assert self.whole_model is not None
        self.team.broadcast({"do": "whole"})
        own = checkpoints.weights(self.whole_model)
        with torch.no_grad():
            for name, each in self.pieces.weights():
                own[name].copy_(each)
        self.whole_model.to(self.machine.device)
        yield
        self.whole_model.to("cpu")

    def writing(self) -> checkpoints.Write:
        return self.write

    def write(self, folder: Path, model: checkpoints.Tensors, optimizer: checkpoints.Tensors) -> None:
        """Have each process write its pieces of a checkpoint. Raises RunFailed if one does not see the folder, and OSError."""
        self.team.broadcast({"do": "save", "folder": str(folder.absolute())})
        self.write_own(folder)

    def write_own(self, folder: Path) -> None:
        blind = torch.tensor([float(not folder.is_dir())])
        self.team.sum(blind)
        if blind.item():
            if self.team.rank:
                return
            raise RunFailed(
                f"{folder.parent}: {blind.item():.0f} of {self.team.world} processes do not see this folder.\n"
                '  With train.runtime.parallel = "fsdp" each process writes its part of a checkpoint: put train.runtime.out_dir on a disk '
                "that all machines share."
            )
        tensors, _ = checkpoints.flatten(self.optimizer)
        weights = checkpoints.weights(self.model)
        with contextlib.suppress(*((OSError, RuntimeError) if self.team.rank else ())):  # the main process ends the run
            self.team.watch(lambda: shards.write_pieces(folder, weights, tensors))


def divided_step(step: Step, team: Team, build: Callable[[nn.Module], Optimizer], stop: StopRequest) -> DividedStep:
    """The step of a team with divided weights, from that of a whole model in main memory. build: the optimizer of a model.

    Only the main process keeps the whole model.
    """
    model = step.model if team.rank else copy.deepcopy(step.model)
    divided = divide(model, step.objective, team, step.machine.device)
    optimizer = build(model)
    if isinstance(optimizer, Muon):
        optimizer.division = divided
    model.train()
    kept: tuple[Any, ...] = (None, None) if team.rank else (step.model, step.optimizer)
    return DividedStep(
        model, optimizer, step.machine, step.grad_clip, step.objective,
        team=team, stop=stop, divided=divided, whole_model=kept[0], whole_optimizer=kept[1],
    )  # fmt: skip


def squares(tensors: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The sum of the squares of all numbers that this process has."""
    if not tensors:
        return torch.zeros((), device=device)
    return torch.stack(torch._foreach_norm([local(each).detach() for each in tensors])).square().sum()


def equal_shares(batch: tuple[Any, ...], team: Team) -> list[tuple[Any, ...]]:
    """`row_shares`, with as many micro-batches for each process: those that lack one take its first row, without targets."""
    shares = [row_shares(batch, Team(rank, team.world)) for rank in range(team.world)]
    most = max(map(len, shares))
    first = [array[0, :1] for array in batch]
    nothing = (first[0], np.full_like(first[1], -1), *first[2:])
    return [*shares[team.rank], *itertools.repeat(nothing, most - len(shares[team.rank]))]
