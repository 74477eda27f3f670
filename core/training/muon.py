"""Muon: an optimizer that moves a matrix about equally far in every direction.

Legend: N matrices of one shape, R rows, C columns.
Muon: Keller Jordan, https://kellerjordan.github.io/posts/muon/. Polar Express: arXiv:2505.16932.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

Number = float | Tensor

# Polar Express (arXiv:2505.16932, algorithm 1): quintics a x + b x^3 + c x^5, applied in turn. Each is optimal for the
# range in which the one before leaves singular values of [0.001, 1]; all but the last are damped by the paper's safety
# factor 1.01. These are the first three of its table. They map values above 0.005 of the norm into [0.18, 1.87].
# Three that end closer to 1 (made for [0.01, 1], within [0.72, 1.28]) learned more slowly, because they raise small
# values less: validation loss 1.893 instead of 1.874 after 240 steps on Tiny Shakespeare (mean of three seeds, spread
# 0.005).
COEFFICIENTS = (
    (8.205160414005567, -22.901934987056027, 16.4607249101803),
    (4.066395159942768, -2.861154086755139, 0.5183995226694736),
    (3.948690853482291, -2.908902115962945, 0.5518191394370127),
)


def product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if this device multiplies it in hardware, else float32. Emulated bfloat16 is several times slower."""
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def polar_express(matrices: Tensor) -> Tensor:
    """Nearly orthogonal factors of (N, R, C) matrices with R <= C. A zero matrix stays zero."""
    # The Frobenius norm is at least the largest singular value; 1.01 leaves room for bfloat16's rounding.
    norm = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True).float()
    x: Tensor = matrices * (1 / (norm * 1.01).clamp_min(1e-20)).to(matrices.dtype)
    if 2 * x.shape[1] > x.shape[2]:
        for a, b, c in COEFFICIENTS:
            x = quintic(x @ x.mT, a, b, c) @ x
        return x
    # The steps commute, so for wide matrices we combine them in (N, R, R) and use the large matrix only twice. That is
    # a third fewer operations where C = 4 R, with the same validation loss.
    gram = x @ x.mT
    gathered = quintic(gram, *COEFFICIENTS[0])
    factor = gathered
    for a, b, c in COEFFICIENTS[1:]:
        gram = factor @ gram @ factor
        factor = quintic(gram, a, b, c)
        gathered = factor @ gathered
    return gathered @ x


def quintic(gram: Tensor, a: float, b: float, c: float) -> Tensor:
    """The factor that maps x to a x + b (x x') x + c (x x')^2 x, from gram = x x' (N, R, R)."""
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


def taken_apart(stacked: Tensor, pieces: int | list[int]) -> tuple[Tensor, ...]:
    """Split a parameter into the matrices stacked in its rows. pieces: their number, or the height of each."""
    return stacked.chunk(pieces) if isinstance(pieces, int) else stacked.split_with_sizes(pieces)


class Division(Protocol):
    """How the rows of a tensor are divided among processes."""

    def rows(self, count: int) -> slice:
        """Those of this process."""

    def whole(self, piece: Tensor, count: int) -> Tensor:
        """All rows, from this process's ones; the others call it too."""


def local(tensor: Any) -> Tensor:
    """The rows of a DTensor that this process has; another tensor as it is."""
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found


class Muon(torch.optim.Optimizer):
    """Muon for groups with `muon = True`, Adam for the others.

    A muon group needs lr, momentum, weight_decay and `pieces`: for each parameter, the number of matrices of equal shape
    stacked in its rows, or the height of each. Other groups need lr, betas and eps, and may have a decoupled weight_decay. The
    gradients of muon groups are overwritten. All state is a tensor of its parameter's shape, or an int.

    state_dtype: of momentum and mean gradients; None: the parameter's. The mean of squares keeps the parameter's: it changes by
    1 % in a step or less, which bfloat16 rounds away.

    A step is `apply(numbers())`, so that it can be recorded: what changes from step to step is in the numbers.

    division: of the parameters, where they are DTensors of which each process has some rows.
    """

    division: Division | None = None

    # torch wraps these to hide them from its compiler. The wrapper imports the compiler when it is first called, which
    # would delay the first step of every run by 0.8 s.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def __init__(self, groups: list[dict[str, Any]], state_dtype: torch.dtype | None = None) -> None:
        super().__init__(groups, defaults={})
        self.state_dtype = state_dtype

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: torch names its own attributes only."""
        return {**super().__getstate__(), "state_dtype": self.state_dtype}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient. Returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.apply(self.numbers())
        return loss

    def numbers(self) -> list[float]:
        """Count a step of the parameters that have a gradient. Returns what it is computed with besides tensors, in `apply`'s order."""
        found: list[float] = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                found += [group["lr"], 1 - group["lr"] * group.get("weight_decay", 0.0)]
            if not group["muon"]:
                beta1, beta2 = group["betas"]
                for p in params:
                    count = self.state[p]["step"] = self.state[p].get("step", 0) + 1
                    found += [math.sqrt(1 - beta2**count), -group["lr"] / (1 - beta1**count)]
        return found

    @torch.no_grad()
    def apply(self, numbers: Sequence[Number]) -> None:
        """Update the parameters that have a gradient. numbers: of `numbers`, or tensors () with the same on the device."""
        left = iter(numbers)
        for group in self.param_groups:
            if any(p.grad is not None for p in group["params"]):
                (self._step_muon if group["muon"] else self._step_adam)(group, left)

    def _step_muon(self, group: dict[str, Any], numbers: Iterator[Number]) -> None:
        pairs = [(p, pieces) for p, pieces in zip(group["params"], group["pieces"], strict=True) if p.grad is not None]
        params = [local(p) for p, _ in pairs]
        steps = [local(p.grad) for p, _ in pairs]
        lr, kept, momentum = next(numbers), next(numbers), group["momentum"]
        buffers = self._averaged([p for p, _ in pairs], "momentum", steps, momentum)
        # Nesterov: look ahead along the momentum. In place, because allocating memory takes longer than the sum.
        torch._foreach_lerp_(steps, buffers, momentum)
        if group["weight_decay"]:
            torch._foreach_mul_(params, kept)
        if self.division is None:
            self._move([(p, pieces, step) for (p, pieces), step in zip(pairs, steps, strict=True)], lr)
            return
        for (p, pieces), own, step in zip(pairs, params, steps, strict=True):  # one parameter at a time is whole
            whole = self.division.whole(step.to(product_dtype(step.device)), len(p))
            update = torch.zeros_like(whole, dtype=own.dtype)
            self._move([(update, pieces, whole)], lr)
            own.add_(update[self.division.rows(len(p))])

    def _move(self, triples: list[tuple[Tensor, int | list[int], Tensor]], lr: Number) -> None:
        """Add to each target, whose rows are stacked matrices, -lr times the orthogonal factors of its step."""
        dtype = product_dtype(triples[0][0].device)
        # Matrices of one shape, and of its transpose, are multiplied together as one stack.
        stacks: dict[tuple[int, int], tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]] = {}
        for p, pieces, step in triples:
            for target, update in zip(taken_apart(p, pieces), taken_apart(step.to(dtype), pieces), strict=True):
                rows, columns = target.shape
                wide, tall = stacks.setdefault((min(rows, columns), max(rows, columns)), ([], []))
                if rows <= columns:
                    wide.append((target, update))
                else:
                    tall.append((target.mT, update.mT))
        for (short, long), (wide, tall) in stacks.items():
            stack = torch.stack([update for _, update in wide + tall])  # (N, R, C)
            factors = polar_express(stack).to(triples[0][0].dtype).unbind()
            for targets, found, scale in (
                ([target for target, _ in wide], factors[: len(wide)], 1.0),
                ([target for target, _ in tall], factors[len(wide) :], math.sqrt(long / short)),
            ):
                if targets:
                    add_scaled(targets, found, -lr * scale)

    def _step_adam(self, group: dict[str, Any], numbers: Iterator[Number]) -> None:
        divided = [p for p in group["params"] if p.grad is not None]
        params = [local(p) for p in divided]
        grads = [local(p.grad) for p in divided]
        beta1, beta2 = group["betas"]
        _, kept = next(numbers), next(numbers)
        roots, rates = zip(*((next(numbers), next(numbers)) for _ in params), strict=True)
        means = self._averaged(divided, "mean", grads, beta1)
        squares = [local(self._buffer(p, "square", p.dtype)) for p in divided]
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        if group.get("weight_decay"):
            torch._foreach_mul_(params, kept)
        spread = torch._foreach_sqrt(squares)
        torch._foreach_div_(spread, list(roots))
        torch._foreach_add_(spread, group["eps"])
        if isinstance(kept, Tensor):  # addcdiv takes numbers of the CPU only
            steps = torch._foreach_div(means, spread)
            torch._foreach_mul_(steps, list(rates))
            torch._foreach_add_(params, steps)
        else:
            torch._foreach_addcdiv_(params, means, spread, list(rates))

    def _averaged(self, params: list[Tensor], name: str, grads: list[Tensor], decay: float) -> list[Tensor]:
        """Take gradients into the parameters' running means of this name. Returns these, in the precision of the gradients."""
        kept = [local(self._buffer(p, name, self.state_dtype or p.dtype)) for p in params]
        means = [
            buffer.to(p.dtype) for buffer, p in zip(kept, params, strict=True)
        ]  # the buffer itself, if it has that already
        torch._foreach_lerp_(means, grads, 1 - decay)
        if self.state_dtype is not None:
            torch._foreach_copy_(kept, means)
        return means

    def _buffer(self, p: Tensor, name: str, dtype: torch.dtype) -> Tensor:
        """The parameter's state tensor of this name, zeros at first."""
        state = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p, memory_format=torch.preserve_format, dtype=dtype)
        elif state[name].dtype != dtype:  # torch loads state in the parameter's precision; its values are of this one
            state[name] = state[name].to(dtype)
        buffer: Tensor = state[name]
        return buffer


def add_scaled(targets: list[Tensor], steps: tuple[Tensor, ...], scale: Number) -> None:
    """Add steps times a number, which may be on the device, to tensors."""
    if isinstance(scale, Tensor):
        torch._foreach_add_(targets, torch._foreach_mul(steps, scale))
    else:
        torch._foreach_add_(targets, steps, alpha=scale)
