"""Errors for a model or step that does not fit into memory. They suggest the largest micro-batch that does."""

from __future__ import annotations

import traceback

from core.errors import UserError
from core.tracking.run import Run
from core.training import memory
from core.training.step import Array, Step

MICRO_BATCHES = 4  # in a trial: memory becomes fragmented only after the first ones
SMALLER = "lower train.data.block_size, train.model.n_embd or train.model.n_layer"


def model_does_not_fit(run: Run) -> UserError:
    """The error for a model, or a batch, that does not fit into memory."""
    config = run.config.train
    return UserError(
        f"the model of {run.title} does not fit into the memory of {config.runtime.device}",
        place=f"train.model.block_size = {config.model.block_size}, n_embd = {config.model.n_embd}, n_layer = {config.model.n_layer}",
        remedy=f"Train a smaller one: {SMALLER}. Nothing was changed.",
    )


def shared_step_does_not_fit(run: Run) -> UserError:
    """The error for a run with divided weights that memory has ended. One process cannot try how many rows fit."""
    data, device = run.config.train.data, run.config.train.runtime.device
    return UserError(
        f"a step of {run.title} does not fit into the memory of {device}, with its weights divided among processes",
        place=f"train.data.batch_size = {data.batch_size}",
        remedy=f"Start more processes, or halve train.data.batch_size and double train.data.grad_accum_steps (now {data.grad_accum_steps}).",
    )


def step_does_not_fit(
    run: Run, take: Step, batch: tuple[Array, Array], error: BaseException, prefix: str = ""
) -> UserError:
    """The error for a run that `error` ended. Takes steps with fewer rows to find how many fit.

    Clears the frames of `error`, which keep tensors alive. The weights in memory are useless afterwards. batch: inputs
    and targets (G, B, T). prefix: of the settings in the advice.
    """
    for either in (error, error.__cause__):
        traceback.clear_frames(either.__traceback__ if either else None)
    take = take.eager()  # each number of rows would be compiled anew
    take.optimizer.zero_grad(set_to_none=True)
    data, (inputs, targets) = run.config.train.data, batch

    def step(rows: int) -> None:
        tried = rows + rows // 2  # spare memory for an evaluation, the copy to be saved, and fragmentation
        parts_of_batch = min(MICRO_BATCHES, inputs[0].size // (tried * inputs.shape[-1]))
        shape = (parts_of_batch, tried, inputs.shape[-1])
        x, y = (side[0, : shape[0] * shape[1]].reshape(shape) for side in (inputs, targets))
        try:
            take(x, y)
        finally:
            take.optimizer.zero_grad(set_to_none=True)

    rows = memory.most_rows(step, data.batch_size)
    if rows is None:
        remedy = f"Not even one row fits: {SMALLER}."
    else:
        accum = data.grad_accum_steps * data.batch_size // rows
        remedy = (
            f"{rows} row{'s fit' if rows > 1 else ' fits'}. For the same step in smaller parts: {prefix}"
            f"`train.data.batch_size={rows}` `train.data.grad_accum_steps={accum}`"
        )
    return UserError(
        f"a step of {run.title} does not fit into the memory of {take.where}",
        place=f"train.data.batch_size = {data.batch_size}",
        remedy=remedy,
    )
