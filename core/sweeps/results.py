"""The results of a sweep as tables: for each setting, mean and standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.report.comparable import not_one_loss, not_one_text
from core.report.grid import Spot
from core.report.runs import RunData
from core.report.tables import Table
from core.roles import flat
from core.sweeps import names
from core.sweeps.plan import Point, Sweep, plain
from core.sweeps.space import Values
from core.sweeps.state import Standing, State
from core.tracking.figures import HELD_OUT, exact_match_columns, figure, loss_text, share_text

MARK = "*"  # marks a mean over only the seeds that halving did not stop
KEPT = (
    f"{MARK} Mean over the seeds that halving did not stop. It is too good, because the stopped seeds are missing. Such a "
    "setting is never marked as best, and it is not compared with others."
)
NOT_ALIKE = "The losses of these settings cannot be compared ({}), {}."
RANKED = "so bits per byte of the same text take their place"
NO_BEST = "No setting is marked as best, because none has all its seeds."
# Column -> field of summary.json. Means are over completed runs.
MEASURES = {
    "val_loss": "best_val_loss", "accuracy": "accuracy", "held_out": HELD_OUT, "bits_per_byte": "bits_per_byte", "train_seconds": "train_seconds",
}  # fmt: skip


@dataclass
class Result:
    """One setting. runs: (point, standing, summary.json)."""

    settings: Values
    runs: list[tuple[Point, Standing, dict[str, Any]]] = field(default_factory=list)
    best: bool = False

    def values(self, measure: str) -> list[float]:
        """A measure of each completed run that has it."""
        found = [
            figure(summary, MEASURES[measure]) for _, standing, summary in self.runs if standing.status == "completed"
        ]
        return [value for value in found if value is not None]

    @property
    def whole(self) -> bool:
        """Whether all seeds have completed."""
        return self.count("completed") == len(self.runs)

    @property
    def chosen(self) -> bool:
        """Whether halving stopped some seeds, but not all. The mean of the others is then too good."""
        return bool(self.count("stopped") and self.count("completed"))

    def mean(self, measure: str) -> float | None:
        """The mean over completed runs; None if there are none, or if halving stopped some seeds."""
        return None if self.chosen else self.mean_of_kept(measure)

    def mean_of_kept(self, measure: str) -> float | None:
        """The mean over completed runs, even if halving stopped others."""
        values = self.values(measure)
        return statistics.fmean(values) if values else None

    def deviation(self, measure: str) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two values, or if halving stopped some seeds."""
        values = self.values(measure)
        return statistics.stdev(values) if len(values) > 1 and not self.chosen else None

    def count(self, status: str) -> int:
        return sum(standing.status == status for _, standing, _ in self.runs)

    def score(self, measure: str | None) -> tuple[float, float]:
        """Higher is better: exact match, then a loss. A run chooses its checkpoint `best` by the same rule."""
        loss = self.mean(measure) if measure else None
        return (self.mean("accuracy") or 0.0, -loss if loss is not None else float("-inf"))


def results_of(state: State) -> list[Result]:
    """One result for each setting, in the order of the grid. Marks the best one; with halving, only if all its seeds completed."""
    found: dict[str, Result] = {}
    for point in state.sweep.points:
        result = found.setdefault(repr(point.settings), Result(point.settings))
        result.runs.append((point, state.standings[point.run], state.summary(point)))
    results = list(found.values())
    judged = [result for result in results if result.values("val_loss") and (result.whole or not state.sweep.halving)]
    if judged and len(results) > 1:
        measure = comparable_measure(results)
        best = max(judged, key=lambda result: result.score(measure))
        scores = [result.score(measure) for result in judged]
        best.best = scores.count(best.score(measure)) == 1  # without a measure, exact match alone decides
    return results


def comparable_measure(results: Sequence[Result]) -> str | None:
    """The loss that settings can be ranked by: val_loss, or bits per byte of the same text; None if neither is comparable."""
    runs = runs_of(results)
    if not not_one_loss(runs):
        return "val_loss"
    same_text = not not_one_text(runs) and all(run.summary.get("val_text") for run in runs)
    return "bits_per_byte" if same_text and all(run.summary.get("bits_per_byte") is not None for run in runs) else None


def runs_of(results: Sequence[Result]) -> list[RunData]:
    """The completed runs."""
    return [
        RunData(Path(point.run), summary, flat(point.config.model_dump()))
        for result in results
        for point, standing, summary in result.runs
        if standing.status == "completed"
    ]


def table(sweep: Sweep, results: list[Result]) -> Table:
    """The table for people: settings, number of completed runs, mean ± standard deviation over seeds, and a note."""
    keys = names.short_keys(sweep.space.keys)
    has_accuracy = any(result.values("accuracy") for result in results)
    title, prompts = exact_match_columns([[summary for _, _, summary in result.runs] for result in results])
    has_probes = any(result.values("held_out") for result in results)
    has_bits = comparable_measure(results) == "bits_per_byte"
    columns = [
        *keys.values(),
        "runs",
        *([title] if has_accuracy else []),
        *(["of held_out()"] if has_probes else []),
        "val loss",
        *(["bits per byte"] if has_bits else []),
        "seconds",
        "note",
    ]
    rows = [
        [
            *(names.shown(result.settings[key]) for key in keys),
            f"{result.count('completed')}{f' of {len(result.runs)}' if result.chosen else ''}",
            *([with_spread(result, "accuracy", share_text) + of] if has_accuracy else []),
            *([with_spread(result, "held_out", share_text)] if has_probes else []),
            with_spread(result, "val_loss", loss_text),
            *([with_spread(result, "bits_per_byte", loss_text)] if has_bits else []),
            with_spread(result, "train_seconds", "{:.1f}".format),
            note(result),
        ]
        for result, of in zip(results, prompts, strict=True)
    ]
    return Table(columns, rows)


def with_spread(result: Result, measure: str, form: Callable[[float], str]) -> str:
    """`0.4734 ± 0.0012`; `0.4734` for a single run or equal ones, `-` for none, `0.4734*` if halving stopped some seeds."""
    mean, deviation = result.mean_of_kept(measure), result.deviation(measure)
    if mean is None:
        return "-"
    if result.chosen:
        return form(mean) + MARK
    return f"{form(mean)} ± {form(deviation)}" if deviation else form(mean)


def remarks(state: State, results: list[Result]) -> list[str]:
    """Sentences that a reader of the table needs to know."""
    found = [KEPT] if any(result.chosen for result in results) else []
    if len(results) > 1 and (reasons := not_one_loss(runs_of(results))):
        ranked = RANKED if comparable_measure(results) else "so none is marked as best by its loss"
        found.append(NOT_ALIKE.format("; ".join(reasons), ranked))
    if state.sweep.halving and len(results) > 1 and not any(result.best for result in results):
        found.append(NO_BEST)
    if count := len(state.others):
        found.append(
            f"{count} run{'s' * (count > 1)} of this sweep {'are' if count > 1 else 'is'} left out, as this command does not "
            "ask for them. Give all values and seeds at once to see all."
        )
    return found


def note(result: Result) -> str:
    """The note on a setting: best, and how many runs are not complete."""
    parts = ["best"] if result.best else []
    steps = [str(standing.step) for _, standing, _ in result.runs if standing.status == "stopped"]
    if steps:
        parts.append(f"{len(steps)} stopped at step {', '.join(steps)}")
    parts += [f"{count} {status}" for status in ("failed", "interrupted", "waiting") if (count := result.count(status))]
    return "; ".join(parts)


def runs_table(state: State) -> Table:
    """All runs: name, seed, status, loss and error."""
    rows = []
    for point in state.sweep.points:
        standing, loss = state.standings[point.run], state.loss(point)
        status = f"stopped at step {standing.step}" if standing.status == "stopped" else standing.status
        rows.append(
            [point.run, "" if point.seed is None else str(point.seed), status, "-" if loss is None else loss_text(loss), standing.error]
        )  # fmt: skip
    return Table(["run", "seed", "status", "val loss", "error"], rows)


def figures_table(sweep: Sweep, results: list[Result]) -> Table:
    """The table for programs: dotted keys and plain numbers. train_seconds is last: only it varies between equal sweeps."""
    measured = [f"{measure}{end}" for measure in MEASURES if measure != "train_seconds" for end in ("", "_std")]
    columns = [*sweep.space.keys, "completed", "failed", "stopped", "best", *measured, "train_seconds"]
    return Table(columns, [[cell(figures(result)[column]) for column in columns] for result in results])


def figures(result: Result) -> dict[str, Any]:
    """The figures of one result, by column."""
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
    """The results for programs: settings with their figures, and runs."""
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
    """The points of the picture: losses by setting; if only seeds vary, by seed."""
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
