"""What to say where a step does not fit into memory: the largest micro-batch that does, found by trying."""

from __future__ import annotations

import traceback

from core.errors import UserError
from core.tracking.run import Run
from core.training import memory
from core.training.step import Array, Step

MICRO_BATCHES = 4  # of a trial: memory is in pieces only after the first ones
SMALLER = "lower train.data.block_size, train.model.n_embd or train.model.n_layer"


def model_does_not_fit(run: Run) -> UserError:
    """Not even the model, or a single batch, finds the memory that it needs."""
    config = run.config.train
    return UserError(
        f"the model of {run.title} does not fit into the memory of {config.runtime.device}",
        place=f"train.model.block_size = {config.model.block_size}, n_embd = {config.model.n_embd}, n_layer = {config.model.n_layer}",
        remedy=f"Train a smaller one: {SMALLER}. Nothing was changed.",
    )


def step_does_not_fit(
    run: Run, take: Step, batch: tuple[Array, Array], error: BaseException, prefix: str = ""
) -> UserError:
    """What to tell the user of a run that `error` ended. Its frames are emptied: they hold what was computed.

    batch: inputs and targets (G, B, T). Takes steps with fewer and fewer of its rows; the weights in memory are of no use
    afterwards. prefix: of the advice.
    """
    for either in (error, error.__cause__):
        traceback.clear_frames(either.__traceback__ if either else None)
    take = take.eager()  # each number of rows would be compiled anew
    take.optimizer.zero_grad(set_to_none=True)
    data, (inputs, targets) = run.config.train.data, batch

    def step(rows: int) -> None:
        tried = rows + rows // 2  # room to spare: for an evaluation, the copy that is saved, and memory in pieces
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
            f"{rows} row{'s fit' if rows > 1 else ' fits'}. For the same step in parts: {prefix}"
            f"`train.data.batch_size={rows}` `train.data.grad_accum_steps={accum}`"
        )
    return UserError(
        f"a step of {run.title} does not fit into the memory of {run.config.train.runtime.device}",
        place=f"train.data.batch_size = {data.batch_size}",
        remedy=remedy,
    )
