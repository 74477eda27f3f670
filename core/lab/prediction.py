"""Predict the time and memory that a run needs, from a few seconds of its steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from core.config import Config, Data, Train, replaced
from core.data.batches import block_size, packed, uses_rows, windows
from core.data.dataset import Dataset
from core.evaluation.evaluate import Evaluation
from core.process import available_bytes as available_memory
from core.tracking.run import Run
from core.training import memory
from core.training.peak import synchronise
from core.training.timing import step_speed
from core.training.trainer import Parts
from core.training.tuning import rows_within, seconds_of
from core.training.upkeep import row_seconds, save, shares

STEPS_AT_LEAST = 5  # that step_speed takes: 2 to warm up, 3 timed
TIMED_BATCHES, TIMED_PROMPTS = 3, 32  # of an evaluation, to estimate the rest


@dataclass(frozen=True)
class Prediction:
    """The expected cost of a run.

    steps, seconds: of the whole run. shares: of its time, 0 to 1. rows: of a micro-batch, as they were timed and measured.
    memory_bytes: the most in use at once, of the process with all its libraries or of the GPU; step_bytes, evaluation_bytes: how much
    of it a step and an evaluation added to what was in use before, such as the model; None if unknown. available_bytes: still free.
    """

    ms_per_step: float
    tokens_per_second: float
    steps: int
    seconds: float
    shares: dict[str, float]
    rows: int
    memory_bytes: int | None
    available_bytes: int | None
    step_bytes: int | None = None
    evaluation_bytes: int | None = None


def predict(run: Run, parts: Parts, dataset: Dataset, seconds: float = 5.0) -> Prediction:
    """Time the step for about `seconds`, then part of an evaluation, and a save into the run's folder.

    A step that takes too long is timed with fewer rows. Fresh weights give the longest answers, so later evaluations
    rarely take longer. Saving happens during training, so its share is an upper bound.
    """
    config, runtime = run.config.train, run.config.train.runtime
    part, tokens, device = config.data, config.data.tokens_per_step, parts.machine.device
    if config.objective.kind == "reward":
        with memory.measuring(device) as of_step:
            step, tokens = step_by_reward(parts)
    else:
        part = part_of(config.data, parts, seconds / STEPS_AT_LEAST)
        inputs, targets = (side[: part.grad_accum_steps, : part.batch_size] for side in parts.batch(0))
        small = config.model_copy(update={"data": part})
        with memory.measuring(device) as of_step:
            speed = step_speed(parts.step, small, (inputs, targets), seconds)
        step = speed["ms_per_step"] / 1000 * tokens / part.tokens_per_step
    with memory.measuring(device) as of_evaluation:
        evaluation = evaluation_estimate(dataset, run.config, parts, part.batch_size)
    parts_of_time = shares(runtime, step, evaluation, save(run, parts)["seconds"], row_seconds(run, parts))
    whole_step = step / (1 - sum(parts_of_time.values()))
    steps = steps_of(config, whole_step)
    return Prediction(
        ms_per_step=1000 * step,
        tokens_per_second=tokens / step,
        steps=steps,
        seconds=steps * whole_step if runtime.max_minutes is None else 60 * runtime.max_minutes,
        shares=parts_of_time,
        rows=part.batch_size,
        memory_bytes=max(filter(None, (of_step.most, of_evaluation.most)), default=None),
        available_bytes=available_bytes(device),
        step_bytes=of_step.rise,
        evaluation_bytes=of_evaluation.rise,
    )


def step_by_reward(parts: Parts) -> tuple[float, int]:
    """Seconds of one step with its answers, and the tokens of its rows. A model that does not end its answers takes longest."""
    parts.step(*parts.batch(0))
    begin = time.perf_counter()
    batch = parts.batch(1)
    parts.step(*batch)
    synchronise(parts.machine.device)
    return time.perf_counter() - begin, batch[0].size


def part_of(data: Data, parts: Parts, longest: float) -> Data:
    """The part of a step that takes at most `longest` seconds: all of it, or some rows of one micro-batch."""
    step = parts.step.eager()  # each number of rows would be compiled anew
    inputs, targets = (side[:1] for side in parts.batch(0))

    def seconds(rows: int) -> float:
        def take() -> None:
            step(inputs[:, :rows], targets[:, :rows])
            synchronise(parts.machine.device)

        return seconds_of(take)

    rows = rows_within(longest, data.batch_size, seconds, parts=data.grad_accum_steps)
    return data if rows is None else data.model_copy(update={"batch_size": rows, "grad_accum_steps": 1})


def steps_of(config: Train, whole_step: float) -> int:
    """The steps of a run, or of its time budget. whole_step: seconds, evaluations, saves and rows of metrics included."""
    minutes = config.runtime.max_minutes
    return config.schedule.max_iters if minutes is None else max(1, int(60 * minutes / whole_step))


def evaluation_estimate(dataset: Dataset, config: Config, parts: Parts, rows: int) -> float:
    """Estimate the seconds of an evaluation in training, from a few batches of `rows` rows and a few prompts."""
    train = config.train
    batches = math.ceil(validation_batches(dataset, train) * train.data.batch_size / rows)
    evaluation = Evaluation(dataset, replaced(config, {"train.data.batch_size": rows}), parts.machine)
    timed = min(TIMED_BATCHES, batches)
    parts.model.eval()
    evaluation.losses(parts.model, 1)
    began = time.perf_counter()
    evaluation.losses(parts.model, timed)
    seconds = (time.perf_counter() - began) / timed * batches
    for side, examples in evaluation.examples.items():
        if some := examples[:TIMED_PROMPTS]:
            began = time.perf_counter()
            evaluation.asked(parts.model, some, side)
            seconds += (time.perf_counter() - began) * len(examples) / len(some)
    parts.model.train()
    return seconds


def validation_batches(dataset: Dataset, config: Train) -> int:
    """The number of batches in an evaluation: the whole validation side, or `eval_iters`."""
    val, data = dataset.val, config.data
    size = block_size(data)
    begins, _ = packed(val, size) if uses_rows(val, data) else windows(val.tokens, size)
    batches = math.ceil(len(begins) / data.batch_size)
    return min(batches, config.runtime.eval_iters or batches)


def available_bytes(device: torch.device) -> int | None:
    """The memory that is still free, of the GPU or the system."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()
