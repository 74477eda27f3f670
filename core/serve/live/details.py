"""Answers about one run: its settings, groups, samples, warnings, log; and which settings of several differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.report.samples import read_samples
from core.serve.errors import Refused
from core.serve.live.asked import Asked
from core.serve.live.catalog import LARGEST, Entry
from core.serve.live.rows import whole_row
from core.serve.live.view import View, config_of, finite
from core.tracking.figures import by_numbers

MOST_CHECKPOINTS = 1000
Account = dict[str, Any]


def about_run(view: View, asked: Asked) -> Account:
    """Everything about a run but its curves."""
    entry = view.find(asked.text("id"))
    summary = finite(entry.summary)
    problems = [entry.problem] if entry.problem else []
    try:
        settings = finite(config_of(entry))
    except Refused as error:
        settings = {}
        problems.append(error.message)
    samples = samples_of(entry, problems)
    return {
        "row": finite(whole_row(entry, view.sweeps())),
        "command": str(summary.get("command") or ""),
        "folder": str(entry.folder),
        "settings": settings,
        "summary": summary,
        "warnings": warnings_of(summary),
        "groups": groups_of(view, entry),
        "samples": samples,
        "checkpoints": checkpoints_of(entry.folder),
        "moments": [],
        "report": view.report_address(entry),
        "notes": finite(entry.notes),
        "problems": problems,
    }


def warnings_of(summary: Account) -> list[Account]:
    """What `check` warned of when the run began."""
    found = summary.get("warnings")
    return [warning for warning in found if isinstance(warning, dict)] if isinstance(found, list) else []


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
    """What the run wrote at its end. Adds to problems what cannot be read."""
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


def checkpoints_of(folder: Path) -> list[str]:
    """The names of a run's checkpoints."""
    try:
        found = [entry.name for entry in os.scandir(folder / "checkpoints") if entry.is_dir()]
    except OSError:
        return []
    return sorted((name for name in found if not name.startswith(".")), key=by_numbers)[:MOST_CHECKPOINTS]


def about_settings(view: View, asked: Asked) -> Account:
    """The settings of some runs side by side."""
    configs = [config_of(entry) for entry in view.find_all(asked.all("id"))]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [(key, [finite(config.get(key)) for config in configs]) for key in keys]
    return {
        "keys": [
            {"key": key, "values": values, "differs": any(value != values[0] for value in values)}
            for key, values in rows
        ]
    }
