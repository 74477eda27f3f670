"""Answers with curves: of single runs, and mean and band of runs that differ by their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.lab.choosing import grouped
from core.serve.live.configs import run_data
from core.serve.live.parameters import Parameters
from core.serve.live.tables import AXES, Values
from core.serve.live.view import View

LEAST_POINTS, MOST_POINTS = 10, 5000
BAND_POINTS = 400
Account = dict[str, Any]


def about_curves(view: View, asked: Parameters) -> Account:
    """The curves of some runs for one metric, thinned, and the metrics that there are. gone: ids of runs that are not there."""
    metric, axis = asked.text("metric") or "val_loss", asked.one_of("x", AXES)
    points = asked.number("points", 1000, LEAST_POINTS, MOST_POINTS)
    curves: list[Account] = []
    known: dict[str, None] = {}
    entries, gone = view.find_those_there(asked.all("id"))
    for entry in entries:
        table = view.table(entry)
        known |= dict.fromkeys(table.metrics)
        problem = table.problem or entry.problem
        curves.append(
            {"id": entry.id, **view.tables.thinned(table, metric, axis, points)}
            | ({"problem": problem} if problem else {})
        )
    return {"metric": metric, "x": axis, "metrics": list(known), "curves": curves, "gone": gone}


def about_bands(view: View, asked: Parameters) -> Account:
    """Mean, least and greatest value over the seeds of each setting, where all its runs have got to. gone: as for curves."""
    metric, axis = asked.text("metric") or "val_loss", asked.one_of("x", AXES)
    there, gone = view.find_those_there(asked.all("id"))
    entries = {entry.folder: entry for entry in there}
    groups = []
    for group in grouped([run_data(entry) for entry in entries.values()]):
        members = [entries[run.folder] for run in group.runs]
        drawn = [view.table(entry).curve(metric, axis) for entry in members]
        groups.append({"name": group.name, "ids": [entry.id for entry in members], **band(drawn)})
    return {"metric": metric, "x": axis, "groups": groups, "gone": gone}


def band(curves: Sequence[tuple[Values, Values]]) -> Account:
    """Mean, least and greatest value of several curves, at the x of all of them up to the end of the shortest."""
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return {"x": [], "mean": [], "low": [], "high": []}
    begin, end = max(x.min() for x, _ in curves), min(x.max() for x, _ in curves)
    places = np.unique(np.concatenate([x for x, _ in curves]))
    places = places[(places >= begin) & (places <= end)]
    if len(places) > BAND_POINTS:
        places = places[np.linspace(0, len(places) - 1, BAND_POINTS).astype(int)]
    values = np.stack([np.interp(places, *sorted_by_x(x, y)) for x, y in curves])
    found = {"x": places, "mean": values.mean(axis=0), "low": values.min(axis=0), "high": values.max(axis=0)}
    return {name: each.tolist() for name, each in found.items()}


def sorted_by_x(x: Values, y: Values) -> tuple[Values, Values]:
    """A curve in the order of x."""
    order = np.argsort(x, kind="stable")
    return x[order], y[order]
