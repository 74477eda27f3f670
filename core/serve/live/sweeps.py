"""Sweeps and runs with stages, as their files say: sweep.json in out/sweeps/NAME, pipeline.json in out/RUN."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.serve.live.catalog import SWEEP, SWEEPS, Place, stamp
from core.serve.live.labs import Lab


def runs_of_sweeps(place: Place) -> dict[str, str]:
    """Id of a run -> id of its sweep, for an experiment's sweeps."""
    found: dict[str, str] = {}
    stages = dict.fromkeys(stage for _, _, stage in place.found if stage)
    for name, values in sweeps_of(place).items():
        for point in values["points"]:
            id = f"{place.head}/{point['run']}"
            found |= dict.fromkeys([id, *(f"{id}/{stage}" for stage in stages)], f"{place.head}/{SWEEPS}/{name}")
    return found


def sweeps_of(place: Place) -> dict[str, Mapping[str, Any]]:
    """The sweeps of an experiment by name, those whose state can be read."""
    folder = place.out / SWEEPS
    paths = {name: folder / name / SWEEP for name in place.lab.folders(folder)}
    read = {name: read_state(place.lab, path, stamp(path)) for name, path in paths.items()}
    return {name: values for name, values in read.items() if values}


@functools.lru_cache(maxsize=256)
def read_state(lab: Lab, path: Path, at: tuple[int, int]) -> Mapping[str, Any]:
    """sweep.json, once for each state of the file; {} where it is missing or damaged."""
    try:
        values = json.loads(lab.read(path))
        points = [point for point in values["points"] if isinstance(point["run"], str)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return {**values, "points": points}


def read_pipeline_file(lab: Lab, path: Path) -> dict[str, Any]:
    """pipeline.json with the tables that it should have; empty ones where it does not."""
    try:
        found = json.loads(lab.read(path))
    except (OSError, ValueError, RecursionError):
        found = {}
    found = found if isinstance(found, dict) else {}
    stages = found.get("stages")
    tables = {name: found[name] if isinstance(found.get(name), dict) else {} for name in ("table", "seconds", "tokens")}
    return {"stages": [str(name) for name in stages] if isinstance(stages, list) else [], **tables}
