"""Answers about one run: its settings, groups, checkpoints, warnings, log; and which settings of several differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from core.files import finite
from core.report.differences import INHERITED
from core.serve.errors import Refused
from core.serve.live.catalog import SWEEPS, Entry
from core.serve.live.configs import config_of
from core.serve.live.jobs import newest_log
from core.serve.live.parameters import Parameters
from core.serve.live.targets import Target, find_target
from core.serve.live.view import View
from core.tracking.figures import by_numbers
from core.training.ladder import kept_steps, moment_of_writing

MOST_CHECKPOINTS, MOST_WARNINGS, LONGEST_WARNING = 1000, 100, 2000
LOG_PART = 1 << 16  # bytes of a log in one answer
Account = dict[str, Any]


def about_run(view: View, asked: Parameters) -> Account:
    """Everything about a run but its curves."""
    entry = view.find(asked.text("id"))
    target = find_target(view.catalog, entry.id)
    summary = finite(entry.summary)
    problems = [entry.problem] if entry.problem else []
    try:
        settings = finite(config_of(entry))
    except Refused as error:
        settings = {}
        problems.append(error.message)
    checkpoints = checkpoints_of(entry)
    return {
        "row": finite(view.row(entry)),
        "command": target.command,
        "busy": view.is_worked_on(target),
        "folder": str(entry.folder),
        "settings": settings,
        "summary": summary,
        "warnings": warnings_of(summary),
        "groups": groups_of(view, entry),
        "checkpoints": checkpoints,
        "moments": [
            {"step": step, "written": moment_of_writing(entry.folder / "checkpoints", step)}
            for step in (kept_steps(entry.folder / "checkpoints") if checkpoints else [])
        ],
        "report": view.report_address(entry.id, entry.folder),
        "notes": finite(entry.notes),
        "problems": problems,
    }


def warnings_of(summary: Account) -> list[str]:
    """What `check` warned of when the run began."""
    found = summary.get("warnings")
    return [str(warning)[:LONGEST_WARNING] for warning in found[:MOST_WARNINGS]] if isinstance(found, list) else []


def groups_of(view: View, entry: Entry) -> dict[str, float]:
    """Exact match of each group: the latest one, or of a completed run the reported one."""
    reported = entry.summary.get("accuracy_by_group")
    if entry.status == "completed" and isinstance(reported, dict):
        return {name: finite(value) for name, value in sorted(reported.items(), key=lambda item: by_numbers(item[0]))}
    table = view.table(entry)
    prefix = "val_accuracy/"
    found = {name.removeprefix(prefix): table.curve(name, "step")[1] for name in table.names if name.startswith(prefix)}
    known = {name: float(values[-1]) for name, values in found.items() if len(values)}
    return dict(sorted(known.items(), key=lambda item: by_numbers(item[0])))


def checkpoints_of(entry: Entry) -> list[str]:
    """The names of a run's checkpoints."""
    return sorted(entry.lab.folders(entry.folder / "checkpoints"), key=by_numbers)[:MOST_CHECKPOINTS]


def about_settings(view: View, asked: Parameters) -> Account:
    """The settings of some runs side by side. gone: the ids of those that are not there."""
    entries, gone = view.find_those_there(asked.all("id"))
    configs = [config_of(entry) for entry in entries]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = {key: [finite(config.get(key)) for config in configs] for key in keys}
    told = []
    for key, values in rows.items():
        follows = INHERITED.match(key) and rows.get(INHERITED.sub("train.runtime.", key)) == values
        told.append(
            {"key": key, "values": values, "differs": not follows and any(value != values[0] for value in values)}
        )
    return {"keys": told, "gone": gone}


def about_log(view: View, asked: Parameters) -> Account:
    """What a run or a sweep has printed, as far as it is kept: of those that were started from the page, and of runs of a sweep.

    offset: where the text begins, in bytes; -1 for the end of the file.
    """
    target = find_target(view.catalog, asked.text("id"))
    path = log_of(view, target)
    if path is None:
        return {"text": "", "offset": 0, "next": 0, "size": 0}
    try:
        with target.place.lab.open(path) as file:
            size = os.fstat(file.fileno()).st_size
            begin = (
                max(0, size - LOG_PART) if asked.text("offset") in ("", "-1") else asked.number("offset", 0, 0, 2**40)
            )
            file.seek(begin)
            data = file.read(LOG_PART)
    except OSError:
        return {"text": "", "offset": 0, "next": 0, "size": 0}
    text = "\n".join(line.rpartition("\r")[2] for line in data.decode("utf-8", "replace").split("\n"))
    return {"text": text, "offset": begin, "next": begin + len(data), "size": size}


def log_of(view: View, target: Target) -> Path | None:
    """The file with what a run or a sweep has printed; None if there is none."""
    if found := newest_log(target.place, target.whole):
        return found
    sweep = view.sweeps().get(target.id, "").rpartition("/")[2]
    path = target.place.out / SWEEPS / sweep / "logs" / f"{target.name}.txt"
    return path if sweep and path.is_file() else None
