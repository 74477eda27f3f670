"""Draw the losses of a sweep by its settings: a heat map, a line with a band, or a scatter plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.report.plots import COLOURS, INK, LOG_FROM, frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "val loss, nats per token"
BLUE, MARK = COLOURS["val"], COLOURS["train"]
DARK = "#333333"  # text on a light cell, also on a dark page
WIDTH, HEIGHT = 4.4, 3.1  # of a panel, inches
LEAST_WIDTH = 7.0  # of a picture, inches: a page shows each at its own width
MOST_CELLS = 12  # columns of a heat map with a figure in each cell
MOST_PANELS = 6
LONG = 12  # characters of a value on an axis


@dataclass(frozen=True)
class Spot:
    """One setting: its values of the keys, the loss of each seed, and whether it is the best."""

    settings: dict[str, Any]
    losses: list[float]
    best: bool = False

    @property
    def mean(self) -> float:
        return statistics.fmean(self.losses)

    @property
    def deviation(self) -> float:
        """Sample standard deviation over seeds (n - 1); 0 for one."""
        return statistics.stdev(self.losses) if len(self.losses) > 1 else 0.0


def picture(keys: Sequence[str], spots: Sequence[Spot], *, scattered: bool = False) -> Figure | None:
    """One key: a line. Two: a heat map. More, or points drawn at random (`scattered`): a panel for each key.

    None if no run has a loss. keys: dotted; empty where only seeds vary, which are in `spots` under "seed".
    """
    from matplotlib.figure import Figure

    measured = [spot for spot in spots if spot.losses]
    if not measured:
        return None
    keys = list(keys) or ["seed"]
    if len(keys) == 2 and not scattered:
        return heat_map(keys, spots)
    panels = keys[:MOST_PANELS]
    figure = Figure(figsize=(max(LEAST_WIDTH, WIDTH * len(panels)), HEIGHT), facecolor="white", layout="constrained")
    for index, key in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), index + 1)
        frame(ax, TITLE if index == 0 else "", key.rpartition(".")[2])
        ax.margins(x=0.06, y=0.12)
        if keys == ["seed"]:
            seeds(ax, measured)
        elif len(keys) == 1 and not scattered:
            line(ax, key, measured)
        else:
            scatter(ax, key, measured)
    return figure


def places(ax: Axes, key: str, spots: Sequence[Spot]) -> list[float]:
    """Positions of a key's values on the x axis. Numbers are placed by value, on a logarithmic axis if their range is wide."""
    from matplotlib.ticker import NullLocator

    values = [spot.settings[key] for spot in spots]
    distinct = list({repr(value): value for value in values}.values())
    if not all(is_number(value) for value in values):
        names = [shown(value) for value in distinct]
        ax.set_xticks(range(len(names)), names)
        return [float([repr(value) for value in distinct].index(repr(value))) for value in values]
    if min(values) > 0 and max(values) > 0.999 * LOG_FROM * min(values):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if len(distinct) <= 8:
        ax.set_xticks(distinct, [shown(value) for value in distinct])
        ax.xaxis.set_minor_locator(NullLocator())
    return list(map(float, values))


def line(ax: Axes, key: str, spots: Sequence[Spot]) -> None:
    """Means with a band of one standard deviation, and a dot for each seed."""
    xs = places(ax, key, spots)
    order = sorted(range(len(xs)), key=xs.__getitem__)
    points = [(xs[index], spots[index]) for index in order]
    means = [spot.mean for _, spot in points]
    at = [x for x, _ in points]
    if all(is_number(spot.settings[key]) for spot in spots):
        low = [spot.mean - spot.deviation for _, spot in points]
        high = [spot.mean + spot.deviation for _, spot in points]
        ax.fill_between(at, low, high, color=BLUE, alpha=0.18, linewidth=0)
        ax.plot(at, means, color=BLUE, linewidth=1.8, marker="o", markersize=4.5)
    else:
        ax.errorbar(at, means, [spot.deviation for _, spot in points], fmt="o", color=BLUE, markersize=5, capsize=3)
        ax.set_xlim(-0.6, max(at) + 0.6)
    for x, spot in points:
        if len(spot.losses) > 1:
            ax.plot([x] * len(spot.losses), spot.losses, ".", color=INK, alpha=0.45, markersize=4, zorder=3)
        if spot.best:
            ring(ax, x, spot)


def scatter(ax: Axes, key: str, spots: Sequence[Spot]) -> None:
    """A dot for each setting, with its standard deviation over seeds."""
    xs = places(ax, key, spots)
    ax.errorbar(
        xs, [spot.mean for spot in spots], [spot.deviation for spot in spots],
        fmt="o", color=BLUE, alpha=0.75, markersize=5, elinewidth=1,
    )  # fmt: skip
    for x, spot in zip(xs, spots, strict=True):
        if spot.best:
            ring(ax, x, spot)


def seeds(ax: Axes, spots: Sequence[Spot]) -> None:
    """A dot for each seed, their mean, and a band of one standard deviation."""
    losses = [spot.losses[0] for spot in spots]
    together = Spot({}, losses)
    ax.plot(range(len(losses)), losses, "o", color=BLUE, markersize=5)
    ax.axhline(together.mean, color=BLUE, linewidth=1.2)
    ax.axhspan(
        together.mean - together.deviation, together.mean + together.deviation, color=BLUE, alpha=0.18, linewidth=0
    )
    if len(losses) <= MOST_CELLS:
        ax.set_xticks(range(len(losses)), ["default" if (seed := spot.settings["seed"]) is None else str(seed) for spot in spots])  # fmt: skip


def ring(ax: Axes, x: float, spot: Spot) -> None:
    """Mark the best setting and write its mean."""
    ax.plot([x], [spot.mean], "o", markersize=11, markerfacecolor="none", markeredgecolor=MARK, markeredgewidth=1.6, zorder=4)  # fmt: skip
    ax.annotate(
        digits(spot.mean), (x, spot.mean), xytext=(11, 9), textcoords="offset points", ha="left", color=MARK, fontsize=9, bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def heat_map(keys: Sequence[str], spots: Sequence[Spot]) -> Figure:
    """Two keys: mean and deviation in each cell, dark where the loss is low. A setting without a completed run stays empty."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    across, down = (list({repr(spot.settings[key]): spot.settings[key] for spot in spots}.values()) for key in keys)
    cells = [[math.nan] * len(across) for _ in down]
    place = {}
    for spot in spots:
        column, row = (
            [repr(value) for value in values].index(repr(spot.settings[key]))
            for key, values in zip(keys, (across, down), strict=True)
        )
        place[row, column] = spot
        if spot.losses:
            cells[row][column] = spot.mean
    width, height = max(LEAST_WIDTH, 1.1 + 0.95 * min(len(across), 16)), max(2.2, 1.1 + 0.55 * min(len(down), 16))
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(cells, cmap="Blues_r", aspect="auto")
    ax.set_title(TITLE, loc="left", fontsize=10.5, color=INK)
    ax.set_xticks(range(len(across)), list(map(shown, across)))
    ax.set_yticks(range(len(down)), list(map(shown, down)))
    ax.set_xlabel(keys[0].rpartition(".")[2], color=INK, fontsize=9)
    ax.set_ylabel(keys[1].rpartition(".")[2], color=INK, fontsize=9)
    ax.tick_params(colors=INK, labelsize=9, length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    means = [spot.mean for spot in spots if spot.losses]
    middle = (min(means) + max(means)) / 2
    for (row, column), spot in place.items():
        if len(across) <= MOST_CELLS:
            dark = bool(spot.losses) and spot.mean < middle
            ax.text(column, row, written(spot), ha="center", va="center", fontsize=8.5, color="white" if dark else DARK)
        if spot.best:
            edge = Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=MARK, linewidth=2.2, clip_on=False, zorder=3
            )
            ax.add_patch(edge)
    return figure


def written(spot: Spot) -> str:
    """Mean and deviation on two lines."""
    if not spot.losses:
        return "-"
    return digits(spot.mean) + (f"\n± {digits(spot.deviation)}" if len(spot.losses) > 1 else "")


def digits(loss: float) -> str:
    """Three decimals, or three digits of a small number."""
    return f"{loss:.3g}" if 0 < abs(loss) < 0.1 else f"{loss:.3f}"


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as text on an axis."""
    text = f"{value:g}" if is_number(value) else str(value).lower() if isinstance(value, bool) else str(value)
    text = text.replace("$", r"\$")  # matplotlib would read it as mathematics
    return text if len(text) <= LONG else f"{text[:LONG]}..."
