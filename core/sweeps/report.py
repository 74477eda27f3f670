"""The report of a sweep: its state goes in, tables, a picture and a page go into its folder."""

from __future__ import annotations

import os
from pathlib import Path

from core import files
from core.report import tables
from core.report.comparison import Group, compare
from core.report.comparison_forms import grid, sentences
from core.report.document import Cards, Cell, Code, Document, Grid, Paragraph, Part, Picture, Section
from core.report.experiment_report import MOST_GROUPS
from core.report.grid import picture
from core.report.overlay import overlay
from core.report.plots import png
from core.report.run_report import duration, environment, quantity, settings, write_document
from core.report.runs import read_run
from core.sweeps.names import short_keys
from core.sweeps.names import shown as value_shown
from core.sweeps.plan import plain
from core.sweeps.results import Result, figures_table, remarks, results_of, runs_table, spots, table
from core.sweeps.state import State, command
from core.tracking.begin import flat

PICTURE, CURVES = "results.png", "curves.png"
EXPLAINED = (
    "Mean ± standard deviation (n - 1) over the seeds of completed runs; val loss: the lowest of a run, nats per token. "
    "Best is the highest exact match, then the lowest loss."
)


def write_results(state: State) -> list[Result]:
    """Write results.csv, runs.csv, results.png, curves.png, report.html and report.md into the sweep's folder."""
    sweep, results = state.sweep, results_of(state)
    files.write_text(sweep.folder / "results.csv", tables.as_csv(figures_table(sweep, results)) + "\n")
    files.write_text(sweep.folder / "runs.csv", tables.as_csv(runs_table(state)) + "\n")
    figure = picture(sweep.space.keys, spots(sweep, results), scattered=bool(sweep.space.draws))
    for name in (PICTURE, CURVES):  # of an earlier time; there may be nothing to draw now
        (sweep.folder / name).unlink(missing_ok=True)
    if figure is not None:
        files.write_bytes(sweep.folder / PICTURE, png(figure))
    write_document(sweep.folder, "report", document(state, results))
    return results


def document(state: State, results: list[Result]) -> Document:
    """All that is to be said of a sweep."""
    sweep = state.sweep
    keys, seen = sweep.space.keys, spots(sweep, results)
    shown: list[Part] = [grid(table(sweep, results)), Paragraph(EXPLAINED, "soft")]
    shown += [Paragraph(remark, "notice") for remark in remarks(state, results)]
    drawn = picture(keys, seen, scattered=bool(sweep.space.draws))
    if drawn is not None:
        shown.append(Picture("validation loss over the settings", {"loss": lambda: drawn}, PICTURE))
    head: list[Part] = [Paragraph(sweep.description, "lead"), cost(state)]
    return Document(
        f"{sweep.experiment.name} / {sweep.name}",
        head,
        [
            Section("Results", shown),
            *supported(state, results),
            Section("Runs", [runs(state)]),
            Section("Run it again", [Code(command())]),
            Section("Settings", base(state)),
            Section("Environment", machine(state)),
        ],
    )


def cost(state: State) -> Cards:
    """How many runs, and what they took together."""
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


def supported(state: State, results: list[Result]) -> list[Section]:
    """What the seeds support, the best setting against each other one, and their curves."""
    keys = short_keys(state.sweep.space.keys)
    ordered = sorted(
        (result for result in results if result.count("completed") and not result.chosen),
        key=lambda result: not result.best,
    )
    groups = [
        Group(
            ", ".join(f"{keys[key]}={value_shown(value)}" for key, value in result.settings.items()),
            [read_run(state.sweep.out / point.run) for point, _, summary in result.runs if summary],
        )
        for result in ordered[:MOST_GROUPS]
    ]
    if len(groups) < 2:
        return []
    comparison = compare(groups)
    files.write_bytes(state.sweep.folder / CURVES, png(overlay(groups)))
    told: list[Part] = [Paragraph(sentence) for sentence in sentences(comparison)]
    if len(ordered) > len(groups):
        told.append(Paragraph(f"The best setting and the first {len(groups) - 1} others are compared here.", "soft"))
    drawing = Picture("Validation loss by step, by tokens and by time", {"curves": lambda: overlay(groups)}, CURVES)
    return [Section("What the runs support", told), Section("Curves", [drawing])]


def runs(state: State) -> Grid:
    """Every run, with a link to its own report."""
    found = runs_table(state)
    rows = []
    for point, row in zip(state.sweep.points, found.rows, strict=True):
        page = state.sweep.out / point.run / "report.html"
        link = Path(os.path.relpath(page, state.sweep.folder)).as_posix() if page.is_file() else ""
        bad = "bad" if state.progress[point.run].status == "failed" else ""
        rows.append([Cell(row[0], link=link), Cell(row[1]), Cell(row[2], bad), *map(Cell, row[3:])])
    return Grid(found.columns, rows)


def base(state: State) -> list[Part]:
    """The keys that are the same in all runs."""
    first, *rest = [flat(point.config.model_dump()) for point in state.sweep.points]
    same = {
        key: plain(value) for key, value in first.items() if all(key in each and each[key] == value for each in rest)
    }
    return [Paragraph("What is the same in all runs.", "soft"), *settings(same)]


def machine(state: State) -> list[Part]:
    """What one of the runs ran on, a completed one if there is one."""
    begun = [(point.run, summary) for point in state.sweep.points if (summary := state.summary(point))]
    if not begun:
        return []
    run, summary = next((each for each in begun if each[1].get("status") == "completed"), begun[0])
    return [Paragraph(f"Of {run}.", "soft"), *environment(summary)]
