"""How long a run will take and how much memory, from a few seconds of its own steps: a run's parts in, a Prediction out."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import torch

from core.bench.experiment import row_seconds, save, shares
from core.bench.training import step_speed
from core.config import Train
from core.data.batches import block_size, packed, uses_rows, windows
from core.data.dataset import Dataset
from core.evaluation.evaluate import Evaluation
from core.evaluation.exact_match import greedy_answers
from core.tracking.run import Run
from core.training import memory
from core.training.trainer import Parts

TIMED_BATCHES, TIMED_PROMPTS = 3, 32  # of an evaluation, from which all of it is estimated


@dataclass(frozen=True)
class Prediction:
    """steps, seconds: of the whole run. shares: of its time, 0 to 1. memory_bytes: the highest so far, of the process or
    the GPU; None where the system does not say. available_bytes: what is left beside that."""

    ms_per_step: float
    tokens_per_second: float
    steps: int
    seconds: float
    shares: dict[str, float]
    memory_bytes: int | None
    available_bytes: int | None


def predict(run: Run, parts: Parts, dataset: Dataset, seconds: float = 5.0) -> Prediction:
    """Time the step for about so many seconds, then a part of an evaluation, and a save into the run's folder.

    Weights are fresh, so answers are as long as they may be; an evaluation is seldom longer later on. Saving goes on beside
    the training, so its share is an upper bound.
    """
    config, runtime = run.config.train, run.config.train.runtime
    speed = step_speed(parts.model, parts.optimizer, config, parts.machine, parts.batch, seconds)
    step, evaluation = speed["ms_per_step"] / 1000, evaluation_estimate(run, parts, dataset)
    parts_of_time = shares(runtime, step, evaluation, save(run, parts)["seconds"], row_seconds(run, parts))
    whole_step = step / (1 - sum(parts_of_time.values()))
    steps = steps_of(config, whole_step)
    return Prediction(
        ms_per_step=speed["ms_per_step"],
        tokens_per_second=speed["tokens_per_second"],
        steps=steps,
        seconds=steps * whole_step if runtime.max_minutes is None else 60 * runtime.max_minutes,
        shares=parts_of_time,
        memory_bytes=peak_bytes(parts.machine.device),
        available_bytes=available_bytes(parts.machine.device),
    )


def steps_of(config: Train, whole_step: float) -> int:
    """Steps of a run, or those that its budget in time has room for. whole_step: seconds, with all that stands around a step."""
    minutes = config.runtime.max_minutes
    return config.schedule.max_iters if minutes is None else max(1, int(60 * minutes / whole_step))


def evaluation_estimate(run: Run, parts: Parts, dataset: Dataset) -> float:
    """Seconds of one evaluation while training, from a few batches and a few prompts."""
    evaluation = Evaluation(dataset, run.config, parts.machine)
    batches = validation_batches(dataset, run.config.train)
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
    return memory.available_bytes()
