"""A model whose weights are divided among the processes of a team, by torch's FSDP2, and its optimizer.

Each process keeps some rows of every tensor, with their gradient and their part of the optimizer. A block's rows are gathered when it
computes, and forgotten after it. Legend: W processes, N rows of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from core.errors import UserError
from core.training import checkpoints
from core.training.objectives import Objective
from core.training.team import Team


class Losses(nn.Module):
    """A model with what a step minimises: the loss of a micro-batch."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, *batch: Tensor) -> Tensor:
        return self.objective(self.model, *batch)


class Wire:
    """How FSDP2 exchanges pieces: through the team, whose waits end when a process is lost."""

    def __init__(self, team: Team) -> None:
        self.team = team

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class Gathering(Wire):
    """Weights: all pieces to all processes."""

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> None:
        self.team.gather_into(output_tensor, input_tensor)


class Adding(Wire):
    """Gradients: the sum of each piece to its owner. FSDP2 would take the mean; our losses are parts of the step's one."""

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        self.team.sum_piece(output_tensor, input_tensor)


@dataclass(frozen=True)
class Divided:
    """A model with divided weights. loss(*micro-batch) -> sum of losses; all processes call it equally often."""

    team: Team
    model: nn.Module
    loss: Losses

    def rows(self, count: int) -> slice:
        """The rows of N that this process has, as FSDP2 divides them. The last processes may have fewer, or none."""
        each = -(-count // self.team.world)
        return slice(min(count, self.team.rank * each), min(count, (self.team.rank + 1) * each))

    def whole(self, piece: Tensor, count: int) -> Tensor:
        """All N rows of a tensor, from the rows of each process. All processes call it."""
        padded = piece.new_zeros(-(-count // self.team.world), *piece.shape[1:])
        padded[: len(piece)] = piece
        found = self.team.gather(padded.view(-1))
        return found.view(-1, *piece.shape[1:])[:count]

    def put(self, target: Tensor, whole: Tensor) -> None:
        """Copy a whole tensor into one of the model or its optimizer, as far as this process has it."""
        if isinstance(target, DTensor):
            own = target.to_local()
            own.copy_(whole[self.rows(len(whole))])
        else:
            target.copy_(whole)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The names and whole values of what is trained, and of buffers, one after the other. All processes iterate."""
        for name, each in checkpoints.weights(self.model).items():
            yield name, self.whole(each.to_local(), len(each)) if isinstance(each, DTensor) else each

    def like(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """This process's part of a tensor of the optimizer, which is divided as its parameter is, if their shapes are equal."""
        if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
            return whole.clone()
        found = torch.empty_like(parameter, dtype=whole.dtype, requires_grad=False)
        self.put(found, whole)
        return found


@torch.no_grad()
def divide(model: nn.Module, objective: Objective, team: Team, device: torch.device) -> Divided:
    """Divide a model, in place: first its blocks, then the rest. Its weights go to the device block by block.

    Raises UserError for a model that FSDP2 cannot divide.
    """
    refuse_indivisible(model)
    loss, mesh = Losses(model, objective), team.mesh(device)
    parts: list[Any] = [*blocks_of(model), loss]
    for part in parts:
        fully_shard(part, mesh=mesh)
    for part in parts:
        part.set_custom_all_gather(Gathering(team))
        part.set_custom_reduce_scatter(Adding(team))
    return Divided(team, model, loss)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: the modules of its longest list that share no weights with others. None, without a list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    blocks = list(max(lists, key=len, default=()))
    return [block for block in blocks if all(users[id(parameter)] == 1 for parameter in block.parameters())]


def refuse_indivisible(model: nn.Module) -> None:
    """Raise UserError for a model that FSDP2 cannot divide."""
    scalar = next((name for name, each in model.named_parameters() if not each.dim()), None)
    kinds = {each.dtype for each in model.parameters() if each.requires_grad}
    reason = ""
    if getattr(model, "is_quantised", False):
        reason = "its base is quantised"
    elif scalar is not None:
        reason = f"{scalar} is a single number; give it the shape (1,)"
    elif len(kinds) > 1:
        reason = f"its weights are trained in several precisions: {', '.join(sorted(str(each)[6:] for each in kinds))}"
    if reason:
        raise UserError(
            f"this model cannot be divided among processes: {reason}",
            place='train.runtime.parallel = "fsdp"',
            remedy='Set train.runtime.parallel = "ddp": every process then holds the whole model.',
        )
