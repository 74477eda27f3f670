"""The state of a sweep: sweep.json in its folder, written at every change, so that nothing is lost if it is killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import durable, private
from core.data.dataset import Dataset
from core.errors import UserError
from core.private import without_home
from core.roles import flat
from core.sweeps.plan import Point, Sweep, plain
from core.sweeps.space import DRAW_SEED
from core.toml import completed
from core.tracking.begin import changed
from core.tracking.run import is_own, owned, read_config, read_summary, set_aside

FILE = "sweep.json"
COSTS = ("train_seconds", "wall_seconds", "tokens", "flops")  # of summary.json, added up over stages
FINAL = ("completed", "failed", "stopped")  # nothing is left to do


@dataclass(frozen=True)
class Standing:
    """The state of one point. status: waiting, running, interrupted, or one of FINAL. step: where halving stopped it."""

    status: str = "waiting"
    error: str = ""
    step: int | None = None
    val_loss: float | None = None  # what halving judged it by


@dataclass
class State:
    """A sweep and the standing of each run, by name.

    ended: runs that have ended in any way since the command was given. others: entries of sweep.json for runs that were
    started earlier and are not part of this command. They are kept for later commands that include them again.
    conclusions: when all runs have ended, whether the best setting really differs from each of the next best ones.
    """

    sweep: Sweep
    standings: dict[str, Standing] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    others: list[dict[str, Any]] = field(default_factory=list)
    conclusions: list[str] = field(default_factory=list)

    def set(self, point: Point, standing: Standing) -> None:
        """Change the standing of a run, and save the state."""
        self.standings[point.run] = standing
        if standing.status not in ("waiting", "running"):
            self.ended.add(point.run)
        self.write()

    def write(self) -> None:
        sweep = self.sweep
        private.write_json(
            sweep.folder / FILE,
            {
                "experiment": sweep.experiment.name,
                "name": sweep.name,
                "description": sweep.description,
                "command": sweep.call.command,
                **definition(sweep),
                "seeds": list(sweep.space.seeds),
                "grid": {grid.key: [plain(value) for value in grid.values] for grid in sweep.space.grids},
                "random": sweep.space.draws,
                "points": [
                    {
                        "run": point.run,
                        "settings": {key: plain(value) for key, value in point.settings.items()},
                        "seed": point.seed,
                        **vars(self.standings[point.run]),
                    }
                    for point in sweep.points
                ],
                "others": self.others,
            },
        )

    def summary(self, point: Point) -> dict[str, Any]:
        """summary.json of a point's run; {} if it has not started. With stages, that of the last one, with the cost of all."""
        found = list(map(read_summary, point.folders(self.sweep.out)))
        if len(found) == 1 or not found[-1]:
            return found[-1]
        costs = {key: sum(summary.get(key) or 0 for summary in found) for key in COSTS}
        return found[-1] | costs

    def loss(self, point: Point) -> float | None:
        """The val loss of a completed run's checkpoint `best`, or the one for which halving stopped it."""
        standing = self.standings[point.run]
        found = self.summary(point).get("best_val_loss") if standing.status == "completed" else standing.val_loss
        return None if found is None else float(found)

    def done(self) -> int:
        """The number of runs that have nothing left to do now."""
        return sum(entry.status in FINAL or run in self.ended for run, entry in self.standings.items())

    def left(self) -> list[Point]:
        """The points that are not finished; those that have started come first."""
        points = [point for point in self.sweep.points if self.standings[point.run].status not in FINAL]
        return sorted(points, key=lambda point: self.standings[point.run].status == "waiting")


def definition(sweep: Sweep) -> dict[str, Any]:
    """What makes two sweeps different. Values and seeds do not: more of them enlarge the same sweep."""
    return {
        "variant": sweep.opened.variant,
        "overrides": list(map(without_home, sweep.opened.overrides)),
        "keys": sweep.space.keys,
        "ranges": {entry.key: [entry.low, entry.high, entry.log] for entry in sweep.space.ranges},
        "draw_seed": DRAW_SEED,
        "halving": sweep.halving,
    }


def open_state(sweep: Sweep, datasets: Mapping[str, Dataset], *, retry: bool) -> State:
    """Read the state of a sweep from its folder and its runs. datasets: run -> the dataset that it trains on.

    retry: failed runs are to be trained again. Raises UserError if the name belongs to another sweep, or if one of its runs
    has other settings or another dataset.
    """
    leave_strangers(sweep)
    found = read_sweep(sweep.folder)
    if found and (differences := [key for key, value in definition(sweep).items() if found.get(key) != value]):
        raise UserError(
            f"the sweep '{sweep.name}' was started with other {' and '.join(differences)}",
            place=str(sweep.folder / FILE),
            remedy=f"Give this sweep another name: {sweep.call.another_name()}. (Only seeds and the values of its keys may change.)",
        )
    known = {str(entry["run"]): entry for entry in (*found.get("others", ()), *found.get("points", ()))}
    asked = {point.run for point in sweep.points}
    state = State(sweep)
    state.others = [entry for run, entry in known.items() if run not in asked and entry.get("status") != "waiting"]
    for point in sweep.points:
        entry = known.get(point.run, {})
        state.standings[point.run] = standing_of(sweep, point, datasets[point.run], entry, retry)
    durable.make_folders(sweep.folder)
    state.write()
    return state


def standing_of(sweep: Sweep, point: Point, dataset: Dataset, entry: dict[str, Any], retry: bool) -> Standing:
    """The standing of a point when a sweep starts. entry: from sweep.json. Raises UserError for a run with other settings or data."""
    *earlier, folder = point.folders(sweep.out)
    summary = read_summary(folder) if is_own(folder, sweep.experiment) else {}
    if summary:
        differences = list(changed(flat(completed(read_config(folder))), flat(point.config.model_dump())))
        if not dataset.is_of(summary):
            differences.append("the dataset")
        if differences:
            raise UserError(
                f"the run '{point.run}' of this sweep was made with other settings: {', '.join(differences[:4])}",
                place=str(folder),
                remedy=f"config.toml or prepare.py has changed since. Give the sweep another name: {sweep.call.another_name()}.",
            )
    status = entry.get("status")
    if summary.get("status") == "completed":
        return Standing("completed")
    if (status == "failed" and not retry) or (status == "stopped" and summary):
        return Standing(str(status), entry.get("error") or "", entry.get("step"), entry.get("val_loss"))
    begun = summary or any((before / "summary.json").is_file() for before in earlier)
    return Standing("interrupted" if begun else "waiting")


def leave_strangers(sweep: Sweep) -> None:
    """Rename the folder of a sweep that was copied here with another experiment."""
    found = read_sweep(sweep.folder)
    if not owned(found, sweep.experiment):
        set_aside(sweep.folder, f"-of-{found['experiment']}")


def read_sweep(folder: Path) -> dict[str, Any]:
    """Read sweep.json; {} if there is none. Raises UserError if it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_bytes())
        if isinstance(values["experiment"], str) and all(
            isinstance(entry["run"], str) for entry in (*values["points"], *values.get("others", ()))
        ):
            return dict(values)
    except (ValueError, RecursionError, LookupError, TypeError):
        pass
    raise UserError("the state of the sweep is damaged", place=str(path), remedy="Delete this file and start the sweep again. Finished runs are kept.")  # fmt: skip
