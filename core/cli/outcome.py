"""What a command has made, for --json: a run, or a run with stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def run_as_json(folder: Path) -> dict[str, Any]:
    """A run for --json: its names, its files and its summary."""
    from core.tracking.figures import read_figures
    from core.tracking.run import name_of

    summary, report = read_figures(folder), folder / "report.html"
    named = {"experiment": summary["experiment"], "run": name_of(folder), "folder": str(folder)}
    return named | ({"report": str(report)} if report.is_file() else {}) | {"summary": summary}


def pipeline_as_json(folder: Path) -> dict[str, Any]:
    """A run with stages for --json: its names, its files, and pipeline.json."""
    from core.tracking.run import PIPELINE, read_summary, stages_in

    stages = [path.parent for path in stages_in(folder)]
    experiment = read_summary(stages[0])["experiment"]
    named = {"experiment": experiment, "run": folder.name, "folder": str(folder), "report": str(folder / "report.html")}
    return named | {"pipeline": json.loads((folder / PIPELINE).read_bytes())}
