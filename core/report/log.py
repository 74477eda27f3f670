"""Write EXPERIMENT_LOG.md: one entry per run, the newest last."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core import files
from core.errors import UserError
from core.plugins.discovery import stands_beside
from core.report.tables import markdown_text, one_line
from core.roles import flat, role_of
from core.tracking.figures import loss_text, prompts_in_words, read_figures, share_text
from core.tracking.run import DEFAULT, Run, name_of, out_of, read_config, read_summary, run_folders

# An entry: a heading with an invisible mark, and the lines up to "- Files". What follows belongs to the user.
ENTRY = re.compile(
    r"^## .*<!-- (?P<experiment>[^/\n]+)/(?P<run>[^\n]+) (?P<started>\S+) -->\n(?:(?!## ).*\n)*?- Files: .*(?:\n|\Z)",
    re.MULTILINE,
)
HEAD = "# Experiment log\n\nOne entry per run, written when it ends.\n"
LEFT_OUT = ("machine", "place", "shown")  # roles of keys that say nothing about what was tried


def write_log_entry(run: Run) -> Path:
    """Add the run's entry to the log, or update it. Returns the log's path.

    Entries of renamed runs and experiments get the new name. Entries of another experiment, which came with a copied folder, are removed.
    Everything else in the file stays, including what the user has written between entries.
    """
    with files.turn(run.experiment.folder):  # runs that train at the same time may end at the same time
        return renew_log(run)


def renew_log(run: Run) -> Path:
    """`write_log_entry`, without waiting for others."""
    path = run.experiment.folder / "EXPERIMENT_LOG.md"
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    started = str(read_summary(run.folder).get("started"))
    runs = {
        str(read_summary(folder).get("started")): name_of(folder)
        for folder in run_folders(run.experiment, out_of(run.folder))
    }
    renewed = entry(run, started) + "\n"

    def kept(old: re.Match[str]) -> str:
        if old["experiment"] != run.experiment.name and stands_beside(run.experiment, old["experiment"]):
            return ""
        if old["started"] == started:
            return renewed
        return followed(old, runs).replace(f"<!-- {old['experiment']}/", f"<!-- {run.experiment.name}/", 1)

    text = ENTRY.sub(kept, text).rstrip() + ("\n" if has_log_entry(run) else f"\n\n{renewed}")
    files.write_text(path, re.sub(r"\n{3,}(?=## )", "\n\n", text))
    return path


def has_log_entry(run: Run) -> bool:
    """Whether the log has the run's entry. It may be missing after a kill between writing the summary and the entry."""
    path = run.experiment.folder / "EXPERIMENT_LOG.md"
    started = str(read_summary(run.folder).get("started"))
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return any(found["started"] == started for found in ENTRY.finditer(text))


def followed(old: re.Match[str], runs: Mapping[str, str]) -> str:
    """An entry under the current name of its run. runs: start -> name."""
    former, name = old["run"], runs.get(old["started"], old["run"])
    if name == former:
        return old[0]
    text = old[0].replace(f" {former} <!--", f" {name} <!--").replace(f"/{quote(former)}/", f"/{quote(name)}/")
    return text.replace(f"<!-- {old['experiment']}/{former} ", f"<!-- {old['experiment']}/{name} ")


def entry(run: Run, started: str) -> str:
    """One run in Markdown."""
    summary = read_figures(run.folder)
    place = quote(Path(os.path.relpath(run.folder, run.experiment.folder)).as_posix())
    names = {"report": "report.html", "curves": "loss_curves.png"}  # written after the entry
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
    default = out_of(run.folder) / "/".join([DEFAULT, *run.name.split("/")[1:]])
    if run.folder == default:
        return "nothing; this is the run that others are compared with"
    if not (default / "config.toml").is_file():
        return "there is no default run to compare with"
    try:
        before, after = flat(read_config(default)), flat(read_config(run.folder))
    except UserError:  # a problem of another run must not fail this one
        return "the settings of the default run cannot be read"
    keys = [key for key in sorted(before | after) if before.get(key) != after.get(key) and role_of(key) not in LEFT_OUT]
    return "; ".join(f"`{key}` {before.get(key)} -> {after.get(key)}" for key in keys) or "nothing"


def result(summary: Mapping[str, Any]) -> str:
    """The figures of a summary in one line."""
    parts = [str(summary["status"])]
    if summary.get("accuracy") is not None:
        prompts = prompts_in_words([summary])
        parts.append(f"exact match {share_text(summary['accuracy'])}" + (f" of {prompts}" if prompts else ""))
    if summary.get("best_val_loss") is not None:
        parts.append(f"val loss {loss_text(summary['best_val_loss'])} at step {summary['best_step']}")
    if summary.get("train_seconds") is not None:
        parts.append(f"{summary['train_seconds']:.1f} s of training")
    return ", ".join(parts)
