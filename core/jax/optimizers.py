"""Updates of weights for JAX, from the groups of torch's optimizer: core.training.muon and torch's AdamW, to the letter.

The state has the names and shapes of the torch optimizer's, so that either can go on from the other's. What changes from step
to step is in an array of numbers, so that a step is compiled once. Legend: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

from core.jax.model import wide
from core.training.muon import COEFFICIENTS, Muon

Moments = dict[str, dict[str, Array]]  # of each parameter, by name
MUON, MUONS_ADAM, ADAM = ("momentum",), ("mean", "square"), ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class OptimGroup:
    """A group of the torch optimizer. names: of its parameters. kept: the names of their state. pieces: see Muon."""

    names: tuple[str, ...]
    kept: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def is_muon(self) -> bool:
        return self.kept == MUON

    def dtypes(self, parameter: torch.Tensor, state_dtype: torch.dtype | None) -> list[torch.dtype]:
        """The precision of each state: only momentum and means may have another one than the parameter."""
        return [state_dtype or parameter.dtype, *([parameter.dtype] * (len(self.kept) - 1))]


def groups_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[OptimGroup]:
    """The groups of a Muon or a torch.optim.AdamW."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    adam = MUONS_ADAM if isinstance(optimizer, Muon) else ADAM
    return [
        OptimGroup(tuple(names[id(each)] for each in group["params"]), MUON if group.get("muon") else adam, dict(group))
        for group in optimizer.param_groups
    ]


def numbers_of(optimizer: torch.optim.Optimizer, groups: list[OptimGroup], counts: list[int]) -> np.ndarray[Any, Any]:
    """What a step is computed with besides arrays: of each group the rate, what decay leaves, and Adam's corrections.

    counts: of the steps that each group has taken, this one included.
    """
    found = []
    for given, group, count in zip(optimizer.param_groups, groups, counts, strict=True):
        rate, corrections = given["lr"], (1.0, 1.0)
        if not group.is_muon:
            beta1, beta2 = given["betas"]
            corrections = (math.sqrt(1 - beta2**count), rate / (1 - beta1**count))
        found.append([rate, 1 - rate * given.get("weight_decay", 0.0), *corrections])
    return np.array(found)


def updated(
    groups: list[OptimGroup], weights: dict[str, Array], moments: Moments, gradient: Mapping[str, Array], numbers: Array, product: Any
) -> tuple[dict[str, Array], Moments]:  # fmt: skip
    """Weights and moments after a step. numbers: of `numbers_of`. product: the dtype of Muon's matrix products."""
    weights, moments = dict(weights), dict(moments)
    for group, given in zip(groups, numbers, strict=True):
        rate, left, root, step = given
        if group.settings.get("weight_decay"):
            weights |= {name: weights[name] * left for name in group.names}
        if group.is_muon:
            moved = {}
            for name in group.names:
                mean, moments[name] = averaged(moments[name], gradient[name], group, group.settings["momentum"])
                ahead = gradient[name] + group.settings["momentum"] * (mean - gradient[name])  # Nesterov
                moved[name] = ahead.astype(product)
            for name, factors in orthogonal(
                moved, dict(zip(group.names, group.settings["pieces"], strict=True))
            ).items():
                weights[name] = weights[name] - rate * factors.astype(weights[name].dtype)
            continue
        beta1, beta2 = group.settings["betas"]
        for name in group.names:
            found = gradient[name]
            square = beta2 * moments[name][group.kept[1]] + (1 - beta2) * (found * found)
            mean, kept = averaged(moments[name], found, group, beta1)
            moments[name] = kept | {group.kept[1]: square}
            weights[name] = weights[name] - step * mean / (jnp.sqrt(square) / root + group.settings["eps"])
    return weights, moments


def averaged(kept: dict[str, Array], found: Array, group: OptimGroup, decay: float) -> tuple[Array, dict[str, Array]]:
    """A running mean with one more gradient, in the gradient's precision and as it is kept."""
    name = group.kept[0]
    mean = kept[name].astype(found.dtype)
    mean = mean + (1 - decay) * (found - mean)
    return mean, kept | {name: mean.astype(kept[name].dtype)}


def orthogonal(moved: Mapping[str, Array], pieces: Mapping[str, int | list[int]]) -> dict[str, Array]:
    """The steps of Muon, for parameters with matrices stacked in their rows. Matrices of one shape are computed together."""
    stacks: dict[tuple[int, int], list[tuple[str, int, Array]]] = {}
    for name, step in moved.items():
        for place, matrix in enumerate(taken_apart(step, pieces[name])):
            stacks.setdefault((min(matrix.shape), max(matrix.shape)), []).append((name, place, matrix))
    parts: dict[str, dict[int, Array]] = {}
    for (short, long), stack in stacks.items():
        lying = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for _, _, matrix in stack]
        factors = polar_express(jnp.stack(lying))
        for (name, place, matrix), factor in zip(stack, factors, strict=True):
            tall = matrix.shape[0] > matrix.shape[1]
            factor = factor.astype(wide(factor.dtype))
            parts.setdefault(name, {})[place] = factor.T * math.sqrt(long / short) if tall else factor
    return {name: jnp.concatenate([parts[name][place] for place in sorted(parts[name])]) for name in moved}


def taken_apart(stacked: Array, pieces: int | list[int]) -> list[Array]:
    """Split a parameter into the matrices stacked in its rows. pieces: their number, or the height of each."""
    found: list[Array] = jnp.split(stacked, pieces if isinstance(pieces, int) else np.cumsum(pieces)[:-1])
    return found


def polar_express(matrices: Array) -> Array:
    """core.training.muon.polar_express: nearly orthogonal factors of (N, R, C) matrices with R <= C."""
    high = matrices.astype(wide(matrices.dtype))
    norm = jnp.sqrt((high * high).sum((1, 2), keepdims=True)).astype(matrices.dtype).astype(high.dtype)
    x = matrices * (1 / jnp.maximum(norm * 1.01, 1e-20)).astype(matrices.dtype)
    if 2 * x.shape[1] > x.shape[2]:
        for a, b, c in COEFFICIENTS:
            x = quintic(x @ x.mT, a, b, c) @ x
        return x
    gram = x @ x.mT
    gathered = quintic(gram, *COEFFICIENTS[0])
    factor = gathered
    for a, b, c in COEFFICIENTS[1:]:
        gram = factor @ gram @ factor
        factor = quintic(gram, a, b, c)
        gathered = factor @ gathered
    return gathered @ x


def quintic(gram: Array, a: float, b: float, c: float) -> Array:
    """core.training.muon.quintic, rounded once."""
    high = wide(gram.dtype)
    square = jnp.matmul(gram, gram, preferred_element_type=high)
    return (b * gram.astype(high) + c * square).astype(gram.dtype) + a * jnp.eye(gram.shape[1], dtype=gram.dtype)


def clipped(gradient: dict[str, Array], limit: float | None) -> tuple[dict[str, Array], Array]:
    """A gradient clipped to a norm, as torch.nn.utils.clip_grad_norm_ does, and its norm before; 0 or None means off."""
    norm = norm_of(gradient)
    if not limit:
        return gradient, norm
    share = jnp.minimum(limit / (norm + 1e-6), 1.0)
    return {name: each * share for name, each in gradient.items()}, norm


def norm_of(arrays: Mapping[str, Array]) -> Array:
    """The Euclidean norm of all numbers in arrays."""
    return jnp.sqrt(sum((each * each).sum() for each in arrays.values()))
