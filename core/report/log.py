"""EXPERIMENT_LOG.md: an entry per run, the newest last."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core import files
from core.errors import UserError
from core.report.tables import markdown_text, one_line
from core.roles import flat
from core.tracking.run import DEFAULT, Run, read_config, read_summary, run_folders

# An entry: a heading with a mark that no reader sees, and lines up to that of the files. What follows is the user's.
ENTRY = re.compile(
    r"^## .*<!-- (?P<experiment>.+)/(?P<run>[^/\n]+) (?P<started>\S+) -->\n(?:(?!## ).*\n)*?- Files: .*(?:\n|\Z)",
    re.MULTILINE,
)
HEAD = "# Experiment log\n\nOne entry per run, written when it ends.\n"
# Where a run lives and what it is called says nothing about what was tried.
NOT_SETTINGS = ("train.runtime.device", "train.runtime.dtype", "train.runtime.compile", "sample.")


def write_log_entry(run: Run) -> Path:
    """Add the run's entry to the log, or renew the one that it has. Returns the log's path.

    Entries of runs that have been renamed follow them; those of another experiment, which came along with a copied
    folder, are dropped. Everything else in the file stays, what the user has written between entries too.
    """
    with files.turn(run.experiment.folder):  # runs that train at once end at once
        return renew_log(run)


def renew_log(run: Run) -> Path:
    """`write_log_entry`, while nobody else does it."""
    path = run.experiment.folder / "EXPERIMENT_LOG.md"
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    started = str(read_summary(run.folder).get("started"))
    runs = {
        str(read_summary(folder).get("started")): folder.name
        for folder in run_folders(run.experiment, run.folder.parent)
    }
    renewed = entry(run, started) + "\n"

    def kept(old: re.Match[str]) -> str:
        if old["experiment"] != run.experiment.name:
            return ""
        return renewed if old["started"] == started else followed(old, runs)

    text = ENTRY.sub(kept, text).rstrip() + ("\n" if has_log_entry(run) else f"\n\n{renewed}")
    files.write_text(path, re.sub(r"\n{3,}(?=## )", "\n\n", text))
    return path


def has_log_entry(run: Run) -> bool:
    """Whether the log has an entry of the run: a kill may have come between its summary and that."""
    path = run.experiment.folder / "EXPERIMENT_LOG.md"
    started = str(read_summary(run.folder).get("started"))
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return any(found["started"] == started for found in ENTRY.finditer(text))


def followed(old: re.Match[str], runs: Mapping[str, str]) -> str:
    """An entry under the present name of its run. runs: start -> name."""
    former, name = old["run"], runs.get(old["started"], old["run"])
    if name == former:
        return old[0]
    text = old[0].replace(f" {former} <!--", f" {name} <!--").replace(f"/{quote(former)}/", f"/{quote(name)}/")
    return text.replace(f"<!-- {old['experiment']}/{former} ", f"<!-- {old['experiment']}/{name} ")


def entry(run: Run, started: str) -> str:
    """One run in Markdown."""
    summary = read_summary(run.folder)
    place = quote(Path(os.path.relpath(run.folder, run.experiment.folder)).as_posix())
    names = {"report": "report.html", "curves": "loss_curves.png"}  # `train` and `loop` write these behind the entry
    names |= {"samples": "samples.txt"} if (run.folder / "samples.txt").is_file() else {}
    command = str(summary.get("command") or "")
    marks = "`" * (1 + max(map(len, re.findall("`+", command)), default=0))
    lines = [
        f"## {started[:10]} {run.name} <!-- {run.title} {started} -->",
        "",
        *([f"- To find out: {markdown_text(summary['description'])}"] if summary.get("description") else []),
        f"- Changed: {changes(run)}",
        f"- Result: {result(summary)}",
        f"- Command: {marks}{one_line(command)}{marks}",
        "- Files: " + ", ".join(f"[{title}]({place}/{name})" for title, name in names.items()),
    ]
    return "\n".join(lines)


def changes(run: Run) -> str:
    """Keys that differ from the experiment's default run."""
    default = run.folder.parent / DEFAULT
    if run.folder == default or not (default / "config.toml").is_file():
        return (
            "nothing; this is the first to compare with"
            if run.folder == default
            else "there is no default run to compare with"
        )
    try:
        before, after = flat(read_config(default)), flat(read_config(run.folder))
    except UserError:  # what is wrong with another run must not end this one
        return "the settings of the default run cannot be read"
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
