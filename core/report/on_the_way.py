"""How the metrics of a run went: the best value of each with its step, values on the way, and curves of the groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from core.report.document import Cell, PageTable, Paragraph, Part, Picture
from core.report.plots import MORE_COLOURS, SHARE, Panel, Row, draw
from core.tracking.figures import by_numbers, group_text, loss_text, share_text
from core.tracking.metrics import COLUMNS, EPOCH

FRACTIONS = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "all": 1.0}  # of a run's steps
MOST_ROWS = 12  # of a table that is not folded
MOST_GROUPS = len(MORE_COLOURS)  # curves in a picture
MEASURED = ("val_loss", "bits_per_byte", "param_norm")  # columns of every run whose values on the way are shown
GROUPED = {"val_accuracy": "exact match of validation prompts", "val_loss": "loss of validation completions"}


def on_the_way(rows: Sequence[Row], total: int | None) -> list[Part]:
    """A table with a row for each metric that is measured at evaluations. total: steps that were planned, if that is known."""
    measured = evaluations(rows)
    if len(measured) < 2:
        return []
    steps = moments(measured, total)
    columns = (
        "metric",
        "best",
        "at step",
        *(f"{name}: step {int(step):,}" for name, step in zip(FRACTIONS, steps, strict=True)),
    )
    cells = [row_of(measured, metric, steps) for metric in metrics_of(measured)]
    told = "Values are those of the latest evaluation at an eighth, a quarter, a half and the end of the steps."
    return [
        Paragraph(told, "soft"),
        PageTable(columns, cells, "" if len(cells) <= MOST_ROWS else f"All {len(cells)} metrics"),
    ]


def evaluations(rows: Sequence[Row]) -> list[Row]:
    """The rows of evaluations."""
    return [row for row in rows if "val_loss" in row]


def moments(measured: Sequence[Row], total: int | None) -> list[float]:
    """The steps of the latest evaluation at each of FRACTIONS of the steps; the first one where there is none so early."""
    last = total or measured[-1]["step"]
    return [at(measured, fraction * last)["step"] for fraction in FRACTIONS.values()]


def at(measured: Sequence[Row], step: float) -> Row:
    """The latest evaluation that is not after a step, or the first one."""
    return next((row for row in reversed(measured) if row["step"] <= step), measured[0])


def metrics_of(measured: Sequence[Row]) -> list[str]:
    """The names of metrics, groups behind the metric that they are of."""
    found = dict.fromkeys(name for row in measured for name in row)
    others = [name for name in found if name not in COLUMNS and name != EPOCH]
    families = list(dict.fromkeys(name.partition("/")[0] for name in others))
    others.sort(key=lambda name: (families.index(name.partition("/")[0]), by_numbers(name)))
    return [*(name for name in MEASURED if name in found), *others]


def row_of(measured: Sequence[Row], metric: str, steps: Sequence[float]) -> list[Cell]:
    """One metric. Without a direction that is better, it has no best value."""
    known = [row for row in measured if metric in row]
    family = metric.partition("/")[0]
    best = None
    if "accuracy" in family:
        best = max(known, key=lambda row: float(row[metric]))
    elif family.endswith("loss") or metric == "bits_per_byte":
        best = min(known, key=lambda row: float(row[metric]))
    values = [next((row[metric] for row in known if row["step"] == step), None) for step in steps]
    return [
        Cell(metric, "text"),
        Cell("" if best is None else value_text(metric, best[metric]), "mark"),
        Cell("" if best is None else f"{int(best['step']):,}", "mark"),
        *(Cell("" if value is None else value_text(metric, value), "mark") for value in values),
    ]


def value_text(metric: str, value: float) -> str:
    """A value of a metric for people."""
    if "accuracy" in metric:
        return share_text(value)
    return loss_text(value) if "loss" in metric or metric == "bits_per_byte" else f"{value:.4g}"


def group_pictures(rows: Sequence[Row]) -> list[Picture]:
    """A picture for each metric that was measured by group, with a curve for each of the first MOST_GROUPS groups."""
    measured = evaluations(rows)
    found = []
    for family, title in GROUPED.items():
        groups = [name for name in metrics_of(measured) if name.startswith(f"{family}/")]
        if len(groups) > 1 and len(measured) > 1:
            curves = {group_text(name.partition("/")[2]): name for name in groups[:MOST_GROUPS]}
            more = f", {MOST_GROUPS} of {len(groups)} groups" if len(groups) > MOST_GROUPS else ""
            unit = SHARE if family.endswith("accuracy") else "nats per token"
            panel = Panel(f"{title}, by step{more}", "step", curves, unit)
            found.append(Picture(title, {title: partial(draw, rows, [panel])}, f"groups_{family}.png"))
    return found


def values_on_the_way(runs: Sequence[tuple[Sequence[Row], int | None]], metric: str) -> list[list[float]]:
    """Of several runs, each with its rows and planned steps: the values of a metric at each of FRACTIONS."""
    found: list[list[float]] = [[] for _ in FRACTIONS]
    for rows, total in runs:
        measured = [row for row in evaluations(rows) if metric in row]
        if measured:
            last = total or measured[-1]["step"]
            for values, fraction in zip(found, FRACTIONS.values(), strict=True):
                values.append(float(at(measured, fraction * last)[metric]))
    return found
