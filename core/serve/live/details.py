"""Answers about one run: its settings, groups, samples, warnings, log; and which settings of several differ."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.report.differences import INHERITED
from core.report.samples import read_samples
from core.serve.errors import Refused
from core.serve.live.catalog import LARGEST, Entry, open_file, stamp
from core.serve.live.jobs import newest_log
from core.serve.live.parameters import Parameters
from core.serve.live.sweeps import SWEEPS
from core.serve.live.targets import Target, find_target
from core.serve.live.view import View, config_of, finite
from core.tracking.answers import FILE as ANSWERS
from core.tracking.answers import read_answers
from core.tracking.figures import by_numbers
from core.training.ladder import kept_steps, written

MOST_CHECKPOINTS, MOST_WARNINGS, LONGEST_WARNING = 1000, 100, 2000
MOST_SAMPLES = 2000
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
    samples = samples_of(entry, problems)
    return {
        "row": finite(view.row(entry)),
        "command": target.command,
        "busy": view.is_worked_on(target),
        "folder": str(entry.folder),
        "settings": settings,
        "summary": summary,
        "warnings": warnings_of(summary),
        "groups": groups_of(view, entry),
        "samples": samples,
        "checkpoints": checkpoints_of(entry.folder),
        "moments": [
            {"step": step, "written": written(entry.folder / "checkpoints", step)}
            for step in kept_steps(entry.folder / "checkpoints")
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
    table = view.tables.of(entry.folder / "metrics.csv")
    prefix = "val_accuracy/"
    found = {name.removeprefix(prefix): table.curve(name, "step")[1] for name in table.names if name.startswith(prefix)}
    known = {name: float(values[-1]) for name, values in found.items() if len(values)}
    return dict(sorted(known.items(), key=lambda item: by_numbers(item[0])))


def samples_of(entry: Entry, problems: list[str]) -> list[Account]:
    """What the run answered at each evaluation; where that is not kept, what it wrote at its end. Adds to problems."""
    if found := answers_of(entry.folder, stamp(entry.folder / ANSWERS)):
        return found[-MOST_SAMPLES:]
    path = entry.folder / "samples.json"
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return []
        written = read_samples(entry.folder)
    except UserError as error:
        problems.append(f"samples.json: {error.message}")
        return []
    except OSError as error:
        problems.append(f"samples.json: {error.strerror}")
        return []
    step = finite(entry.summary.get("best_step"))
    return [
        {"step": step, "prompt": sample.start, "truth": sample.truth, "answer": sample.text, "right": sample.correct}
        for sample in written.samples
    ]


@functools.lru_cache(maxsize=8)
def answers_of(folder: Path, at: tuple[int, int]) -> list[Account]:
    """`read_answers`, once for each state of the file."""
    return read_answers(folder)


def checkpoints_of(folder: Path) -> list[str]:
    """The names of a run's checkpoints."""
    try:
        found = [entry.name for entry in os.scandir(folder / "checkpoints") if entry.is_dir()]
    except OSError:
        return []
    return sorted((name for name in found if not name.startswith(".")), key=by_numbers)[:MOST_CHECKPOINTS]


def about_settings(view: View, asked: Parameters) -> Account:
    """The settings of some runs side by side."""
    configs = [config_of(entry) for entry in view.find_all(asked.all("id"))]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = {key: [finite(config.get(key)) for config in configs] for key in keys}
    told = []
    for key, values in rows.items():
        follows = INHERITED.match(key) and rows.get(INHERITED.sub("train.runtime.", key)) == values
        told.append(
            {"key": key, "values": values, "differs": not follows and any(value != values[0] for value in values)}
        )
    return {"keys": told}


def about_log(view: View, asked: Parameters) -> Account:
    """What a run or a sweep has printed, as far as it is kept: of those that were started from the page, and of runs of a sweep.

    offset: where the text begins, in bytes; -1 for the end of the file.
    """
    path = log_of(view, find_target(view.catalog, asked.text("id")))
    if path is None:
        return {"text": "", "offset": 0, "next": 0, "size": 0}
    try:
        with open_file(path) as file:
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
