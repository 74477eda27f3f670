"""The optimizer step of a run as JAX takes it: one compiled program that has weights and optimizer on its devices.

Model and optimizer of torch stay beside it: a run begins with their state, and gets it back before it is evaluated or saved. So
all else, from checkpoints to samples, is the same code with both.

Legend: G micro-batches of a step, B rows, T tokens.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from core.config import Runtime
from core.jax import layout, optimizers
from core.jax.model import Gpt
from core.models.gpt import GPT
from core.process import StopRequest
from core.training.messages import Values
from core.training.muon import Muon, product_dtype
from core.training.room import state_bytes
from core.training.step import Array, Step, targets_in
from core.training.team import Team
from core.training.team_step import TeamStep

Program = Callable[..., Any]


@dataclass
class OnDevices:
    """What is on the devices from step to step; nothing until a run begins.

    counts: of the steps that each of the optimizer's groups has taken. norm: of the weights, after the last step.
    """

    weights: dict[str, jax.Array] = field(default_factory=dict)
    moments: optimizers.Moments = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    norm: jax.Array | None = None


@dataclass(frozen=True)
class JaxStep(TeamStep):
    """A step by JAX. model, optimizer: torch's, with the state of the last `bring_back`. runtime: the resolved [train.runtime]."""

    runtime: Runtime = field(default_factory=Runtime)
    held: OnDevices = field(default_factory=OnDevices)

    @property
    def compiles(self) -> bool:
        return True

    @property
    def reads_freely(self) -> bool:
        return self.placement.platform == "cpu"

    @property
    def where(self) -> str:
        return layout.devices_here() or f"the devices of {self.team.world} processes"

    def eager(self) -> Step:
        """The same: JAX always compiles."""
        return self

    @functools.cached_property
    def placement(self) -> layout.Placement:
        layout.join(self.team)
        return layout.laid_out(self.runtime, state_bytes(self.model, self.optimizer))

    @functools.cached_property
    def groups(self) -> list[optimizers.OptimGroup]:
        return optimizers.groups_of(self.model, self.optimizer)

    @functools.cached_property
    def program(self) -> Program:
        """The compiled step."""
        return step_program(self)

    def share_state(self) -> None:
        """Put the state of model and optimizer on the devices, those of the other processes too."""
        super().share_state()
        self.put_state()

    def take_state(self, order: Values, place: str) -> None:
        super().take_state(order, place)
        self.put_state()

    def put_state(self) -> None:
        """Copy the state of model and optimizer to the devices."""
        weights, moments, counts = {}, {}, []
        own = dict(self.model.named_parameters())
        dtype = self.optimizer.state_dtype if isinstance(self.optimizer, Muon) else None
        for group in self.groups:
            count = 0
            for name in group.names:
                parameter, place = own[name], self.placement.of_weight(tuple(own[name].shape))
                known = self.optimizer.state.get(parameter, {})
                count = int(known.get("step", 0))
                weights[name] = layout.put(layout.from_torch(parameter), place)
                moments[name] = {
                    kept: layout.put(layout.from_torch(known[kept].to(each) if kept in known else torch.zeros_like(parameter, dtype=each)), place)
                    for kept, each in zip(group.kept, group.dtypes(parameter, dtype), strict=True)
                }  # fmt: skip
            counts.append(count)
        self.held.weights, self.held.moments, self.held.counts = weights, moments, counts

    @property
    def state(self) -> OnDevices:
        """What is on the devices. A step that is taken for timing alone begins with what model and optimizer have."""
        if not self.held.weights:
            self.share_state()
        return self.held

    def shared_gradient(self, batch: tuple[Any, ...], seed: int) -> Any:
        """Take the whole step. Returns the loss and the gradient's norm, on the device.

        The update is a part of it, so that nothing leaves the devices. It is left out where a figure is not finite, or there is no target.
        """
        state, total = self.state, targets_in(batch)
        inputs, targets = (
            layout.put(self.placement.padded(each.astype(np.int32), filling), self.placement.rows(1))
            for each, filling in zip(batch, (0, -1), strict=True)
        )
        counts = [count + (total > 0) for count in state.counts]
        numbers = optimizers.numbers_of(self.optimizer, self.groups, [max(count, 1) for count in counts])
        given = [layout.put(np.asarray(each), self.placement.whole()) for each in (
            numbers.astype(np.float32), np.float32(total), np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)
        )]  # fmt: skip
        state.weights, state.moments, figures, state.norm = self.program(
            state.weights, state.moments, inputs, targets, *given
        )
        state.counts = counts
        if self.team.world > 1:
            self.note_stop([])
        return figures

    def update(self, targets: Array) -> bool:
        """Whether the step has updated anything: not, if a batch had no target."""
        return bool((targets >= 0).any())

    def help(self, order: Values, batch: tuple[Any, ...]) -> None:
        """Take part in what the main process does: a step, or collecting the state."""
        if order["do"] != "step":
            self.collected(moments=order["moments"])
            return
        for group, rate in zip(self.optimizer.param_groups, order["rates"], strict=True):
            group["lr"] = rate
        self.shared_gradient(batch, order["seed"])

    def read(self, figures: list[Any]) -> list[list[float]]:
        return self.team.watch(lambda: [np.asarray(each).tolist() for each in figures])

    def __call__(self, inputs: Array, targets: Array, *more: Any) -> None:
        try:
            self.read([self.gradient(inputs, targets)])
        except RuntimeError:  # what the program was given is gone
            self.held.weights = {}
            raise

    def norm(self) -> float:
        """The Euclidean norm of the weights, after the last step."""
        assert self.state.norm is not None
        return float(np.asarray(self.state.norm))

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """The model has the weights in this context."""
        self.collect(moments=False)
        yield

    def bring_back(self) -> None:
        """Copy the state to model and optimizer."""
        self.collect(moments=True)

    @torch.no_grad()
    def collect(self, *, moments: bool) -> None:
        """Copy the weights to the model, and if asked for also what the optimizer keeps."""
        self.team.broadcast({"do": "collect", "moments": moments})
        weights, kept = self.collected(moments=moments)
        own = dict(self.model.named_parameters())
        for name, array in weights.items():
            own[name].copy_(layout.to_torch(array))
        for group, count in zip(self.groups, self.state.counts if moments else [], strict=False):
            for name in group.names if count else ():
                state = self.optimizer.state[own[name]]
                state |= {key: layout.to_torch(array).to(own[name].device) for key, array in kept[name].items()}
                if not group.is_muon:
                    state["step"] = count if group.kept == optimizers.MUONS_ADAM else torch.tensor(float(count))

    def collected(self, *, moments: bool) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Weights, and if asked for moments, in main memory. All processes call it."""
        wanted = (self.state.weights, self.state.moments if moments else {})
        found: tuple[dict[str, Any], dict[str, dict[str, Any]]] = self.team.watch(
            lambda: jax.tree.map(layout.taken, wanted)
        )
        return found


def jax_step(step: Step, runtime: Runtime, team: Team, stop: StopRequest) -> JaxStep:
    """The step of torch as JAX takes it."""
    return JaxStep(
        step.model, step.optimizer, step.machine, step.grad_clip, step.objective, team=team, stop=stop, runtime=runtime
    )


def step_program(step: JaxStep) -> Program:
    """Compile the step of a GPT: weights, moments and a batch -> the same after the step, figures, and the weights' norm."""
    assert isinstance(step.model, GPT)
    where, groups, clip = step.placement, step.groups, step.grad_clip

    def by_rows(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, where.rows())

    gpt = Gpt(step.model.config, step.model.vocab_size, jnp.dtype(step.machine.dtype_name), by_rows)
    product = jnp.float32
    if where.platform != "cpu" or product_dtype(torch.device("cpu")) == torch.bfloat16:
        product = jnp.bfloat16

    def take(weights, moments, inputs, targets, numbers, total, seed):  # type: ignore[no-untyped-def]
        with jax.default_matmul_precision("highest"):
            loss, gradient = mean_gradient(gpt, weights, inputs, targets, total, seed)
            gradient, norm = optimizers.clipped(gradient, clip)
            new = optimizers.updated(groups, weights, moments, gradient, numbers, product)
        figures = jnp.stack((loss, norm))
        taken = jnp.isfinite(figures).all() & (total > 0)
        weights, moments = jax.tree.map(lambda new, old: jnp.where(taken, new, old), new, (weights, moments))
        return weights, moments, figures, optimizers.norm_of(weights)

    state = step.state
    places = jax.tree.map(lambda each: each.sharding, (state.weights, state.moments))
    program: Program = jax.jit(take, donate_argnums=(0, 1), out_shardings=(*places, where.whole(), where.whole()))
    return program


def mean_gradient(
    gpt: Gpt, weights: Any, inputs: jax.Array, targets: jax.Array, total: jax.Array, seed: jax.Array
) -> tuple[jax.Array, Any]:
    """The mean loss over `total` targets of (G, B, T), and its gradient, added up micro-batch by micro-batch."""
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")

    def part(weights, number, inputs, targets):  # type: ignore[no-untyped-def]
        return gpt.nats(weights, inputs, targets, jax.random.fold_in(key, number)) / jnp.maximum(total, 1)

    def add(sums, micro):  # type: ignore[no-untyped-def]
        return jax.tree.map(jnp.add, sums, jax.value_and_grad(part)(weights, *micro)), None

    count = inputs.shape[0]
    if count == 1:
        return jax.value_and_grad(part)(weights, 0, inputs[0], targets[0])  # type: ignore[no-any-return]
    nothing = (jnp.zeros((), total.dtype), jax.tree.map(jnp.zeros_like, weights))
    sums, _ = jax.lax.scan(add, nothing, (jnp.arange(count), inputs, targets))
    return sums  # type: ignore[no-any-return]
