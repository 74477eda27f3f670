"""EXPERIMENT_LOG.md: an entry per run, the newest last."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import files
from core.tracking.begin import flat
from core.tracking.run import Run, read_config, read_summary, run_folders

MARK = re.compile(r"<!-- (?P<experiment>.+)/(?P<run>[^/]+) (?P<started>\S+) -->$", re.MULTILINE)
HEAD = "# Experiment log\n\nOne entry per run, written by `loop` and `train`.\n"
# Where a run lives and what it is called says nothing about what was tried.
NOT_SETTINGS = ("train.runtime.device", "train.runtime.dtype", "train.runtime.compile", "sample.")


def write_log_entry(run: Run) -> Path:
    """Add the run's entry to the log, or renew the one that it has. Returns the log's path.

    Entries of runs that have been renamed follow them; those of another experiment, which came along with a copied
    folder, are dropped. Everything else in the file stays.
    """
    with files.turn(run.experiment.folder):  # runs that train at once end at once
        return renew_log(run)


def renew_log(run: Run) -> Path:
    """`write_log_entry`, while nobody else does it."""
    path = run.experiment.folder / "EXPERIMENT_LOG.md"
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    head, *entries = re.split(r"(?m)^(?=## .*<!-- .* -->$)", text)
    started = str(read_summary(run.folder).get("started"))
    runs = {
        str(read_summary(folder).get("started")): folder.name
        for folder in run_folders(run.experiment, run.folder.parent)
    }
    kept = [
        followed(old, runs)
        for old in entries
        if (mark := MARK.search(old)) and mark["experiment"] == run.experiment.name and mark["started"] != started
    ]
    files.write_text(path, "\n\n".join(part.rstrip("\n") for part in [head, *kept, entry(run, started)]) + "\n")
    return path


def has_log_entry(run: Run) -> bool:
    """Whether the log has an entry of the run: a kill may have come between its summary and that."""
    path = run.experiment.folder / "EXPERIMENT_LOG.md"
    started = str(read_summary(run.folder).get("started"))
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return any(mark["started"] == started for mark in MARK.finditer(text))


def followed(old: str, runs: Mapping[str, str]) -> str:
    """An entry under the present name of its run. runs: start -> name."""
    mark = MARK.search(old)
    assert mark is not None
    name = runs.get(mark["started"], mark["run"])
    if name == mark["run"]:
        return old
    return old.replace(f" {mark['run']} <!--", f" {name} <!--").replace(f"/{mark['run']}/", f"/{name}/").replace(
        f"<!-- {mark['experiment']}/{mark['run']} ", f"<!-- {mark['experiment']}/{name} "
    )  # fmt: skip


def entry(run: Run, started: str) -> str:
    """One run in Markdown."""
    summary = read_summary(run.folder)
    place = Path(os.path.relpath(run.folder, run.experiment.folder)).as_posix()
    lines = [
        f"## {started[:10]} {run.name} <!-- {run.title} {started} -->",
        "",
        *([f"- To find out: {one_line(summary['description'])}"] if summary.get("description") else []),
        f"- Changed: {changes(run)}",
        f"- Result: {result(summary)}",
        f"- Command: `{one_line(summary.get('command', ''))}`",
        f"- Files: [report]({place}/report.html), [curves]({place}/loss_curves.png), [samples]({place}/samples.txt)",
    ]
    return "\n".join(lines)


def one_line(text: str) -> str:
    return " ".join(text.split())


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
