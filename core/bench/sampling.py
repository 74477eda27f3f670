"""Measure the speed of sampling, in tokens per second."""

from __future__ import annotations

from typing import Any

import torch

from core.bench.training import Shape, config_of
from core.plugins.manager import plugins
from core.sampling.generate import generate
from core.training.machine import Machine, model_on
from core.training.timing import timed


def preset_sampling(preset: str, shape: Shape, rows: int, machine: Machine, seconds: float = 1.0) -> dict[str, Any]:
    """`sampling_speed` of a preset with fresh weights."""
    torch.manual_seed(0)
    model = model_on(machine, config_of(preset, shape).train.model, shape.vocab_size, plugins())
    return sampling_speed(model, rows, machine, seconds)


def sampling_speed(model: torch.nn.Module, rows: int, machine: Machine, seconds: float = 1.0) -> dict[str, Any]:
    """tokens_per_second of all rows together, with its range, for greedy sampling from one token to a full block."""
    prompts = torch.zeros(rows, 1, dtype=torch.long, device=machine.device)
    block_size: int = model.block_size  # type: ignore[assignment]
    tokens = rows * max(block_size - 1, 1)

    def write() -> None:
        for chosen in generate(model, prompts, max_new_tokens=max(block_size - 1, 1), temperature=0.0):
            chosen.tolist()  # as showing the text does

    timing = timed(write, seconds=seconds, warmup=1)
    return {
        "tokens_per_second": tokens / timing.median,
        "slowest": tokens / timing.slowest,
        "fastest": tokens / timing.fastest,
    }
