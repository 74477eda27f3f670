"""The content of a run's summary.json at its start and end, and the lines printed then."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import torch

from core.data.batches import packing_of
from core.data.dataset import Dataset
from core.lab.assemble import Fresh
from core.models.build import parameter_count
from core.process import launch
from core.report.run_report import duration
from core.tracking.environment import environment, version
from core.tracking.figures import loss_text, prompts_in_words, share_text
from core.tracking.metrics import COLUMNS, accuracy_by_group, speed_text
from core.tracking.run import Run, read_summary
from core.training.compiling import compiler_version
from core.training.progress import Progress, delay_of
from core.training.speed import Speed
from core.training.step import Step


def surroundings(run: Run) -> dict[str, Any]:
    """The environment of a run. It includes the compiler if the step is compiled."""
    found, runtime = environment(run.experiment.folder), run.config.train.runtime
    if runtime.compile is True:
        found["compiler"] = compiler_version(torch.device(runtime.device))
    if runtime.backend == "jax":
        from core.jax.layout import devices_here

        found |= {"jax": version("jax"), "jax_devices": devices_here()}
    return found


def layout_of_weights(fresh: Fresh) -> str:
    """Where the weights are, in the words of train.runtime.parallel: divided among processes, or whole in each. JAX decides later."""
    if fresh.by_jax:
        return fresh.settled.config.train.runtime.parallel
    return "fsdp" if fresh.divided else "ddp"


def opening(run: Run, dataset: Dataset, fresh: Fresh, command: str) -> dict[str, Any]:
    """The summary at the start. The status is "interrupted", because a killed process cannot write it later."""
    runtime, data = run.config.train.runtime, run.config.train.data
    started = read_summary(run.folder).get("started") or datetime.datetime.now().isoformat()
    return {
        "experiment": run.experiment.name,
        "run": run.name,
        "started": started,
        "status": "interrupted",
        "seed": runtime.seed,
        "steps": 0,
        "parameters": parameter_count(fresh.model),
        "device": runtime.device,
        "dtype": runtime.dtype,
        "choices": {
            **runtime.model_dump(include={"dtype", "attention", "backend", "compile", "cuda_graphs", "threads"}),
            "processes": fresh.settled.machine.processes,
            "parallel": layout_of_weights(fresh),
            "restarts": launch().restarts,
            "milliseconds": fresh.settled.timings,
        },
        "dataset_fingerprint": dataset.fingerprint,
        "data_hash": dataset.data_hash,
        "val_text": dataset.text_hash("val"),
        "environment": surroundings(run),
        "command": command,
        **({} if data.packing == "none" else packing_of(dataset.train, data).lost),
    } | ({"description": run.description} if run.description else {})


def closing(progress: Progress, speed: Speed) -> dict[str, Any]:
    """The summary at the end, with the validation figures of checkpoint `best`."""
    best = progress.best_evaluation
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "train_seconds": round(progress.seconds, 3),
        "wall_seconds": round(progress.wall_seconds, 3),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1) if progress.seconds else None,
        **speed.summary(progress.step, progress.tokens, progress.seconds),
        "skipped_batches": progress.skipped,
        "best_val_loss": progress.best_val_loss,
        "best_step": progress.best_step,
        "final_train_loss": progress.train_loss,
        "final_val_loss": progress.evaluation.get("val_loss"),
        "side": "val",
        "bits_per_byte": best.get("bits_per_byte"),
        "accuracy": best.get("val_accuracy"),
        "accuracy_by_group": accuracy_by_group(best),
        "prompts": None,
        "prompts_by_group": None,
        "val_accuracy": best.get("val_accuracy"),
        "held_out": None,
        "metrics": own_of(best) or None,
        "reached": progress.reached or None,
        "delay": delay_of(progress.reached),
        "stopped_by": progress.stopped_by or None,
    }


def own_of(row: dict[str, float]) -> dict[str, float]:
    """The metrics of prepare.py's `evaluate` in a row of metrics."""
    ours = (*COLUMNS, "val_accuracy", "train_accuracy", "held_out_accuracy", "held_out_loss")
    return {name: value for name, value in row.items() if name.partition("/")[0] not in ours}


def first_line(run: Run, dataset: Dataset, step: Step, progress: Progress) -> str:
    """The line before training: what is trained."""
    config, minutes = run.config.train, run.config.train.runtime.max_minutes
    start = f"{config.schedule.max_iters} steps" if minutes is None else f"for {minutes:g} minute{'s' * (minutes != 1)}"
    if progress.step:
        left = "" if minutes is None else f", {duration(max(0.0, 60 * minutes - progress.wall_seconds))} left"
        start = f"resumed at step {progress.step}{left}"
    if again := launch().restarts:
        start += f", restart {again} by torchrun"
    return (
        f"training {run.title}: {parameter_count(step.model):,} parameters, {dataset.train.tokens:,} tokens, "
        f"vocabulary {dataset.encoder.vocab_size:,}; {start} on {step.where} in {config.runtime.dtype}"
    )


def last_line(run: Run, progress: Progress, speed: Speed, summary: Mapping[str, Any]) -> str:
    """The line after training: the result, of checkpoint `best`."""
    seconds = max(progress.seconds, 1e-9)
    figures = speed_text(speed.figures(progress.tokens / seconds, 1000 * seconds / max(progress.step, 1))).replace(
        "  ", ", "
    )
    pace = f"{duration(progress.seconds)} of training, {figures}"
    if run.config.train.runtime.max_minutes is not None:
        pace += f", {duration(progress.wall_seconds)} in all"
    early = f". Stopped early: {progress.stopped_by}." if progress.stopped_by else ""
    assert progress.best_val_loss is not None  # a run that ends by itself was evaluated at its last step
    best = f"val loss {loss_text(progress.best_val_loss)}"
    if prompts := prompts_in_words([summary]):
        best += f", exact match {share_text(summary['accuracy'])} of {prompts}"
    if (held_out := summary.get("held_out") or {}).get("prompts"):
        best += f", {share_text(held_out['accuracy'])} of {held_out['prompts']:,} held_out() prompts"
    return f"trained {run.title}: best checkpoint at step {progress.best_step}, {best}; {pace}{early}"
