"""Answers about several runs together: a comparison with its verdict, a run with stages, a sweep."""

from __future__ import annotations

from typing import Any

from core.lab.choosing import grouped
from core.report.comparison import as_dict, compare, table
from core.report.comparison_forms import sentences
from core.serve.errors import Refused
from core.serve.live.catalog import SWEEPS
from core.serve.live.parameters import Parameters
from core.serve.live.rows import row_of
from core.serve.live.sweeps import place_of_sweep, read_pipeline_file, sweeps_of
from core.serve.live.view import View, finite_dict, run_data
from core.tracking.run import PIPELINE

Account = dict[str, Any]


def about_compare(view: View, asked: Parameters) -> Account:
    """What `compare` says of some runs: those that differ by their seed alone are one group."""
    entries = {entry.folder: entry for entry in view.find_all(asked.all("id"))}
    groups = grouped([run_data(entry) for entry in entries.values()])
    comparison = compare(groups)
    shown = table(comparison)
    members = [[entries[run.folder].id for run in group.runs] for group in comparison.groups]
    return finite_dict(
        {
            "sentences": sentences(comparison),
            "table": {"columns": list(shown.columns), "rows": [list(row) for row in shown.rows]},
            "groups_of_ids": members,
            **as_dict(comparison),
        }
    )


def about_pipeline(view: View, asked: Parameters) -> Account:
    """A run with stages: pipeline.json, and the rows of its stages."""
    id = asked.text("id")
    view.catalog.update()
    stages = [entry for entry in view.catalog.entries.values() if entry.stage and entry.id.rpartition("/")[0] == id]
    if not stages:
        raise Refused(f"there is no run with stages {id[:200]!r}", status=404, param="id", code="run_not_found")
    folder = stages[0].folder.parent
    found = read_pipeline_file(stages[0].lab, folder / PIPELINE)
    return finite_dict(
        found
        | {
            "ids": {entry.stage: entry.id for entry in stages},
            "rows": [view.row(entry) for entry in stages],
            "report": view.report_address(id, folder),
        }
    )


def about_sweep(view: View, asked: Parameters) -> Account:
    """A sweep: its points with their settings, standings and figures."""
    id = asked.text("id")
    view.catalog.update()
    place, name = place_of_sweep(view.catalog, id)
    values = sweeps_of(place)[name]
    head = f"{place.lab.name}/{place.experiment.name}"
    entries, points = view.catalog.entries, []
    for point in values["points"]:
        ids = [f"{head}/{point['run']}"]
        ids += [each for each in entries if each.startswith(f"{ids[0]}/")]
        entry = next((entries[each] for each in reversed(ids) if each in entries), None)
        row = row_of(entry) if entry else {}
        settings = point.get("settings") if isinstance(point.get("settings"), dict) else {}
        seed = point.get("seed")
        points.append(
            {
                "id": entry.id if entry else None,
                "run": point["run"],
                "values": settings | ({} if seed is None else {"seed": seed}),
                "status": row.get("status", point.get("status")),
                "value": row.get("val_loss"),
                "accuracy": row.get("accuracy"),
                "error": str(point.get("error") or ""),
            }
        )
    keys = list(dict.fromkeys(key for point in points for key in point["values"]))
    told = {
        "name": name,
        "keys": keys,
        "points": points,
        "metric": "val_loss",
        "command": str(values.get("command") or ""),
    }
    described = {"description": str(values.get("description") or "")}
    return finite_dict(told | described | {"report": view.report_address(id, place.out / SWEEPS / name)})


def about_jobs(view: View, asked: Parameters) -> Account:
    """The commands that were started from the page."""
    view.jobs.look()
    return {"jobs": view.jobs.described()}
