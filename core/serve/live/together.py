"""Answers about several runs together: a comparison with its verdict, a run with stages, a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.lab.choosing import grouped
from core.report.comparison import as_dict, compare, table
from core.report.comparison_forms import sentences
from core.serve.errors import Refused
from core.serve.live.configs import finite_dict, run_data
from core.serve.live.parameters import Parameters
from core.serve.live.rows import row_of
from core.serve.live.sweeps import read_pipeline_file
from core.serve.live.targets import Target, find_target
from core.serve.live.view import View
from core.tracking.notes import read_notes
from core.tracking.run import PIPELINE

Account = dict[str, Any]
SIDES = ("test", "val")  # what summary.json says accuracy is of


def about_compare(view: View, asked: Parameters) -> Account:
    """What `compare` says of some runs: those that differ by their seed alone are one group. gone: the ids of those that are not
    there.
    """
    found, gone = view.find_those_there(asked.all("id"))
    if not found:
        return {"sentences": [], "table": {"columns": [], "rows": []}, "groups_of_ids": [], "gone": gone}
    entries = {entry.folder: entry for entry in found}
    groups = grouped([run_data(entry) for entry in entries.values()])
    comparison = compare(groups)
    shown = table(comparison)
    members = [[entries[run.folder].id for run in group.runs] for group in comparison.groups]
    return finite_dict(
        {
            "sentences": sentences(comparison),
            "table": {"columns": list(shown.columns), "rows": [list(row) for row in shown.rows]},
            "groups_of_ids": members,
            "gone": gone,
            **as_dict(comparison),
        }
    )


def about_pipeline(view: View, asked: Parameters) -> Account:
    """A run with stages: pipeline.json, and the rows of its stages."""
    target = find_target(view.catalog, asked.text("id"))
    if target.sweep or target.entries[0].id == target.id:
        raise Refused(f"{target.id} is no run with stages", status=404, param="id", code="run_not_found")
    ids = {entry.stage: entry.id for entry in target.entries}
    found = read_pipeline_file(target.place.lab, target.folder / PIPELINE)
    statuses = [row_of(entry)["status"] for entry in target.entries]
    statuses += ["waiting"] * (len(found["stages"]) - len(statuses))
    return finite_dict(found | {"ids": ids} | about_whole(view, target, statuses))


def about_sweep(view: View, asked: Parameters) -> Account:
    """A sweep: its points with their settings, standings and figures."""
    target = find_target(view.catalog, asked.text("id"))
    if not target.sweep:
        raise Refused(f"{target.id} is no sweep", status=404, param="id", code="run_not_found")
    entries = {entry.run: entry for entry in target.entries}  # of a run with stages: its last one
    points = []
    for point in target.sweep["points"]:
        entry = entries.get(point["run"])
        row = row_of(entry) if entry else {}
        accuracy, side = row.get("val_accuracy"), "val"  # beside a loss of the same evaluation
        if entry and row["status"] != "running" and row["accuracy"] is not None:
            accuracy, side = row["accuracy"], str(entry.summary.get("side"))
        settings = point.get("settings") if isinstance(point.get("settings"), dict) else {}
        seed = point.get("seed")
        points.append(
            {
                "id": entry.id if entry else None,
                "run": point["run"],
                "values": settings | ({} if seed is None else {"seed": seed}),
                "status": row.get("status", point.get("status")),
                "value": row.get("val_loss"),
                "accuracy": accuracy,
                "side": side if accuracy is not None and side in SIDES else None,
                "error": str(point.get("error") or ""),
            }
        )
    sides = {point["side"] for point in points if point["accuracy"] is not None}
    told = {
        "name": target.name,
        "keys": list(dict.fromkeys(key for point in points for key in point["values"])),
        "points": points,
        "metric": "val_loss",
        "side": sides.pop() if len(sides) == 1 else None,
    }
    return finite_dict(told | about_whole(view, target, [point["status"] for point in points]))


def about_whole(view: View, target: Target, statuses: Sequence[str]) -> Account:
    """What a sweep and a run with stages have in common: a row as runs have it, and those of their runs. statuses: of all runs."""
    rows = [view.row(entry) for entry in target.entries]
    busy, notes = view.is_worked_on(target), read_notes(target.folder, target.place.lab.read)
    done = sum(status in ("completed", "stopped") for status in statuses)
    ended = "failed" if "failed" in statuses else "completed" if done == len(statuses) else "interrupted"
    tags = [set(row["tags"]) for row in rows]
    row = {
        "id": target.id,
        "lab": target.place.lab.name,
        "experiment": target.place.experiment.name,
        "run": target.name,
        "stage": None,
        "status": "running" if busy else ended,
        "started": min((row["started"] for row in rows), default=""),
        "seconds": sum(row["seconds"] or 0 for row in rows),
        "done": done,
        "of": len(statuses),
        "description": notes.get("description", str(target.sweep.get("description") or "")),
        "tags": sorted(set.intersection(*tags)) if tags else [],
        "starred": bool(rows) and all(row["starred"] for row in rows),
        "hidden": bool(rows) and all(row["hidden"] for row in rows),
        "can_chat": False,
    }
    report = view.report_address(target.id, target.folder)
    return {"row": row, "rows": rows, "busy": busy, "command": target.command, "report": report}
