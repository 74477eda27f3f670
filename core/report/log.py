"""EXPERIMENT_LOG.md: an entry per run, the newest last."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import files
from core.tracking.begin import flat
from core.tracking.run import Run, read_config, read_summary

HEAD = "# Experiment log\n\nOne entry per run, written by `loop` and `train`.\n"
# Where a run lives and what it is called says nothing about what was tried.
NOT_SETTINGS = ("train.runtime.device", "train.runtime.dtype", "train.runtime.compile", "sample.")


def write_log_entry(run: Run) -> Path:
    """Add the run's entry to the log, or replace the one that an earlier try of the same run wrote. Returns the log's path."""
    path = run.experiment.folder / "EXPERIMENT_LOG.md"
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    mark = f"<!-- run {run.name} -->"
    kept = [part for part in text.split("\n## ") if mark not in part]
    files.write_text(path, "\n## ".join([*(part.rstrip("\n") + "\n" for part in kept), entry(run, mark)]))
    return path


def entry(run: Run, mark: str) -> str:
    """One run in Markdown, without the heading's sharps."""
    summary = read_summary(run.folder)
    place = run.folder.relative_to(run.experiment.folder).as_posix()
    lines = [
        f"{datetime.date.today().isoformat()} {run.name} {mark}",
        "",
        *([f"{summary['description']}", ""] if summary.get("description") else []),
        f"- Changed: {changes(run)}",
        f"- Result: {result(summary)}",
        f"- Command: `{summary.get('command', '')}`",
        f"- Files: [report]({place}/report.html), [curves]({place}/loss_curves.png), [samples]({place}/samples.txt)",
        "",
    ]
    return "\n".join(lines)


def changes(run: Run) -> str:
    """Keys that differ from the experiment's default run."""
    default = run.folder.parent / "default"
    if run.folder == default or not (default / "config.toml").is_file():
        return (
            "nothing; this is the first to compare with"
            if run.folder == default
            else "there is no default run to compare with"
        )
    before, after = flat(read_config(default)), flat(read_config(run.folder))
    keys = [
        key for key in sorted(before | after) if before.get(key) != after.get(key) and not key.startswith(NOT_SETTINGS)
    ]
    return "; ".join(f"`{key}` {before.get(key)} -> {after.get(key)}" for key in keys) or "nothing"


def result(summary: Mapping[str, Any]) -> str:
    """The figures of a summary in one line."""
    parts = [str(summary["status"])]
    if summary.get("accuracy") is not None:
        parts.append(f"exact match {summary['accuracy']:.1%}")
    if summary.get("best_val_loss") is not None:
        parts.append(f"val loss {summary['best_val_loss']:.4f} at step {summary['best_step']}")
    if summary.get("train_seconds") is not None:
        parts.append(f"{summary['train_seconds']:.1f} s of training")
    return ", ".join(parts)
