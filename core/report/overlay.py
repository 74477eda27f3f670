"""Draw the curves of groups in one picture, by step, by tokens and by seconds, with seeds as a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.report import plots
from core.report.comparison import Group
from core.report.plots import BOTTOM, HEIGHT, INK, LEFT, RIGHT, TOP, WIDTH, Panel, points_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]
# Okabe and Ito's palette (2008), safe for colour blindness, without its yellow, which is hard to see on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
DASHES = ("-", "--", ":")  # when the colours repeat, the line style changes
LOG_FROM = 3  # losses that fall by more than this factor are drawn on a logarithmic axis, so that their ends stay apart
MARGIN = 0.06  # of the height, above and below
LABEL_CHARACTERS, CHARACTER = 34, 0.078  # of a group's name in the picture; inches of one at 9 points
FOOT = 0.25  # inches below the panels, for the line that explains the band
LOSS = {"val": "val_loss"}
ACCURACY = Panel("exact match by step, validation", "step", {"val": "val_accuracy"}, plots.SHARE)
PANELS = (
    Panel("val loss by step", "step", LOSS, plots.NATS),
    Panel("val loss by tokens", "tokens", LOSS, plots.NATS),
    Panel("val loss by time", "seconds", LOSS, plots.NATS),
    ACCURACY,
)


@dataclass(frozen=True)
class Band:
    """x, and the mean, lowest and highest value over seeds at each x. last: the mean of the runs' own last values."""

    x: Values
    mean: Values
    low: Values
    high: Values
    seeds: int
    last: float


def overlay(groups: Sequence[Group]) -> Figure:
    """All groups in each panel. Exact match is drawn if a group has it."""
    from matplotlib.figure import Figure

    bands = {panel.title: [band(group, panel) for group in groups] for panel in PANELS}
    panels = [panel for panel in PANELS if panel is not ACCURACY or any(bands[panel.title])]
    names = labels([group.name for group in groups])
    right = 0.2 + CHARACTER * (max(map(len, names)) + 6)
    columns = 2  # more would be too small to read on a page
    wide, high = (WIDTH - RIGHT + right) * columns, HEIGHT * -(-len(panels) // columns) + FOOT  # inches
    figure = Figure(figsize=(wide, high), facecolor="white")
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        left, top = wide / columns * column + LEFT, high - HEIGHT * row - TOP
        box = (left, top - HEIGHT + TOP + BOTTOM, wide / columns - LEFT - right, HEIGHT - TOP - BOTTOM)
        ax = figure.add_axes((box[0] / wide, box[1] / high, box[2] / wide, box[3] / high))
        fill(ax, panel, names, bands[panel.title])
    if any(found and found.seeds > 1 for row in bands.values() for found in row):
        figure.text(LEFT / wide, 0.08 / high, "Line: mean over seeds. Band: from the lowest to the highest seed.", fontsize=8, color=INK)  # fmt: skip
    return figure


def band(group: Group, panel: Panel) -> Band | None:
    """The group's curve; None if it has no points.

    By time, runs are averaged at the steps that all of them evaluated, at the mean of their seconds, because no two runs
    have the same times. Otherwise the curve covers the range of x that all have, with linear interpolation for runs that
    evaluated at other x.
    """
    column = panel.curves["val"]
    if panel.x == "seconds" and (found := by_steps(group, column)):
        return found
    curves = [np.array(sorted(points)) for run in group.drawn if (points := points_of(run.rows, panel.x, column))]
    if not curves:
        return None
    start, end = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    if start > end:
        return None
    every = np.unique(np.concatenate([[start, end], *(curve[:, 0] for curve in curves)]))
    x = every[(every >= start) & (every <= end)]
    x = x[np.unique(np.linspace(0, len(x) - 1, plots.MOST_POINTS).round().astype(np.int64))]
    ys = np.array([np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves])  # (seeds, points)
    return Band(x, ys.mean(0), ys.min(0), ys.max(0), len(curves), float(np.mean([curve[-1, 1] for curve in curves])))


def by_steps(group: Group, column: str) -> Band | None:
    """The curve by seconds at the steps that all runs evaluated; None if there are none, as with a time limit."""
    measured = [run.rows for run in group.drawn if points_of(run.rows, "step", column)]
    runs = [(dict(points_of(rows, "step", "seconds")), dict(points_of(rows, "step", column))) for rows in measured]
    steps = sorted(set.intersection(*(set(clock) & set(values) for clock, values in runs))) if runs else []
    if not steps:
        return None
    x = np.array([[clock[step] for step in steps] for clock, _ in runs]).mean(0)
    ys = np.array([[values[step] for step in steps] for _, values in runs])  # (seeds, points)
    return Band(x, ys.mean(0), ys.min(0), ys.max(0), len(runs), float(ys[:, -1].mean()))


def fill(ax: Axes, panel: Panel, names: Sequence[str], bands: Sequence[Band | None]) -> None:
    """Draw a panel, with each group's name and last value beside its end."""
    plots.style(ax, panel)
    ends: list[tuple[str, str, float, float]] = []
    for index, (name, found) in enumerate(zip(names, bands, strict=True)):
        if found is None:
            continue
        colour = PALETTE[index % len(PALETTE)]
        line = DASHES[index // len(PALETTE) % len(DASHES)]
        dots = "o" if len(found.x) == 1 else None
        if found.seeds > 1:
            ax.fill_between(found.x, found.low, found.high, color=colour, alpha=0.18, linewidth=0, zorder=1)
        ax.plot(found.x, found.mean, color=colour, linestyle=line, linewidth=1.6, marker=dots, markersize=3.5, zorder=2)
        last = plots.shown(found.last, plots.ACCURACY if panel is ACCURACY else panel)
        ends.append((f"{name} {last}", colour, float(found.x[-1]), float(found.mean[-1])))
    if panel is ACCURACY:
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        fit_losses(ax, [found for found in bands if found is not None])
    end = max((x for _, _, x, _ in ends), default=1.0)
    if panel.x == "tokens" and end >= 10_000:
        ax.xaxis.set_major_formatter(lambda value, _: in_short(value))
    ax.set_xlim(0, end * 1.01 or 1)
    plots.label_ends(ax, ends)


def fit_losses(ax: Axes, bands: Sequence[Band]) -> None:
    """Set the limits for losses, so that every curve is in the panel as a whole."""
    if not bands:
        return
    low = min(float(found.low.min()) for found in bands)
    high = max(float(found.high.max()) for found in bands)
    if low > 0 and high > LOG_FROM * low:
        plots.use_log_scale(ax)
        ax.set_ylim(low / 1.1, high * 1.1)
    elif high > low:
        ax.set_ylim(low - MARGIN * (high - low), high + MARGIN * (high - low))


def in_short(count: float) -> str:
    """500k, 1.5M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g}{letter}"
    return f"{count:g}"


def labels(names: Sequence[str]) -> list[str]:
    """Names as the picture shows them: settings that all have are left out, and names that would look alike are numbered."""
    parts = [name.split(", ") for name in names]
    common = set(parts[0]).intersection(*parts[1:]) if len(parts) > 1 else set()
    short = [
        shortened(", ".join(part for part in each if part not in common) or name)
        for each, name in zip(parts, names, strict=True)
    ]
    if len(set(short)) == len(short):
        return short
    return [f"{number}: {name}" for number, name in enumerate(short, 1)]


def shortened(name: str) -> str:
    """A name that fits beside a panel. The middle is cut, as the end says more. matplotlib would read $ as mathematics."""
    half = LABEL_CHARACTERS // 2
    short = name if len(name) <= LABEL_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}"
    return short.replace("$", r"\$")


def picture(figure: Figure, suffix: str) -> bytes:
    """The figure as a file: .png, or .svg with text as text."""
    return plots.png(figure) if suffix == ".png" else plots.svg_file(figure, "compare")
