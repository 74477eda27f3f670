"""Predict how long a run will take and how much memory it needs, from a few seconds of its own steps."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import torch

from core.config import Config, Data, Train, replaced
from core.data.batches import block_size, packed, uses_rows, windows
from core.data.dataset import Dataset
from core.evaluation.evaluate import Evaluation
from core.evaluation.exact_match import greedy_answers
from core.process import available_bytes as available_memory
from core.tracking.run import Run
from core.training.peak import synchronise
from core.training.timing import step_speed
from core.training.trainer import Parts
from core.training.upkeep import row_seconds, save, shares

STEPS_AT_LEAST = 5  # in the time for timing: step_speed takes so many
TIMED_BATCHES, TIMED_PROMPTS = 3, 32  # of an evaluation, from which all of it is estimated


@dataclass(frozen=True)
class Prediction:
    """steps, seconds: of the whole run. shares: of its time, 0 to 1. rows: of a micro-batch, which were timed and had the
    memory. memory_bytes: the highest so far, of the process or the GPU; None where the system does not say.
    available_bytes: what is left beside that."""

    ms_per_step: float
    tokens_per_second: float
    steps: int
    seconds: float
    shares: dict[str, float]
    rows: int
    memory_bytes: int | None
    available_bytes: int | None


def predict(run: Run, parts: Parts, dataset: Dataset, seconds: float = 5.0) -> Prediction:
    """Time the step for about so many seconds, then a part of an evaluation, and a save into the run's folder.

    Of a step that is too long for that, fewer rows are taken. Weights are fresh, so answers are as long as they may be: an
    evaluation is seldom longer later on. Saving goes on beside the training, so its share is an upper bound.
    """
    config, runtime = run.config.train, run.config.train.runtime
    part = part_of(config, parts, seconds / STEPS_AT_LEAST)
    inputs, targets = (side[: part.grad_accum_steps, : part.batch_size] for side in parts.batch(0))
    small = config.model_copy(update={"data": part})
    speed = step_speed(parts.step(config), small, (inputs, targets), seconds)
    step = speed["ms_per_step"] / 1000 * config.data.tokens_per_step / part.tokens_per_step
    evaluation = evaluation_estimate(dataset, run.config, parts, part.batch_size)
    parts_of_time = shares(runtime, step, evaluation, save(run, parts)["seconds"], row_seconds(run, parts))
    whole_step = step / (1 - sum(parts_of_time.values()))
    steps = steps_of(config, whole_step)
    return Prediction(
        ms_per_step=1000 * step,
        tokens_per_second=config.data.tokens_per_step / step,
        steps=steps,
        seconds=steps * whole_step if runtime.max_minutes is None else 60 * runtime.max_minutes,
        shares=parts_of_time,
        rows=part.batch_size,
        memory_bytes=peak_bytes(parts.machine.device),
        available_bytes=available_bytes(parts.machine.device),
    )


def part_of(config: Train, parts: Parts, longest: float) -> Data:
    """As much of a step as takes `longest` seconds at most: all of it, else some rows of one micro-batch.

    Few rows cost more each, so their number is estimated twice.
    """
    data, rows = config.data, 1
    # Not compiled: each number of rows would be compiled anew.
    take = parts.step(config).eager()
    inputs, targets = (side[:1] for side in parts.batch(0))
    for _ in range(2):
        for _ in range(2):  # the first one prepares
            began = time.perf_counter()
            take(inputs[:, :rows], targets[:, :rows])
            synchronise(parts.machine.device)
            seconds = time.perf_counter() - began
        if seconds * data.grad_accum_steps * data.batch_size / rows <= longest:
            return data
        rows = max(rows, min(data.batch_size, int(rows * longest / seconds)))
    return data.model_copy(update={"batch_size": rows, "grad_accum_steps": 1})


def steps_of(config: Train, whole_step: float) -> int:
    """Steps of a run, or those that its budget in time has room for. whole_step: seconds, with all that stands around a step."""
    minutes = config.runtime.max_minutes
    return config.schedule.max_iters if minutes is None else max(1, int(60 * minutes / whole_step))


def evaluation_estimate(dataset: Dataset, config: Config, parts: Parts, rows: int) -> float:
    """Seconds of one evaluation while training, from a few batches of so many rows and a few prompts."""
    train = config.train
    batches = math.ceil(validation_batches(dataset, train) * train.data.batch_size / rows)
    evaluation = Evaluation(dataset, replaced(config, {"train.data.batch_size": rows}), parts.machine)
    timed = min(TIMED_BATCHES, batches)
    parts.model.eval()
    evaluation.losses(parts.model, 1)
    began = time.perf_counter()
    evaluation.losses(parts.model, timed)
    seconds = (time.perf_counter() - began) / timed * batches
    for examples in evaluation.examples.values():
        if some := examples[:TIMED_PROMPTS]:
            began = time.perf_counter()
            greedy_answers(parts.model, dataset, some, parts.machine)
            seconds += (time.perf_counter() - began) * len(examples) / len(some)
    parts.model.train()
    return seconds


def validation_batches(dataset: Dataset, config: Train) -> int:
    """Batches of an evaluation: of the whole validation side, or `eval_iters`."""
    val, data = dataset.val, config.data
    size = block_size(data)
    begins, _ = packed(val, size) if uses_rows(val, data) else windows(val.tokens, size)
    batches = math.ceil(len(begins) / data.batch_size)
    return min(batches, config.runtime.eval_iters or batches)


def peak_bytes(device: torch.device) -> int | None:
    """The most memory so far: the GPU's, or of main memory this process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def available_bytes(device: torch.device) -> int | None:
    """What is still free there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()
