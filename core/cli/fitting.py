"""What to say where a step does not fit into memory: the largest part of a batch that does, found by trying."""

from __future__ import annotations

import traceback

from core.errors import UserError
from core.tracking.run import Run
from core.training import memory
from core.training.trainer import Parts, step_of

MICRO_BATCHES = 4  # of a trial: memory is in pieces only after the first ones


def does_not_fit(run: Run, parts: Parts, error: BaseException, options: str = "") -> UserError:
    """What to tell the user of a run that `error` ended. Its frames are emptied: they hold what was computed.

    Takes steps with fewer and fewer rows; the weights in memory are of no use afterwards.
    """
    for either in (error, error.__cause__):
        traceback.clear_frames(either.__traceback__ if either else None)
    parts.optimizer.zero_grad(set_to_none=True)
    data, optim = run.config.train.data, run.config.train.optim
    inputs, targets = parts.batch(0)

    def step(rows: int) -> None:
        tried = rows + rows // 2  # room to spare: for an evaluation, the copy that is saved, and memory in pieces
        parts_of_batch = min(MICRO_BATCHES, inputs[0].size // (tried * inputs.shape[-1]))
        shape = (parts_of_batch, tried, inputs.shape[-1])
        x, y = (side[0, : shape[0] * shape[1]].reshape(shape) for side in (inputs, targets))
        try:
            step_of(parts.model, parts.optimizer, optim, parts.machine, x, y)
        finally:
            parts.optimizer.zero_grad(set_to_none=True)

    rows = memory.most_rows(step, data.batch_size)
    if rows is None:
        remedy = "Not even one row fits: lower train.data.block_size, train.model.n_embd or train.model.n_layer."
    else:
        accum = data.grad_accum_steps * data.batch_size // rows
        remedy = (
            f"{rows} row{'s fit' if rows > 1 else ' fits'}. For the same step in parts: {options}"
            f"-s train.data.batch_size={rows} -s train.data.grad_accum_steps={accum}"
        )
    return UserError(
        f"a step of {run.title} does not fit into the memory of {run.config.train.runtime.device}",
        place=f"train.data.batch_size = {data.batch_size}",
        remedy=remedy,
    )
