"""Time what a run does between steps: evaluations, checkpoints, rows of metrics."""

from __future__ import annotations

import time
from typing import Any

import torch

from core.config import Runtime
from core.tracking.metrics import MetricsFile
from core.tracking.run import Run
from core.training import progress as saving
from core.training.progress import Progress
from core.training.step import clip_gradient, trained
from core.training.timing import timed
from core.training.trainer import Parts


def evaluation_seconds(parts: Parts) -> float:
    """Seconds of one evaluation while training. Fresh weights do not end their answers, so a later one rarely takes longer."""
    parts.model.eval()
    with torch.inference_mode():
        begin = time.perf_counter()
        parts.evaluate(parts.model, 0)
        seconds = time.perf_counter() - begin
    parts.model.train()
    return seconds


def save(run: Run, parts: Parts) -> dict[str, Any]:
    """seconds and megabytes of one checkpoint in the run's folder. Take a step first: only then has the optimizer state."""

    def once() -> None:
        parts.step.bring_back()
        saving.copy(run, "last", Progress(), parts.model, parts.optimizer, parts.identity)()

    timing = timed(once, seconds=0.5, most=5, warmup=1)
    size = sum(path.stat().st_size for path in (run.checkpoints / "last").iterdir())
    return {"seconds": timing.median, "megabytes": size / 1e6}


def row_seconds(run: Run, parts: Parts) -> float:
    """Seconds of one row of metrics: two norms and a line of metrics.csv, without trackers, hooks and the screen."""
    for parameter in trained(parts.model):
        parameter.grad = torch.ones_like(parameter)
    metrics = MetricsFile(run.folder, [], keep_until=0)
    seconds = timed(
        lambda: metrics.append({"grad_norm": float(clip_gradient(parts.model, 0.0)), "param_norm": parts.step.norm()}),
        seconds=0.2,
    ).median
    metrics.close()
    parts.optimizer.zero_grad(set_to_none=True)
    return seconds


def shares(runtime: Runtime, step: float, evaluation: float, checkpoint: float, row: float) -> dict[str, float]:
    """The share of training time, 0 to 1, that each takes at the configured intervals. Arguments: seconds of one.

    We assume that every evaluation finds a best state and saves it.
    """
    per_step = {
        "evaluations": evaluation / runtime.eval_interval,
        "checkpoints": checkpoint / runtime.checkpoint_interval + checkpoint / runtime.eval_interval,
        "rows of metrics": row / runtime.log_interval,
    }
    total = step + sum(per_step.values())
    return {name: seconds / total for name, seconds in per_step.items()}
