"""The list of what `bench` measures, for the machine or for an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from core.bench.preparing import preparing_speed
from core.bench.sampling import preset_sampling, sampling_speed
from core.bench.start import first_step
from core.bench.training import Shape, preset_speed
from core.tracking.run import Run
from core.training.machine import DTYPES, Machine
from core.training.peak import peak_or_none
from core.training.timing import step_speed
from core.training.trainer import Parts
from core.training.upkeep import evaluation_seconds, row_seconds, save, shares

PRESETS = ("gpt2", "modern")
SMALL = Shape(n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=12)  # nanoGPT's CPU setting
SHAPES = (SMALL, replace(SMALL, batch_size=64), Shape(6, 6, 384, block_size=256, batch_size=16))
SAMPLED = ((SMALL, (1, 10, 64)), (SHAPES[2], (1, 10)))  # a shape, and how many rows are sampled at once
GPT2 = Shape(12, 12, 768, block_size=1024, batch_size=1, vocab_size=50304)  # as nanoGPT pads it
GPT2_GPU_ROWS = 32  # halved until they fit
PREPARED = (("char", 40), ("bpe", 20))  # encoder, megabytes of text: about a second each


@dataclass(frozen=True)
class Case:
    """One line of a table. measure() -> figures, named like the columns; None if a figure is not available."""

    section: str
    name: str
    measure: Callable[[], dict[str, Any]]


def machine_cases(machine: Machine, threads: int, *, full: bool) -> list[Case]:
    """The table for the machine. full: with the smallest GPT-2, minutes on a CPU. threads: 0 is torch's default."""
    large = replace(GPT2, batch_size=1 if machine.device.type == "cpu" else GPT2_GPU_ROWS)
    shapes = (*SHAPES, large) if full else SHAPES
    return [
        *(Case("matrix products", name, partial(fastest_product, machine, dtype)) for name, dtype in DTYPES.items()),
        *(
            Case("training", f"{preset:<6}  {shape.name}", partial(preset_speed, preset, shape, machine))
            for shape in shapes
            for preset in PRESETS
        ),
        *(
            Case("sampling", f"{preset:<6}  {shape.model_name}, batch {rows}", partial(preset_sampling, preset, shape, rows, machine))
            for shape, batches in SAMPLED
            for rows in batches
            for preset in PRESETS
        ),
        *(
            Case("prepare", f"{encoder}, {size} MB of text", partial(preparing_speed, encoder, size))
            for encoder, size in PREPARED
        ),
        Case("start", "from the command to the first step", partial(first_step, threads)),
    ]  # fmt: skip


def experiment_cases(run: Run, parts: Parts) -> list[Case]:
    """The table for one experiment. Measure in this order, because the shares are computed from earlier cases.

    run: a temporary one. Its folder is written to.
    """
    config, seconds = run.config.train, dict[str, float]()

    def step() -> dict[str, Any]:
        figures = step_speed(parts.step, config, parts.batch(0))
        seconds["step"] = figures["ms_per_step"] / 1000
        return figures

    def around(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        figures = measure()
        seconds[name] = figures["seconds"]
        return figures

    def share(name: str) -> dict[str, Any]:
        return {"share": shares(config.runtime, **seconds)[name]}

    runtime = config.runtime
    return [
        Case("training", f"{config.data.batch_size} rows of {config.data.block_size} tokens{', compiled' * parts.machine.compile}", step),
        Case("around the steps", "evaluation", partial(around, "evaluation", lambda: {"seconds": evaluation_seconds(parts)})),
        Case("around the steps", "checkpoint", partial(around, "checkpoint", lambda: save(run, parts))),
        Case("around the steps", "row of metrics", partial(around, "row", lambda: {"seconds": row_seconds(run, parts)})),
        Case("share of training time", f"evaluations, every {runtime.eval_interval} steps", partial(share, "evaluations")),
        Case("share of training time", f"checkpoints, every {runtime.checkpoint_interval} steps and best", partial(share, "checkpoints")),
        Case("share of training time", f"rows of metrics, every {runtime.log_interval} steps", partial(share, "rows of metrics")),
        *(Case("sampling", f"batch {rows}", partial(sampling_speed, parts.model, rows, parts.machine)) for rows in (1, 64)),
    ]  # fmt: skip


def fastest_product(machine: Machine, dtype: torch.dtype) -> dict[str, Any]:
    """flops: FLOP/s of the machine's matrix products, measured again."""
    return {"flops": peak_or_none(machine.device, dtype, again=True)}
