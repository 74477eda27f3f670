"""The speed of training: a model's shape goes in; milliseconds per step, tokens per second and MFU come out.

Legend: G micro-batches of an optimizer step, B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.bench.timing import timed
from core.config import Config, Data, Model, Train
from core.defaults import resolve
from core.models.build import build_model
from core.training.compiling import forward_of
from core.training.machine import Machine
from core.training.optimizers import build_optimizer
from core.training.speed import Speed
from core.training.trainer import step_of

Array = npt.NDArray[np.int64]
Batch = Callable[[int], tuple[Array, Array]]  # step -> inputs and targets (G, B, T)


@dataclass(frozen=True)
class Shape:
    """A GPT and its batch: layers, heads, channels, tokens of a row, rows, ids."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    batch_size: int
    vocab_size: int = 65

    @property
    def model_name(self) -> str:
        return f"{self.n_layer} x {self.n_embd}"

    @property
    def name(self) -> str:
        return f"{self.model_name}, batch {self.batch_size} x {self.block_size}"


def config_of(preset: str, shape: Shape) -> Config:
    """The resolved config of a preset in a shape."""
    config = Config()
    config.train.model = Model.model_validate(
        {"preset": preset, "n_layer": shape.n_layer, "n_head": shape.n_head, "n_embd": shape.n_embd, "block_size": shape.block_size}
    )  # fmt: skip
    config.train.data = Data(batch_size=shape.batch_size)
    return resolve(config)


def random_batch(shape: Shape) -> Batch:
    """The same batch of random ids for every step."""
    ids = np.random.default_rng(0).integers(shape.vocab_size, size=(1, shape.batch_size, shape.block_size + 1))
    inputs, targets = np.ascontiguousarray(ids[:, :, :-1]), np.ascontiguousarray(ids[:, :, 1:])
    return lambda step: (inputs, targets)


def preset_speed(preset: str, shape: Shape, machine: Machine, seconds: float = 1.0) -> dict[str, Any]:
    """Figures of a preset's training step. What does not fit into a GPU's memory is tried with half the rows, and so on."""
    torch.manual_seed(0)
    config = config_of(preset, shape)
    model = build_model(config.train.model, shape.vocab_size).to(machine.device)
    optimizer = build_optimizer(model, config.train.optim)
    try:
        return step_speed(model, optimizer, config.train, machine, random_batch(shape), seconds)
    except torch.OutOfMemoryError:
        if shape.batch_size == 1:
            raise
    del model, optimizer
    torch.cuda.empty_cache()
    return preset_speed(preset, replace(shape, batch_size=shape.batch_size // 2), machine, seconds)


def step_speed(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: Train, machine: Machine, batch: Batch,
    seconds: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """ms_per_step with its range, tokens_per_second, mfu (None where the machine's peak is not to be had), rows and dtype."""
    model.train()
    forward = forward_of(model, machine)
    inputs, targets = batch(0)
    timing = timed(
        lambda: step_of(model, optimizer, config.optim, machine, inputs, targets, forward),
        seconds=seconds,
        device=machine.device,
    )
    pace = config.data.tokens_per_step / timing.median
    return {
        "ms_per_step": 1000 * timing.median,
        "fastest_ms": 1000 * timing.fastest,
        "slowest_ms": 1000 * timing.slowest,
        "tokens_per_second": pace,
        "mfu": Speed.of(config, machine, model).mfu(pace),
        "batch_size": config.data.batch_size,
        "dtype": machine.dtype_name,
    }
