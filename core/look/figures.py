"""Draw attention maps, embeddings and spectra, as figures of matplotlib.

Shapes: L layers, H heads, T tokens, N tokens of the vocabulary.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from core.look.attention import Array, AttentionMaps
from core.look.embeddings import Embeddings, fourier_spectrum, principal_plane
from core.report.plots import COLOURS, INK, frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_ROW = 4  # heads side by side
MOST_TICKS = 36  # tokens that are named along an axis
POINT_LABELS = 130  # points with a name beside them
MOST_JOINED = 20  # numbers that are joined by a line
SIDE = 2.2  # of a panel, inches


def attention_figure(maps: AttentionMaps, layer: int) -> Figure:
    """The attention of all heads of a layer (from 0): the row's token looks at the column's. A line ends the prompt."""
    from matplotlib.figure import Figure

    H, T = maps.weights.shape[1], len(maps.tokens)
    columns = min(H, PER_ROW)
    rows = -(-H // columns)
    side = min(4.5, max(SIDE, 0.125 * min(T, MOST_TICKS)))
    names = [token if len(token) <= 8 else token[:7] + "\u2026" for token in map(printable, maps.tokens)]
    longest = max(map(len, names))
    label = 0.12 + 0.085 * longest  # room for the names of tokens beside a panel, inches
    left, right, top, below, between = label + 0.28, 0.85, 0.72, label + 0.3, label + 0.3
    width = left + columns * side + (columns - 1) * 0.25 + right
    height = top + rows * side + (rows - 1) * (between + 0.2) + below
    width = max(width, 3.6)
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(
        0.12 / width,
        1 - 0.2 / height,
        f"attention of layer {layer + 1} of {maps.layers}",
        fontsize=10.5,
        color=INK,
        va="center",
    )
    image: Any = None
    for head in range(H):
        row, column = divmod(head, columns)
        x = left + column * (side + 0.25)
        y = height - top - side - row * (side + between + 0.2)
        ax = figure.add_axes((x / width, y / height, side / width, side / height))
        image = heat(ax, maps.weights[layer, head], maps.asked)
        ax.set_title(f"head {head + 1}", loc="left", fontsize=9, color=INK, pad=4)
        name_tokens(ax, names, beside=column == 0)
        if column == 0:
            ax.set_ylabel("from", fontsize=8, color=INK)
        if head + columns >= H:
            ax.set_xlabel("to", fontsize=8, color=INK)
    bar = figure.add_axes(
        (
            (left + columns * side + (columns - 1) * 0.25 + 0.15) / width,
            (height - top - side) / height,
            0.12 / width,
            side / height,
        )
    )
    colours = figure.colorbar(image, cax=bar)
    colours.outline.set_visible(False)
    bar.tick_params(colors=INK, labelsize=7.5, length=0)
    bar.set_ylabel("weight", fontsize=8, color=INK)
    return figure


def heat(ax: Axes, weights: Array, asked: int) -> Any:
    """One head's map (T, T). What comes after a token is left blank. Returns the image, for the colour bar."""
    T = len(weights)
    seen = np.ma.masked_where(np.triu(np.ones((T, T), bool), 1), weights)
    image = ax.imshow(seen, cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    for side in ax.spines.values():
        side.set_visible(False)
    if 0 < asked < T:
        ax.axhline(asked - 0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        ax.axvline(asked - 0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    ax.set_facecolor("none")
    return image


def name_tokens(ax: Axes, names: list[str], *, beside: bool) -> None:
    """The tokens along both axes, or every n-th of many."""
    every = -(-len(names) // MOST_TICKS)
    places = list(range(0, len(names), every))
    size = 7.5 if len(names) <= 20 else 6
    shown = [names[place] for place in places]
    plain: dict[str, Any] = {"parse_math": False, "fontsize": size, "color": INK}
    upright = max(map(len, shown)) <= 1 and len(names) <= 24
    ax.set_xticks(places, shown, rotation=0 if upright else 90, **plain)
    ax.set_yticks(places, shown if beside else [""] * len(shown), **plain)
    ax.tick_params(length=0, pad=2)


def embeddings_figure(found: Embeddings) -> Figure:
    """The embeddings in their plane of largest variance. Numbers are coloured by their size."""
    from matplotlib.figure import Figure

    points, shares = principal_plane(found.rows)
    figure = Figure(figsize=(4.9, 4.2), facecolor="white")
    ax = figure.add_axes((0.15, 0.13, 0.66, 0.77))
    frame(
        ax,
        f"embeddings of {len(found.labels):,} {'numbers' if found.numbers else 'tokens'}",
        f"first direction, {shares[0]:.0%} of the variance",
    )
    ax.set_ylabel(f"second direction, {shares[1]:.0%}", color=INK, fontsize=9)
    ax.set_facecolor("none")
    values = [int(label) for label in found.labels] if found.numbers else None
    colour: dict[str, Any] = {"color": COLOURS["val"]} if values is None else {"c": values, "cmap": "viridis"}
    size = 22 if len(points) <= POINT_LABELS else 8
    drawn = ax.scatter(points[:, 0], points[:, 1], s=size, zorder=3, linewidths=0, **colour)
    if found.whole and len(points) <= MOST_JOINED:  # neighbours are joined: a ring, or a line
        ax.plot(points[:, 0], points[:, 1], color=INK, alpha=0.25, linewidth=0.7, zorder=2)
    if len(points) <= POINT_LABELS:
        for label, (x, y) in zip(map(printable, found.labels), points, strict=True):
            ax.annotate(
                label, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=7 if len(points) <= 40 else 5.5,
                color=INK, parse_math=False,
            )  # fmt: skip
    ax.margins(0.1)
    if values is not None:
        bar = figure.add_axes((0.85, 0.13, 0.03, 0.77))
        colours = figure.colorbar(drawn, cax=bar)
        colours.outline.set_visible(False)
        bar.tick_params(colors=INK, labelsize=8, length=0)
        bar.set_ylabel("number", fontsize=8, color=INK)
    return figure


def spectrum_figure(found: Embeddings) -> Figure:
    """The share of each frequency in the embeddings of 0 ... N - 1. Without any order all would be near the dashed line."""
    from matplotlib.figure import Figure

    shares = fourier_spectrum(found.rows)
    N, frequencies = len(found.labels), np.arange(1, len(shares) + 1)
    figure = Figure(figsize=(4.9, 3.1), facecolor="white")
    ax = figure.add_axes((0.15, 0.17, 0.81, 0.7))
    frame(ax, f"Fourier spectrum of the embeddings of 0 to {N - 1}", f"frequency, periods per {N} numbers")
    ax.set_ylabel("% of the variance", color=INK, fontsize=9)
    ax.bar(frequencies, shares, width=0.72, color=COLOURS["val"], zorder=2)
    even = 2 / (N - 1)
    ax.axhline(even, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3, label="equal shares")
    highest = max(float(shares.max(initial=0)), even)
    ax.set_ylim(0, 1.15 * highest)
    ax.set_xlim(0.4, len(shares) + 0.6)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}%" if value == 0 else f"{100 * value:.3g}%")
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    ax.grid(visible=False, axis="x")
    ax.set_facecolor("none")
    for place in np.argsort(shares)[::-1][:3]:
        if shares[place] > 2 * even and len(shares) > 12:
            ax.text(
                frequencies[place],
                shares[place] + 0.02 * highest,
                f"{frequencies[place]}",
                ha="center",
                fontsize=8,
                color=INK,
            )
    ax.legend(loc="best", frameon=False, fontsize=7.5, labelcolor=INK)
    return figure


def printable(text: str) -> str:
    """A label that the font can show: characters that it lacks by their number, such as U+4E2D."""
    return "".join(
        character if ord(character) in known_characters() else f"U+{ord(character):04X}" for character in text
    )


@functools.cache
def known_characters() -> frozenset[int]:
    """Characters of matplotlib's own font."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
