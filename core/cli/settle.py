"""What a config leaves to the machine and the data: a run with "auto" goes in, its Machine comes out, and the run says what it is."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.config import Train
from core.data.batches import batch, layout_of
from core.data.dataset import Dataset
from core.models.attention import choose_attention
from core.models.build import parameter_count, use_attention
from core.models.gpt import GPT
from core.tracking.run import Run
from core.training import memory
from core.training.machine import DTYPES, Machine, choose_machine, fastest_dtype, model_on
from core.training.measured import machine_key
from core.training.optimizers import build_optimizer
from core.training.trainer import step_of
from core.training.tuning import Way, fastest_way, thread_counts

Array = npt.NDArray[np.int64]
LONG_STEP = 0.2  # seconds: of a longer one, fewer rows are timed


@dataclass(frozen=True)
class Settled:
    """The machine, and what was timed to choose it: name of a way to take the step -> milliseconds."""

    machine: Machine
    timings: dict[str, float]


def settle(run: Run, dataset: Dataset, code: ModuleType | None, *, timing: bool = True) -> Settled:
    """Choose what the config leaves open, and write the choices into it. timing: time the real step where that decides.

    Raises UserError for a device that is not here and for data too short for its layout.
    """
    config = run.config.train
    runtime, data = config.runtime, config.data
    data.layout = layout_of(dataset, data)
    machine = choose_machine(
        runtime.device, runtime.dtype, runtime.compile, runtime.threads, runtime.attention, long=is_long(config)
    )
    timings: dict[str, float] = {}
    is_open = "auto" in (runtime.dtype, runtime.attention, runtime.threads)
    if timing and is_open and machine.device.type == "cpu" and not machine.compile:
        rehearsal = Rehearsal(config, dataset, code, machine)
        if choices := rehearsal.choices():
            with contextlib.suppress(memory.NoRoom), memory.noticing():  # then the run itself will say what fits
                way, timings = fastest_way(rehearsal.key(choices), rehearsal.first_way(), choices, rehearsal.step)
                machine = rehearsal.machine(way)
    runtime.device, runtime.dtype, runtime.compile = str(machine.device), machine.dtype_name, machine.compile
    runtime.attention, runtime.threads = machine.attention, torch.get_num_threads()
    for name in ("device", "dtype", "compile", "attention", "threads"):  # [sample.runtime] inherits what was chosen
        if getattr(run.config.sample.runtime, name) == "auto":
            setattr(run.config.sample.runtime, name, getattr(runtime, name))
    return Settled(machine, timings)


def is_long(config: Train) -> bool:
    """Whether a run outlasts the minute that compiling takes."""
    minutes = config.runtime.max_minutes
    return config.schedule.max_iters >= 2000 if minutes is None else minutes >= 5


class Rehearsal:
    """The step of a run, taken by a model that is thrown away afterwards."""

    def __init__(self, config: Train, dataset: Dataset, code: ModuleType | None, machine: Machine) -> None:
        self.config, self.first = config, machine
        self.model = model_on(machine, config.model, dataset.encoder.vocab_size, code)
        self.optimizer = build_optimizer(self.model, config.optim)
        self.dataset = dataset

    def choices(self) -> dict[str, list[Any]]:
        """The open fields of a Way, and their values; those with one value are not open."""
        runtime, found = self.config.runtime, dict[str, list[Any]]()
        if runtime.dtype == "auto" and fastest_dtype(self.first.device) == torch.bfloat16:
            found["dtype"] = ["bfloat16", "float32"]
        if runtime.attention == "auto" and isinstance(self.model, GPT) and not self.config.model.dropout:
            found["attention"] = ["explicit", "sdpa", "sdpa32"]
        if runtime.threads == "auto" and torch.get_num_threads() > 1:
            found["threads"] = list(thread_counts(torch.get_num_threads()))
        return found

    def first_way(self) -> Way:
        """What is mostly best on such hardware at such a shape."""
        attention, model, data = self.first.attention, self.model, self.config.data
        if attention == "auto" and isinstance(model, GPT) and data.block_size:
            heads = data.batch_size * model.n_head
            attention = choose_attention(self.first.device, self.first.dtype, data.block_size, model.head_width, heads)
        return Way(self.first.dtype_name, attention, torch.get_num_threads())

    def key(self, choices: dict[str, list[Any]]) -> str:
        """Everything that the choice depends on."""
        config = self.config
        shape = {
            "model": config.model.model_dump(exclude={"init_from"}),
            "parameters": parameter_count(self.model),
            "batch": [config.data.batch_size, config.data.block_size],
            "optimizer": config.optim.name,
            "open": choices,
            "settled": [self.first.dtype_name, self.first.attention, torch.get_num_threads()],
        }
        return f"step; {machine_key()}; {json.dumps(shape, sort_keys=True)}"

    def machine(self, way: Way) -> Machine:
        return Machine(self.first.device, DTYPES[way.dtype], self.first.compile, way.attention)

    def step(self, way: Way) -> Callable[[], Any]:
        """The step in one way: as many rows of a micro-batch as take a fifth of a second in the first way, for all ways."""
        machine, (inputs, targets) = self.machine(way), self.rows

        def take() -> None:
            use_attention(self.model, way.attention)
            step_of(self.model, self.optimizer, self.config.optim, machine, inputs, targets)

        return take

    @functools.cached_property
    def rows(self) -> tuple[Array, Array]:
        """Inputs and targets (1, R, T) that every way is timed with. Few rows cost more each, so R is estimated twice."""
        inputs, targets = (side[:1] for side in batch(self.dataset.train, self.config.data, 0, 0))
        count = 1
        for _ in range(2):
            if count < inputs.shape[1]:
                seconds = self.seconds(inputs[:, :count], targets[:, :count])
                count = max(count, min(inputs.shape[1], int(count * LONG_STEP / seconds)))
        return inputs[:, :count], targets[:, :count]

    def seconds(self, inputs: Array, targets: Array) -> float:
        """Of a step in the first way, after one that prepares."""
        for _ in range(2):
            began = time.perf_counter()
            step_of(self.model, self.optimizer, self.config.optim, self.first, inputs, targets)
        return time.perf_counter() - began
