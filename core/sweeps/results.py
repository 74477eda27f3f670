"""What a sweep found: a row per setting with mean and spread over seeds, as tables."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from core.report.grid import Spot
from core.report.tables import Table
from core.sweeps import names
from core.sweeps.plan import Point, Sweep, plain
from core.sweeps.space import Settings
from core.sweeps.state import Standing, State

MARK = "*"  # of a mean over the seeds that halving has kept
KEPT = (
    f"{MARK} Of the seeds that halving kept: too good, for those that were stopped are missing. Such a setting is never "
    "best, and is not compared."
)
NO_BEST = "No setting has all its seeds: none is best."
# Column -> field of summary.json. Means are over completed runs.
MEASURES = {
    "val_loss": "best_val_loss", "accuracy": "accuracy", "bits_per_byte": "bits_per_byte", "train_seconds": "train_seconds",
}  # fmt: skip


@dataclass
class Result:
    """One setting. runs: (point, standing, summary.json)."""

    settings: Settings
    runs: list[tuple[Point, Standing, dict[str, Any]]] = field(default_factory=list)
    best: bool = False

    def values(self, measure: str) -> list[float]:
        """A measure of each completed run that has it."""
        found = [summary.get(MEASURES[measure]) for _, standing, summary in self.runs if standing.status == "completed"]
        return [value for value in found if value is not None]

    @property
    def whole(self) -> bool:
        """Whether each seed has completed."""
        return self.count("completed") == len(self.runs)

    @property
    def chosen(self) -> bool:
        """Whether halving has stopped some of the seeds: what the others say is too good to be the setting's."""
        return bool(self.count("stopped") and self.count("completed"))

    def mean(self, measure: str) -> float | None:
        """None also where halving has chosen among the seeds."""
        return None if self.chosen else self.mean_of_kept(measure)

    def mean_of_kept(self, measure: str) -> float | None:
        """The mean over completed runs, whichever they are."""
        values = self.values(measure)
        return statistics.fmean(values) if values else None

    def deviation(self, measure: str) -> float | None:
        """Standard deviation of a sample (n - 1); None for fewer than two values, and where halving has chosen."""
        values = self.values(measure)
        return statistics.stdev(values) if len(values) > 1 and not self.chosen else None

    def count(self, status: str) -> int:
        return sum(standing.status == status for _, standing, _ in self.runs)

    @property
    def score(self) -> tuple[float, float]:
        """What makes one setting better than another, larger first, as a run chooses its best checkpoint."""
        loss = self.mean("val_loss")
        return (self.mean("accuracy") or 0.0, -loss if loss is not None else float("-inf"))


def results_of(state: State) -> list[Result]:
    """One for each setting, in the order of the grid; the best one that has a loss is marked; with halving, that has all its seeds."""
    found: dict[str, Result] = {}
    for point in state.sweep.points:
        result = found.setdefault(repr(point.settings), Result(point.settings))
        result.runs.append((point, state.standings[point.run], state.summary(point)))
    results = list(found.values())
    judged = [result for result in results if result.values("val_loss") and (result.whole or not state.sweep.halving)]
    if judged and len(results) > 1:
        max(judged, key=lambda result: result.score).best = True
    return results


def table(sweep: Sweep, results: list[Result]) -> Table:
    """For people: settings, number of completed runs, mean ± standard deviation over seeds, and a note."""
    keys = names.short_keys(sweep.space.keys)
    has_accuracy = any(result.values("accuracy") for result in results)
    columns = [*keys.values(), "runs", "val loss", *(["exact match"] if has_accuracy else []), "seconds", "note"]
    rows = [
        [
            *(names.shown(result.settings[key]) for key in keys),
            f"{result.count('completed')}{f' of {len(result.runs)}' if result.chosen else ''}",
            with_spread(result, "val_loss", ".4f"),
            *([with_spread(result, "accuracy", ".1%")] if has_accuracy else []),
            with_spread(result, "train_seconds", ".1f"),
            note(result),
        ]
        for result in results
    ]
    return Table(columns, rows)


def with_spread(result: Result, measure: str, form: str) -> str:
    """`0.4734 ± 0.0012`, without the ± for a single run, `-` for none; `0.4734*` for the seeds that halving kept."""
    mean, deviation = result.mean_of_kept(measure), result.deviation(measure)
    if mean is None:
        return "-"
    if result.chosen:
        return f"{mean:{form}}{MARK}"
    return f"{mean:{form}}" if deviation is None else f"{mean:{form}} ± {deviation:{form}}"


def remarks(state: State, results: list[Result]) -> list[str]:
    """What a reader of the table has to know besides."""
    found = [KEPT] if any(result.chosen for result in results) else []
    if state.sweep.halving and len(results) > 1 and not any(result.best for result in results):
        found.append(NO_BEST)
    if count := len(state.others):
        found.append(
            f"{count} run{'s' * (count > 1)} of this sweep {'are' if count > 1 else 'is'} left out, as this command does not "
            "ask for them. Give all values and seeds at once to see all."
        )
    return found


def note(result: Result) -> str:
    """What else is to be said of a setting."""
    parts = ["best"] if result.best else []
    steps = [str(standing.step) for _, standing, _ in result.runs if standing.status == "stopped"]
    if steps:
        parts.append(f"{len(steps)} stopped at step {', '.join(steps)}")
    parts += [f"{count} {status}" for status in ("failed", "interrupted", "waiting") if (count := result.count(status))]
    return "; ".join(parts)


def runs_table(state: State) -> Table:
    """Every run: its name, status, loss, and what went wrong."""
    rows = []
    for point in state.sweep.points:
        standing, loss = state.standings[point.run], state.loss(point)
        status = f"stopped at step {standing.step}" if standing.status == "stopped" else standing.status
        rows.append(
            [point.run, "" if point.seed is None else str(point.seed), status, "-" if loss is None else f"{loss:.4f}", standing.error]
        )  # fmt: skip
    return Table(["run", "seed", "status", "val loss", "error"], rows)


def figures_table(sweep: Sweep, results: list[Result]) -> Table:
    """For programs: dotted keys, and plain numbers; train_seconds stand last, as they alone differ from time to time."""
    measured = [f"{measure}{end}" for measure in MEASURES if measure != "train_seconds" for end in ("", "_std")]
    columns = [*sweep.space.keys, "completed", "failed", "stopped", "best", *measured, "train_seconds"]
    return Table(columns, [[cell(figures(result)[column]) for column in columns] for result in results])


def figures(result: Result) -> dict[str, Any]:
    """All of one result, by column."""
    counts = {status: result.count(status) for status in ("completed", "failed", "stopped")}
    spread: dict[str, float | None] = {}
    for measure in MEASURES:
        spread |= {measure: result.mean(measure), f"{measure}_std": result.deviation(measure)}
    return {**{key: plain(value) for key, value in result.settings.items()}, **counts, "best": result.best, **spread}


def cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def as_json(state: State, results: list[Result]) -> dict[str, Any]:
    """The sweep for a program: settings with their figures, and runs."""
    sweep = state.sweep
    return {
        "experiment": sweep.experiment.name,
        "sweep": sweep.name,
        "keys": sweep.space.keys,
        "remarks": remarks(state, results),
        "settings": [
            figures(result) | {"runs": [point.run for point, _, _ in result.runs]} for result in results
        ],
        "runs": [
            {"run": point.run, "seed": point.seed, **vars(state.standings[point.run]), "val_loss": state.loss(point)} for point in sweep.points
        ],
    }  # fmt: skip


def spots(sweep: Sweep, results: list[Result]) -> list[Spot]:
    """What the picture shows: losses by setting; of seeds alone, by seed."""
    if sweep.space.keys:
        return [
            Spot(result.settings, [] if result.chosen else result.values("val_loss"), result.best) for result in results
        ]
    return [
        Spot({"seed": point.seed}, [summary["best_val_loss"]])
        for result in results
        for point, standing, summary in result.runs
        if standing.status == "completed" and summary.get("best_val_loss") is not None
    ]
