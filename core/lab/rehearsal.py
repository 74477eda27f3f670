"""Take a run's step with a temporary model, to find the fastest way to take it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from core.config import Train
from core.data.batches import batch
from core.data.dataset import Dataset
from core.lab.own import objective_of
from core.models.attention import choose_attention
from core.models.build import parameter_count, use_attention
from core.models.gpt import GPT
from core.plugins.manager import Plugins
from core.training.machine import DTYPES, Machine, fastest_dtype, model_on
from core.training.measured import machine_key
from core.training.optimizers import build_optimizer
from core.training.peak import synchronise
from core.training.step import Array, Step
from core.training.tuning import Way, rows_within, seconds_of, thread_counts

LONG_STEP = 0.2  # seconds: a longer step is timed with fewer rows


class Rehearsal:
    """A temporary model, optimizer and batch, like those of a run."""

    def __init__(
        self, config: Train, dataset: Dataset, plugins: Plugins, machine: Machine, own_code: str | None = None
    ) -> None:
        """own_code: a hash of the experiment's code, if it has a model or a loss of its own."""
        self.config, self.first, self.own_code = config, machine, own_code
        self.model = model_on(machine, config.model, dataset.encoder.vocab_size, plugins)
        self.optimizer = build_optimizer(self.model, config.optim, plugins)
        self.dataset, self.objective = dataset, objective_of(config.objective, plugins)

    def choices(self) -> dict[str, list[Any]]:
        """The fields of a Way that are to be chosen, with their possible values."""
        runtime, found = self.config.runtime, dict[str, list[Any]]()
        if runtime.dtype == "auto" and fastest_dtype(self.first.device) == torch.bfloat16:
            found["dtype"] = ["bfloat16", "float32"]
        if runtime.attention == "auto" and isinstance(self.model, GPT) and not self.config.model.dropout:
            found["attention"] = ["explicit", "sdpa", "sdpa32"]
        if runtime.threads == "auto" and self.first.threads > 1:
            found["threads"] = list(thread_counts(self.first.threads))
        return found

    def first_way(self) -> Way:
        """What is usually best on this hardware for these shapes."""
        attention, model, data = self.first.attention, self.model, self.config.data
        if attention == "auto" and isinstance(model, GPT) and data.block_size:
            heads = data.batch_size * model.n_head
            attention = choose_attention(self.first.device, self.first.dtype, data.block_size, model.head_width, heads)
        return Way(self.first.dtype_name, attention, self.first.threads)

    def key(self, way: Way, choices: dict[str, list[Any]]) -> str:
        """Everything that the fastest way depends on."""
        config = self.config
        shape = {
            "model": config.model.model_dump(exclude={"init_from"}),
            "parameters": parameter_count(self.model),
            "code": self.own_code,
            "batch": [config.data.batch_size, config.data.block_size],
            "optimizer": config.optim.name,
            "open": choices,
            "settled": asdict(way),
        }
        return f"step; {machine_key()}; {json.dumps(shape, sort_keys=True)}"

    def machine(self, way: Way) -> Machine:
        return replace(self.first, dtype=DTYPES[way.dtype], attention=way.attention, threads=way.threads)

    def step(self, way: Way) -> Callable[[], Any]:
        """The step in one way. All ways use the same rows: as many as take LONG_STEP seconds in the first way."""
        return self.taking(way, *self.rows)

    def taking(self, way: Way, inputs: Array, targets: Array) -> Callable[[], Any]:
        machine = self.machine(way)
        step = Step(self.model, self.optimizer, machine, self.config.optim.grad_clip, self.objective)

        def take() -> None:
            use_attention(self.model, way.attention)
            step(inputs, targets)
            synchronise(machine.device)

        return take

    @functools.cached_property
    def rows(self) -> tuple[Array, Array]:
        """Inputs and targets (1, R, T) for all ways."""
        inputs, targets = (side[:1] for side in batch(self.dataset.train, self.config.data, 0, 0))

        def seconds(rows: int) -> float:
            return seconds_of(self.taking(self.first_way(), inputs[:, :rows], targets[:, :rows]))

        count = rows_within(LONG_STEP, inputs.shape[1], seconds)
        return inputs[:, :count], targets[:, :count]
