"""Write the report of a sweep into its folder: tables, pictures and a page."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING

from core import files
from core.report import tables
from core.report.comparison import Comparison, Group, compare, mean_and_deviation
from core.report.comparison_forms import grid, sentences
from core.report.document import Cards, Cell, Code, Document, PageSection, PageTable, Paragraph, Part, Picture
from core.report.experiment_report import MOST_GROUPS, relative
from core.report.grid import picture
from core.report.on_the_way import FRACTIONS, value_text, values_on_the_way
from core.report.overlay import overlay
from core.report.plots import SHARE, Panel, draw, png
from core.report.run_report import duration, environment, planned, quantity, settings, write_document
from core.report.runs import read_run
from core.roles import flat
from core.sweeps import names
from core.sweeps.plan import plain
from core.sweeps.results import Result, comparable_measure, figures_table, remarks, results_of, runs_table, spots, table
from core.sweeps.state import State
from core.tracking.metrics import read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE, CURVES, SLICES = "results.png", "curves.png", "slices.png"
EXPLAINED = (
    "Mean ± standard deviation (n - 1) over the seeds of completed runs; val loss: of checkpoint best, nats per token. "
    "Best is the highest exact match, then the lowest loss."
)


def write_results(state: State) -> tuple[list[Result], list[str]]:
    """Write results.csv, runs.csv, results.png, curves.png, report.html and report.md into the sweep's folder.

    Returns the results, and for each setting a sentence: whether it really differs from the best one, which is first. The
    next best setting is the first that is compared.
    """
    sweep, results = state.sweep, results_of(state)
    files.write_text(sweep.folder / "results.csv", tables.as_csv(figures_table(sweep, results)) + "\n")
    files.write_text(sweep.folder / "runs.csv", tables.as_csv(runs_table(state)) + "\n")
    whole = [result for result in results if result.count("completed") and not result.chosen]
    measure = comparable_measure(results)
    ranked = sorted(whole, key=lambda result: (result.best, result.score(measure)), reverse=True)
    groups = groups_of(state, ranked[:MOST_GROUPS])
    comparison = compare(groups) if len(groups) > 1 else None
    figures = {
        PICTURE: None
        if measure != "val_loss"
        else picture(sweep.space.keys, spots(sweep, results), scattered=bool(sweep.space.draws)),
        CURVES: overlay(groups) if len(groups) > 1 else None,
        SLICES: slice_lines(state, results),
    }
    for name, figure in figures.items():
        if figure is None:
            (sweep.folder / name).unlink(missing_ok=True)  # of an earlier report
        else:
            files.write_bytes(sweep.folder / name, png(figure))
    told = supported(comparison, len(whole))
    write_document(sweep.folder, "report", document(state, results, told, figures))
    return results, [verdict.sentence for verdict in comparison.conclusions] if comparison else []


def document(state: State, results: list[Result], told: list[Part], figures: dict[str, Figure | None]) -> Document:
    """The content of the report. told: which differences are real. figures: by file name."""
    sweep = state.sweep
    shown: list[Part] = [grid(table(sweep, results)), Paragraph(EXPLAINED, "soft")]
    shown += [Paragraph(remark, "notice") for remark in remarks(state, results)]
    shown += drawn("validation loss over the settings", PICTURE, figures)
    head: list[Part] = [Paragraph(sweep.description, "lead"), cost(state)]
    return Document(
        f"{sweep.experiment.name} / {sweep.name}",
        head,
        [
            PageSection("Results", shown),
            PageSection("What the runs support", told),
            PageSection("On the way", slices(state, results, figures)),
            PageSection("Curves", drawn("Validation loss by step, by tokens and by time", CURVES, figures)),
            PageSection("Runs", [runs(state)]),
            PageSection("Run it again", [Code(sweep.call.command)]),
            PageSection("Settings", base(state)),
            PageSection("Environment", machine(state)),
        ],
    )


def cost(state: State) -> Cards:
    """The number of runs, and what they cost in total."""
    summaries = [state.summary(point) for point in state.sweep.points]
    done = sum(summary.get("status") == "completed" for summary in summaries)
    seconds, flops = (sum(summary.get(key) or 0 for summary in summaries) for key in ("wall_seconds", "flops"))
    tokens = sum(summary.get("tokens") or 0 for summary in summaries)
    remark = "" if done == len(summaries) else f"{done} of them complete"
    return Cards(
        [
            (f"{len(summaries):,}", "runs", remark),
            (duration(seconds), "of computing", "all runs together"),
            (f"{tokens:,}", "tokens", ""),
            (f"{quantity(flops)}FLOP", "operations", "estimated"),
        ]
    )


def slices(state: State, results: list[Result], figures: dict[str, Figure | None]) -> list[Part]:
    """The metric that chooses checkpoints at fractions of the steps, for each setting: mean ± deviation over its seeds."""
    found = values_by_setting(state, results)
    if len(results) < 2 or not any(any(values) for values in found):
        return []
    metric, keys = metric_of(state), names.short_keys(state.sweep.space.keys)
    cells = [
        [
            *(Cell(names.shown(result.settings[key])) for key in keys),
            *(Cell(mean_and_deviation(of_slice, partial(value_text, metric)), "mark") for of_slice in values),
        ]
        for result, values in zip(results, found, strict=True)
    ]
    told = f"{metric} at the latest evaluation by then, mean ± standard deviation over the seeds of completed runs."
    columns = (*keys.values(), *(f"{name} steps" if name == "all" else f"{name} of the steps" for name in FRACTIONS))
    return [Paragraph(told, "soft"), *drawn(f"{metric} on the way", SLICES, figures), PageTable(columns, cells)]


def slice_lines(state: State, results: list[Result]) -> Figure | None:
    """The same as lines, one for each fraction, over a single key of numbers. None for other sweeps."""
    keys = state.sweep.space.keys
    settings = [result.settings[keys[0]] for result in results] if len(keys) == 1 else []
    if len(settings) < 2 or not all(type(value) in (int, float) for value in settings):
        return None
    found = values_by_setting(state, results)
    rows = [
        {"x": float(value)}
        | {str(index): statistics.fmean(of_slice) for index, of_slice in enumerate(values) if of_slice}
        for value, values in sorted(zip(settings, found, strict=True), key=lambda each: each[0])
    ]
    metric = metric_of(state)
    curves = {name: str(index) for index, name in enumerate(FRACTIONS)}
    unit = SHARE if metric.endswith("accuracy") else "nats per token"
    return draw(
        rows, [Panel(f"{metric} at fractions of the steps", "x", curves, unit)], names.short_keys(keys)[keys[0]]
    )


def metric_of(state: State) -> str:
    """The metric of metrics.csv that chooses checkpoints: exact match where there is one."""
    return "val_accuracy" if any(result.values("accuracy") for result in results_of(state)) else "val_loss"


def values_by_setting(state: State, results: list[Result]) -> list[list[list[float]]]:
    """For each setting, and each of FRACTIONS: the values of `metric_of` in its completed runs."""
    metric = metric_of(state)
    return [
        values_on_the_way(
            [
                (
                    read_rows(point.folders(state.sweep.out)[-1] / "metrics.csv"),
                    planned(flat(point.config.model_dump())),
                )
                for point, standing, _ in result.runs
                if standing.status == "completed"
            ],
            metric,
        )
        for result in results
    ]


def drawn(label: str, name: str, figures: dict[str, Figure | None]) -> list[Part]:
    """A picture, if there is one."""
    figure = figures[name]
    return [] if figure is None else [Picture(label, {label: lambda: figure}, name)]


def groups_of(state: State, results: list[Result]) -> list[Group]:
    """A group of runs for each setting, for the comparison."""
    keys = names.short_keys(state.sweep.space.keys)
    return [
        Group(
            ", ".join(f"{keys[key]}={names.shown(value)}" for key, value in result.settings.items()),
            [read_run(point.folders(state.sweep.out)[-1]) for point, _, summary in result.runs if summary],
        )
        for result in results
    ]


def supported(comparison: Comparison | None, settings: int) -> list[Part]:
    """What the comparison of the first setting with each of the others says. settings: how many could be compared."""
    if comparison is None:
        return []
    told: list[Part] = [Paragraph(sentence) for sentence in sentences(comparison)]
    if settings > len(comparison.groups):
        others = len(comparison.groups) - 1
        told.append(Paragraph(f"The best setting and the {others} next best are compared here.", "soft"))
    return told


def runs(state: State) -> PageTable:
    """All runs, with links to their own reports."""
    found = runs_table(state)
    rows = []
    for point, row in zip(state.sweep.points, found.rows, strict=True):
        page = state.sweep.out / point.run / "report.html"
        link = relative(page, state.sweep.folder) if page.is_file() else ""
        bad = "bad" if state.standings[point.run].status == "failed" else ""
        rows.append([Cell(row[0], link=link), Cell(row[1]), Cell(row[2], bad), *map(Cell, row[3:])])
    return PageTable(found.columns, rows)


def base(state: State) -> list[Part]:
    """The keys that are the same in all runs."""
    first, *rest = [flat(point.config.model_dump()) for point in state.sweep.points]
    same = {
        key: plain(value) for key, value in first.items() if all(key in each and each[key] == value for each in rest)
    }
    return [Paragraph("These keys are the same in all runs.", "soft"), *settings(same)]


def machine(state: State) -> list[Part]:
    """The environment of one run, a completed one if possible."""
    begun = [(point.run, summary) for point in state.sweep.points if (summary := state.summary(point))]
    if not begun:
        return []
    run, summary = next((each for each in begun if each[1].get("status") == "completed"), begun[0])
    return [Paragraph(f"Of {run}.", "soft"), *environment(summary)]
