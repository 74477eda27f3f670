"""Draw the plots of a run from the rows of metrics.csv, as PNG files and as SVG for a web page.

matplotlib is imported where it is used, as Figure objects: importing pyplot would take 0.3 s more.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import files
from core.tracking.figures import share_text
from core.tracking.metrics import read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
# Blue and vermilion of Okabe and Ito, safe for colour blindness.
COLOURS = {"val": "#0072b2", "train": "#d55e00", "held out": "#009e73", "": "#0072b2"}  # and bluish green
MORE_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7f7f7f",
    "#8c564b",
)  # of other curves
INK = "#444444"  # text and axes
# The colours of a web page that replace them and follow light and dark mode.
PAGE_COLOURS = {
    "#0072b2": "var(--blue, #0072b2)",
    "#d55e00": "var(--orange, #d55e00)",
    "#009e73": "var(--green, #009e73)",
    INK: "currentColor",
}
# Of a panel and its margins, inches. The right margin has room for a name of SHORT_NAME letters and a value.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 4.6, 3.1, 0.85, 0.95, 0.35, 0.5
SHORT_NAME, LETTER = 5, 0.1
DPI = 150
WIDEST = 1.5  # CSS pixels of a page for each point of a figure: letters of 9 points become 13.5 pixels
LABEL_GAP = 0.075  # of an axis' height, between two labels
MOST_POINTS = 2_000  # of a curve: more than a panel has pixels
LEARNT = 0.99  # accuracy from which a side counts as learnt
LOG_FROM = 10  # a loss that falls by more than this factor is drawn on a logarithmic axis


@dataclass(frozen=True)
class Panel:
    """One pair of axes. x: a column of metrics.csv; curves: name in the picture -> column; y: the name of their axis."""

    title: str
    x: str
    curves: dict[str, str]
    y: str


LOSS = {"train": "train_loss", "val": "val_loss"}
NATS, SHARE = "loss, nats per token", "exact match, % of prompts"
BY_STEP, BY_SECONDS = Panel("loss by step", "step", LOSS, NATS), Panel("loss by time", "seconds", LOSS, NATS)
OF_SIDES = {"train": "train_accuracy", "val": "val_accuracy", "held out": "held_out_accuracy"}
ACCURACY = Panel("exact match by step", "step", OF_SIDES, SHARE)
LEARNING_RATE = Panel("learning rate by step", "step", {"": "learning_rate"}, "learning rate")


def write_plots(folder: Path, rows: Sequence[Row] | None = None) -> list[Path]:
    """Draw loss_curves.png and lr_schedule.png of a run folder. rows: of its metrics.csv, if they are read already.

    Returns their paths.
    """
    rows = read_rows(folder / "metrics.csv") if rows is None else rows
    paths = []
    for name, figure in (("loss_curves.png", loss_curves(rows)), ("lr_schedule.png", lr_schedule(rows))):
        paths.append(folder / name)
        files.write_bytes(paths[-1], png(figure))
    return paths


def loss_curves(rows: Sequence[Row]) -> Figure:
    """Loss by step and by seconds, and exact match by step if it was measured. Any column may be blank in any row."""
    return draw(rows, [BY_STEP, BY_SECONDS, *present(rows, [ACCURACY])])


def lr_schedule(rows: Sequence[Row]) -> Figure:
    """The learning rate by step."""
    return draw(rows, [LEARNING_RATE])


def present(rows: Sequence[Row], panels: Sequence[Panel]) -> list[Panel]:
    """The panels that have points to show."""
    return [panel for panel in panels if any(has_points(rows, panel.x, column) for column in panel.curves.values())]


def draw(rows: Sequence[Row], panels: Sequence[Panel], x: str = "") -> Figure:
    """Panels side by side, with room for labels to the right of each. x: the name of their x axis, if it is no known one."""
    from matplotlib.figure import Figure

    # A long name beside a curve needs more room: the last panel, which has it, is wider.
    longest = max(
        (len(name) for panel in panels for name, y in panel.curves.items() if has_points(rows, panel.x, y)), default=0
    )
    more = max(0, longest - SHORT_NAME) * LETTER
    total = WIDTH * len(panels) + more
    figure = Figure(figsize=(total, HEIGHT), facecolor="white")
    for index, panel in enumerate(panels):
        left, width = (WIDTH * index + LEFT) / total, (WIDTH - LEFT - RIGHT) / total
        ax = figure.add_axes((left, BOTTOM / HEIGHT, width, 1 - (TOP + BOTTOM) / HEIGHT))
        fill(ax, rows, panel)
        if x:
            ax.set_xlabel(x, color=INK, fontsize=9)
    return figure


def fill(ax: Axes, rows: Sequence[Row], panel: Panel) -> None:
    """Draw a panel, with the name and the final value beside the end of each curve."""
    style(ax, panel)
    ends: list[tuple[str, str, float, float]] = []
    values: list[float] = []
    for number, (name, column) in enumerate(panel.curves.items()):
        colour = COLOURS.get(name, MORE_COLOURS[number % len(MORE_COLOURS)])
        points = thinned(points_of(rows, panel.x, column))
        if not points:
            continue
        xs, ys = zip(*points, strict=True)
        values += ys
        front = name != "train"  # the noisy curve is thin and behind
        dots = "o" if len(points) == 1 or (front and len(points) <= 30 and len(panel.curves) > 1) else None
        ax.plot(xs, ys, color=colour, linewidth=1.8 if front else 1.1, marker=dots, markersize=3.5, zorder=2 + front)
        ends.append((f"{name} {shown(ys[-1], panel)}".strip(), colour, xs[-1], ys[-1]))
    if panel.y == SHARE:
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    elif panel is LEARNING_RATE:
        ax.set_ylim(0, 1.08 * max(values, default=0) or 1)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    elif values and min(values) > 0 and max(values) > LOG_FROM * min(values):
        use_log_scale(ax)
    ax.set_xlim(0, max((x for _, _, x, _ in ends), default=1) * 1.01 or 1)
    label_ends(ax, ends)
    if panel in (BY_STEP, ACCURACY):
        mark(ax, milestones(rows), height=0.5 if panel is ACCURACY else 0.68)


def milestones(rows: Sequence[Row]) -> dict[str, float]:
    """The first steps of "memorised", train accuracy >= LEARNT, and "generalised", val accuracy >= LEARNT, if they came."""
    columns = {"memorised": "train_accuracy", "generalised": "val_accuracy"}
    steps = {
        name: next((row["step"] for row in rows if row.get(of, 0.0) >= LEARNT), None) for name, of in columns.items()
    }
    return {name: step for name, step in steps.items() if step is not None}


def mark(ax: Axes, steps: Mapping[str, float], height: float) -> None:
    """A dashed line at each step, with its name along it, at a height of the panel. Names of one step stand on one line."""
    names: dict[float, list[str]] = {}
    for name, step in steps.items():
        names.setdefault(step, []).append(name)
    last = ax.get_xlim()[1]
    for step, of_step in names.items():
        ax.axvline(step, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        left = step > 0.93 * last  # of the line, where there is no room to its right
        ax.annotate(
            ", ".join(of_step),
            (step, height),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if left else 3, 0),
            textcoords="offset points",
            rotation=90,
            ha="right" if left else "left",
            va="center",
            fontsize=7.5,
            color=INK,
        )


def use_log_scale(ax: Axes) -> None:
    """A logarithmic y axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def shown(value: float, panel: Panel) -> str:
    """A final value as it is written in the plot."""
    if panel.y == SHARE:
        return share_text(value)
    return f"{value:.3g}" if panel is LEARNING_RATE or value < 0.1 else f"{value:.3f}"


def frame(ax: Axes, title: str, x: str) -> None:
    """A title, a name for the x axis, a light grid and no box."""
    ax.set_title(title, loc="left", fontsize=10.5, color=INK)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(INK)
    ax.grid(color=INK, alpha=0.15, linewidth=0.7)
    ax.tick_params(colors=INK, labelsize=9, length=0, which="both")
    ax.set_xlabel(x, color=INK, fontsize=9)


def style(ax: Axes, panel: Panel) -> None:
    """The frame, with thousands separated by commas."""
    frame(ax, panel.title, {"step": "optimizer steps", "seconds": "seconds of training"}.get(panel.x, panel.x))
    ax.set_ylabel(panel.y, color=INK, fontsize=9)
    ax.set_facecolor("none")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == int(value) else f"{value:g}")
    ax.locator_params(axis="y", nbins=6)


def label_ends(ax: Axes, ends: list[tuple[str, str, float, float]]) -> None:
    """Write (text, colour, x, y) to the right of the panel at the height of y, moved apart where they would overlap."""
    ax.autoscale_view()  # otherwise the limits are still those of an empty panel
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for _, _, x, y in ends]
    for (text, colour, _, _), height in zip(ends, spread(heights, LABEL_GAP), strict=True):
        ax.text(1.02, height, text, color=colour, fontsize=9, va="center", transform=ax.transAxes)


def spread(heights: list[float], gap: float) -> list[float]:
    """Move heights in [0, 1] apart, in their order, until neighbours are `gap` apart. They stay in [0, 1] as long as they fit.

    The i-th height from below, minus i gaps, must not decrease. Neighbours that do are pooled at their mean, which
    minimises the squared movement (isotonic regression, Barlow et al. 1972).
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    pools: list[tuple[float, int]] = []  # mean and number of labels, from below
    for place, index in enumerate(order):
        mean, count = heights[index] - place * gap, 1
        while pools and pools[-1][0] > mean:
            below, labels = pools.pop()
            mean, count = (below * labels + mean * count) / (labels + count), labels + count
        pools.append((mean, count))
    room = 1 - gap * max(0, len(heights) - 1)
    bounded = [min(max(mean, min(0.0, room)), max(0.0, room)) for mean, count in pools for _ in range(count)]
    result = list(heights)
    for place, index in enumerate(order):
        result[index] = bounded[place] + place * gap
    return result


def has_points(rows: Sequence[Row], x: str, y: str) -> bool:
    """Whether `points_of` would find any."""
    return any(x in row and y in row and math.isfinite(row[y]) for row in rows)


def points_of(rows: Sequence[Row], x: str, y: str) -> list[tuple[float, float]]:
    """(x, y) of the rows that have both, with finite y."""
    return [(row[x], row[y]) for row in rows if x in row and y in row and math.isfinite(row[y])]


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most about MOST_POINTS of a curve: the first and last, and the lowest and highest of each stretch between them."""
    if len(points) <= MOST_POINTS:
        return points
    size = -(-2 * len(points) // MOST_POINTS)
    kept = [points[0]]
    for begin in range(1, len(points) - 1, size):
        stretch = points[begin : min(begin + size, len(points) - 1)]
        kept += sorted({min(stretch, key=height), max(stretch, key=height)})
    return [*kept, points[-1]]


def height(point: tuple[float, float]) -> float:
    return point[1]


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def svg_file(figure: Figure, salt: str, *, transparent: bool = False) -> bytes:
    """The figure as an SVG file with text as text, always the same bytes. salt: for the ids in it."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=transparent, metadata={"Date": None})
    return buffer.getvalue()


def svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element for a web page: transparent, text as text, the page's colours. label: for screen readers."""
    drawing = svg_file(figure, label, transparent=True).decode()
    width, height = figure.get_size_inches() * 72
    # Alone in its row a small figure would fill it, with huge letters.
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {WIDEST * width:.0f}px" role="img" '
        f'aria-label="{html.escape(label)}">'
    )
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", drawing.partition("<svg")[2].partition(">")[2], flags=re.DOTALL)
    for colour, page_colour in PAGE_COLOURS.items():
        body = body.replace(colour, page_colour)
    return head + body
