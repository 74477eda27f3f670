"""Choose the settings that are "auto": device, precision, compilation, attention, threads, layout."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

from core.config import Config, replaced
from core.data.batches import layout_of
from core.data.dataset import Dataset
from core.defaults import PRETRAINED_KIND
from core.lab.rehearsal import Rehearsal
from core.models.build import with_chosen_params
from core.plugins.discovery import Experiment
from core.plugins.manager import Plugins
from core.tracking.environment import code_hash
from core.training import compiling, graphed, memory
from core.training.machine import Machine, choose_machine
from core.training.tuning import fastest_way

OWN = ("build_model", "loss")  # functions of prepare.py that take part in a step


@dataclass(frozen=True)
class Settled:
    """A config without "auto", and its machine. timings: name of a way to take the step -> milliseconds."""

    config: Config
    machine: Machine
    timings: dict[str, float] = field(default_factory=dict)


def settle(
    experiment: Experiment, config: Config, dataset: Dataset, plugins: Plugins, *, timing: bool = True
) -> Settled:
    """Make every choice that the config leaves open.

    timing: time the real step if the choice depends on it. Raises UserError for a device that is not available, for a
    missing compiler if the step is compiled, and for data that is too short for its layout. What is fastest depends on how many
    processes share a machine, so with exact_across nothing is timed, and the number of threads is 1.
    """
    config = replaced(config, {"train.data.layout": layout_of(dataset, config.train.data)})
    if config.train.runtime.backend == "jax":
        config, timing = settled_for_jax(config), False  # what would be timed is torch's
    if config.train.runtime.exact_across:
        timing = False
        if config.train.runtime.threads == "auto":
            config = replaced(config, {"train.runtime.threads": 1})
    runtime = config.train.runtime
    machine = choose_machine(
        runtime.device, runtime.dtype, runtime.compile, runtime.threads, runtime.attention, runtime.float8
    )
    machine = replace(machine, cuda_graphs=records(config, machine, plugins))
    if runtime.compile == "auto":
        worth = compiling.is_worth_compiling(config.train, machine.device, recorded=machine.cuda_graphs)
        machine = replace(machine, compile=worth)
    config = replaced(config, {"train.model": with_chosen_params(config.train.model, plugins, machine.dtype_name)})
    timings: dict[str, float] = {}
    if (timing or runtime.exact_across) and machine.compile:
        compiling.refuse_without_compiler(machine.device)
    elif (
        timing and config.train.model.kind != PRETRAINED_KIND
    ):  # it would be loaded twice, which takes longer than it gains
        with contextlib.suppress(memory.NoRoom), memory.noticing():  # the run itself will report what fits
            machine, timings = by_timing(experiment, config, dataset, plugins, machine)
    return Settled(with_choices(config, machine), machine, timings)


def settled_for_jax(config: Config) -> Config:
    """The config with the choices that are not open where JAX takes the steps. On a CPU, its steps are faster in float32.

    Raises UserError if JAX has no device.
    """
    from core.jax.layout import is_accelerated

    dtype = "bfloat16" if is_accelerated() else "float32"
    chosen: dict[str, Any] = {"compile": False, "cuda_graphs": False, "dtype": dtype}
    runtime = config.train.runtime
    return replaced(config, {f"train.runtime.{name}": value for name, value in chosen.items() if getattr(runtime, name) == "auto"})  # fmt: skip


def records(config: Config, machine: Machine, plugins: Plugins) -> bool:
    """Whether the step is recorded."""
    asked = config.train.runtime.cuda_graphs
    own_code = any(hasattr(plugins.code, name) for name in OWN)
    return graphed.is_worth_recording(config.train, machine.device, own_code=own_code) if asked == "auto" else asked


def with_choices(config: Config, machine: Machine) -> Config:
    """The config with a machine's choices. Sampling inherits them for its own "auto" settings."""
    chosen = {
        "device": str(machine.device), "dtype": machine.dtype_name, "compile": machine.compile,
        "attention": machine.attention, "threads": machine.threads,
    }  # fmt: skip
    inherited = {name: value for name, value in chosen.items() if getattr(config.sample.runtime, name) == "auto"}
    changes = {f"train.runtime.{name}": value for name, value in chosen.items()}
    changes["train.runtime.cuda_graphs"] = machine.cuda_graphs
    return replaced(config, changes | {f"sample.runtime.{name}": value for name, value in inherited.items()})


def by_timing(
    experiment: Experiment, config: Config, dataset: Dataset, plugins: Plugins, machine: Machine
) -> tuple[Machine, dict[str, float]]:
    """The machine with the fastest choices for "auto", and the timings."""
    runtime = config.train.runtime
    if machine.device.type != "cpu" or "auto" not in (runtime.dtype, runtime.attention, runtime.threads):
        return machine, {}
    own = any(hasattr(plugins.code, name) for name in OWN)
    own_code = code_hash(experiment.folder) if own else None
    rehearsal = Rehearsal(config.train, dataset, plugins, machine, own_code)
    way = rehearsal.first_way()
    timings: dict[str, float] = {}
    if choices := rehearsal.choices():
        way, timings = fastest_way(rehearsal.key(way, choices), way, choices, rehearsal.step)
    return rehearsal.machine(way), timings
