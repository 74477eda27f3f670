"""What a config leaves to the machine and the data: a run with "auto" goes in, its Machine comes out, and the run says what it is."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
from core.tracking.environment import code_hash
from core.tracking.run import Run
from core.training import compiling, memory
from core.training.machine import DTYPES, Machine, choose_machine, fastest_dtype, model_on
from core.training.measured import machine_key
from core.training.optimizers import build_optimizer
from core.training.peak import synchronise
from core.training.trainer import step_of
from core.training.tuning import Way, fastest_way, seconds_of, thread_counts

Array = npt.NDArray[np.int64]
LONG_STEP = 0.2  # seconds: of a longer one, fewer rows are timed


@dataclass(frozen=True)
class Settled:
    """The machine, and what was timed to choose it: name of a way to take the step -> milliseconds."""

    machine: Machine
    timings: dict[str, float]


def settle(
    run: Run,
    dataset: Dataset,
    code: ModuleType | None,
    *,
    timing: bool = True,
    say: Callable[[str], Any] | None = None,
) -> Settled:
    """Choose what the config leaves open, and write the choices into it.

    timing: time the real step where that decides. say: shows a line to the user; without it nothing is compiled that the
    config does not name. Raises UserError for a device that is not here, for a compiler that is missing where a step is to
    be compiled, and for data too short for its layout.
    """
    config = run.config.train
    runtime, data = config.runtime, config.data
    data.layout = layout_of(dataset, data)
    machine = choose_machine(runtime.device, runtime.dtype, runtime.compile, runtime.threads, runtime.attention)
    timings: dict[str, float] = {}
    if timing and machine.compile:
        compiling.refuse_without_compiler(machine.device)
    elif timing:
        with contextlib.suppress(memory.NoRoom), memory.noticing():  # then the run itself will say what fits
            machine, timings = by_timing(run, dataset, code, machine, say)
    runtime.device, runtime.dtype, runtime.compile = str(machine.device), machine.dtype_name, machine.compile
    runtime.attention, runtime.threads = machine.attention, torch.get_num_threads()
    for name in ("device", "dtype", "compile", "attention", "threads"):  # [sample.runtime] inherits what was chosen
        if getattr(run.config.sample.runtime, name) == "auto":
            setattr(run.config.sample.runtime, name, getattr(runtime, name))
    return Settled(machine, timings)


def by_timing(
    run: Run, dataset: Dataset, code: ModuleType | None, machine: Machine, say: Callable[[str], Any] | None
) -> tuple[Machine, dict[str, float]]:
    """The machine with the fastest of what is open, and what was timed to find it: name of a way -> milliseconds."""
    config, timings = run.config.train, dict[str, float]()
    runtime = config.runtime
    is_open = machine.device.type == "cpu" and "auto" in (runtime.dtype, runtime.attention, runtime.threads)
    may_compile = (
        runtime.compile == "auto" and is_long(config, machine.device) and not compiling.lacking(machine.device)
    )
    if not (is_open or (may_compile and say)):
        return machine, timings
    own_code = code_hash(run.experiment.folder) if hasattr(code, "build_model") else None
    rehearsal = Rehearsal(config, dataset, code, machine, own_code)
    way = rehearsal.first_way()
    if is_open and (choices := rehearsal.choices()):
        way, timings = fastest_way(rehearsal.key("step", way, choices), way, choices, rehearsal.step)
    if may_compile and say:
        key = rehearsal.key(f"{compiling.KEY} by {compiling.compiler_version(machine.device)}", way, {})
        pays, more = compiling.pays(key, way, rehearsal.whole_step, rehearsal.run_seconds, say)
        way, timings = replace(way, compile=pays), timings | more
    return rehearsal.machine(way), timings


def is_long(config: Train, device: torch.device) -> bool:
    """Whether compiling may be thought of. On a CPU few steps make a long run only where each is long, and gains nothing."""
    minutes = config.runtime.max_minutes
    if device.type not in ("cpu", "cuda"):  # elsewhere torch's compiler is a prototype
        return False
    if minutes is not None:
        return minutes >= 1
    return device.type == "cuda" or config.schedule.max_iters >= 1000


class Rehearsal:
    """The step of a run, taken by a model that is thrown away afterwards."""

    def __init__(
        self, config: Train, dataset: Dataset, code: ModuleType | None, machine: Machine, own_code: str | None = None
    ) -> None:
        """own_code: names the code of a model that is the experiment's own."""
        self.config, self.first, self.own_code = config, machine, own_code
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

    def key(self, what: str, way: Way, choices: dict[str, list[Any]]) -> str:
        """Everything that an answer to `what` depends on."""
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
        return f"{what}; {machine_key()}; {json.dumps(shape, sort_keys=True)}"

    def machine(self, way: Way) -> Machine:
        return Machine(self.first.device, DTYPES[way.dtype], way.compile, way.attention)

    def step(self, way: Way) -> Callable[[], Any]:
        """The step in one way: as many rows of a micro-batch as take a fifth of a second in the first way, for all ways."""
        return self.taking(way, *self.rows)

    def whole_step(self, way: Way) -> Callable[[], Any]:
        """The step in one way with all rows of a micro-batch: what is compiled is compiled for so many."""
        return self.taking(way, *self.micro_batch)

    def taking(self, way: Way, inputs: Array, targets: Array) -> Callable[[], Any]:
        machine = self.machine(way)
        forward = compiling.forward_of(self.model, machine)

        def take() -> None:
            use_attention(self.model, way.attention)
            step_of(self.model, self.optimizer, self.config.optim, machine, inputs, targets, forward)
            synchronise(machine.device)

        return take

    def run_seconds(self, micro_batch: float) -> float:
        """What the run takes, evaluations left out, if a micro-batch takes so many seconds."""
        minutes = self.config.runtime.max_minutes
        if minutes is not None:
            return 60 * minutes
        return float(self.config.schedule.max_iters * self.config.data.grad_accum_steps * micro_batch)

    @functools.cached_property
    def micro_batch(self) -> tuple[Array, Array]:
        """Inputs and targets (1, B, T)."""
        inputs, targets = (side[:1] for side in batch(self.dataset.train, self.config.data, 0, 0))
        return inputs, targets

    @functools.cached_property
    def rows(self) -> tuple[Array, Array]:
        """Inputs and targets (1, R, T) that every way is timed with. Few rows cost more each, so R is estimated twice."""
        (inputs, targets), count = self.micro_batch, 1
        for _ in range(2):
            if count < inputs.shape[1]:
                seconds = seconds_of(self.taking(self.first_way(), inputs[:, :count], targets[:, :count]))
                count = max(count, min(inputs.shape[1], int(count * LONG_STEP / seconds)))
        return inputs[:, :count], targets[:, :count]
