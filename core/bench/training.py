"""Measure the training speed of the presets, at fixed model sizes.

Legend: G micro-batches of an optimizer step, B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.config import Config, Data, Model, Train
from core.defaults import resolve
from core.plugins.manager import plugins
from core.training.graphed import is_worth_recording, step_of
from core.training.machine import Machine, model_on
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.timing import step_speed

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """The size of a GPT and its batch: layers, heads, channels, tokens per row, rows, ids."""

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
    """The resolved config of a preset at this size."""
    sizes = {name: getattr(shape, name) for name in ("n_layer", "n_head", "n_embd", "block_size")}
    model = Model.model_validate({"preset": preset, **sizes})
    return resolve(Config(train=Train(model=model, data=Data(batch_size=shape.batch_size))))


def random_batch(shape: Shape) -> tuple[Array, Array]:
    """Inputs and targets (1, B, T) of random ids."""
    ids = np.random.default_rng(0).integers(shape.vocab_size, size=(1, shape.batch_size, shape.block_size + 1))
    return np.ascontiguousarray(ids[:, :, :-1]), np.ascontiguousarray(ids[:, :, 1:])


def preset_speed(preset: str, shape: Shape, machine: Machine, seconds: float = 1.0) -> dict[str, Any]:
    """Time a preset's training step. If it does not fit into the GPU's memory, half the rows are tried, and so on."""
    torch.manual_seed(0)
    config = config_of(preset, shape)
    recorded = is_worth_recording(config.train, machine.device, own_code=False)  # as a run of this shape would be
    machine = replace(machine, cuda_graphs=recorded)
    model = model_on(machine, config.train.model, shape.vocab_size, plugins())
    optimizer = build_optimizer(model, config.train.optim, plugins())
    step = step_of(model, optimizer, machine, config.train.optim.grad_clip, tokens)
    try:
        return step_speed(step, config.train, random_batch(shape), seconds)
    except torch.OutOfMemoryError:
        if shape.batch_size == 1:
            raise
    del model, optimizer, step
    torch.cuda.empty_cache()
    return preset_speed(preset, replace(shape, batch_size=shape.batch_size // 2), machine, seconds)
