"""What to say where a step does not fit into memory: the largest part of a batch that does, found by trying."""

from __future__ import annotations

import traceback

from core.errors import UserError
from core.tracking.run import Run
from core.training import memory
from core.training.trainer import Parts, step_of


def does_not_fit(run: Run, parts: Parts, error: BaseException) -> UserError:
    """What to tell the user of a run that `error` ended. Its frames are emptied: they hold what was computed.

    Takes steps with fewer and fewer rows; the weights in memory are of no use afterwards.
    """
    for either in (error, error.__cause__):
        traceback.clear_frames(either.__traceback__ if either else None)
    parts.optimizer.zero_grad(set_to_none=True)
    data, optim = run.config.train.data, run.config.train.optim
    inputs, targets = parts.batch(0)

    def step(rows: int) -> None:
        tried = rows + rows // 4  # room to spare, for the copy that is saved and for memory in pieces
        try:
            step_of(parts.model, parts.optimizer, optim, parts.machine, inputs[:1, :tried], targets[:1, :tried])
        finally:
            parts.optimizer.zero_grad(set_to_none=True)

    rows = memory.most_rows(step, data.batch_size)
    if rows is None:
        remedy = "Not even one row fits: lower train.data.block_size, train.model.n_embd or train.model.n_layer."
    else:
        accum = data.grad_accum_steps * data.batch_size // rows
        remedy = (
            f"{rows} row{'s fit' if rows > 1 else ' fits'}. For the same step in parts: --fresh "
            f"-s train.data.batch_size={rows} -s train.data.grad_accum_steps={accum}"
        )
    return UserError(
        f"a step of {run.title} does not fit into the memory of {run.config.train.runtime.device}",
        place=f"train.data.batch_size = {data.batch_size}",
        remedy=remedy,
    )
