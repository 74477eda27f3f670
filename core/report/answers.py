"""Show what answers get right and wrong: bars by place and by carries, exact match of held_out(), kinds of errors.

The numbers are those of evaluation.json and summary.json; core/evaluation/answers.py says what they mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.report.document import Cell, PageTable, Paragraph, Part, Picture
from core.report.plots import COLOURS, INK, frame
from core.report.samples import ErrorKind, Written, escaped
from core.tracking.figures import by_numbers, group_text, share_text, side_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "answers.png"
DETAILS = "details"  # the key of evaluation.json
HELD_OUT = "held_out"
PANEL, HEIGHT, TOP, BOTTOM, LEFT = 3.4, 2.5, 0.4, 0.55, 0.7  # of a panel and its margins, inches
MOST_LABELS = 16  # bars with their share above them
Shares = Sequence[tuple[str, int, int]]  # the name of a bar, how many are right, and of how many


def read_details(folder: Path, step: int | None) -> dict[str, Any]:
    """The details in a run's evaluation.json by side; {} if there are none, or they are of another step than this one.

    Raises UserError if the file is damaged.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes()).get(DETAILS, {})
        found = found if found.get("step") == step else {}
        sides = {side: part for side, part in found.items() if side != "step"}
        for part in sides.values():
            panels_of(part)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise UserError(
            "not the evaluation of a run", place=str(path), remedy="Delete it; `evaluate` writes it again."
        ) from None
    return sides


def panels_of(details: Mapping[str, Any]) -> dict[str, Shares]:
    """The panels that there is something to show of: the name of an axis -> bars."""
    found: dict[str, Shares] = {}
    for key, name in (("from_start", "place from the start"), ("from_end", "place from the end")):
        places = [(str(place), int(right), int(counted)) for place, (right, counted) in enumerate(details[key], 1)]
        if len(places) > 1:  # with one place it would be exact match again
            found[name] = places
    by_carries = [(str(number), int(right), int(counted)) for number, (right, counted) in details["carries"].items()]
    if len(by_carries) > 1:
        found["carries in the sum"] = by_carries
    return found


def answer_bars(details: Mapping[str, Any], title: str = "") -> Figure:
    """Bars of the share that is right: of tokens by their place, from the start and from the end; of sums by their carries.

    details: of one side, as in evaluation.json. title: whose answers they are.
    """
    from matplotlib.figure import Figure

    panels = panels_of(details)
    width = PANEL * max(1, len(panels))
    figure = Figure(figsize=(width, HEIGHT), facecolor="white")
    for index, (name, bars) in enumerate(panels.items()):
        left = (PANEL * index + LEFT) / width
        ax = figure.add_axes((left, BOTTOM / HEIGHT, (PANEL - LEFT - 0.1) / width, 1 - (TOP + BOTTOM) / HEIGHT))
        what = "sums" if name.startswith("carries") else "tokens"
        fill(ax, bars, f"{what} that are right{f', {title}' if title else ''}", name, what)
    return figure


def fill(ax: Axes, bars: Shares, title: str, name: str, what: str) -> None:
    """One panel. The last place from the end stands on the left, as it does in a number."""
    if name.endswith("the end"):
        bars = bars[::-1]
    frame(ax, title, name)
    heights = [right / counted if counted else 0.0 for _, right, counted in bars]
    places = list(range(len(bars)))
    ax.bar(places, heights, width=0.72, color=COLOURS["val"], zorder=2)
    ax.set_ylim(0, 1.12)
    ax.set_xlim(-0.6, len(bars) - 0.4)
    ax.set_yticks([0, 0.5, 1])
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_ylabel(f"% of {what}", color=INK, fontsize=9)
    every = -(-len(bars) // MOST_LABELS)
    ax.set_xticks(places[::every], [bars[place][0] for place in places[::every]])
    ax.grid(visible=False, axis="x")
    ax.set_facecolor("none")
    if len(bars) <= MOST_LABELS:
        size = 7.5 if len(bars) <= 8 else 6
        for place, height in zip(places, heights, strict=True):
            ax.text(place, height + 0.02, short(height), ha="center", va="bottom", fontsize=size, color=INK)


def short(share: float) -> str:
    """A share in whole percent; only all is 100."""
    return "100" if share == 1 else f"{min(99.9, 100 * share):.3g}" if share > 0.99 else f"{100 * share:.0f}"


def named(side: str) -> str:
    """A side in words."""
    return {"val": "validation", "test": "test", HELD_OUT: "held_out()"}.get(side, side)


def shown_sides(found: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The details to show: of the side that is reported, and of held_out()."""
    return {name: found[name] for name in (str(summary.get("side")), HELD_OUT) if name in found}


def pictures(found: Mapping[str, Any], summary: Mapping[str, Any]) -> list[Picture]:
    """A picture for each side that is shown. found: `read_details`."""
    return [
        Picture(f"answers by place and by carries, {named(side)}", {named(side): partial(answer_bars, part, named(side))}, file_of(side))
        for side, part in shown_sides(found, summary).items()
        if panels_of(part)
    ]  # fmt: skip


def file_of(side: str) -> str:
    """The name of a side's picture."""
    return "answers_held_out.png" if side == HELD_OUT else FILE


def places(found: Mapping[str, Any], summary: Mapping[str, Any]) -> list[Part]:
    """The section with the bars."""
    parts: list[Part] = []
    drawn = {picture.file: picture for picture in pictures(found, summary)}
    for side, part in shown_sides(found, summary).items():
        share = part.get("token_accuracy")
        if share is not None and file_of(side) in drawn:
            said = f"{share_text(share)} of the tokens in {part['prompts']:,} answers to {named(side)} prompts are right in their place."
            parts += [Paragraph(said, "soft"), drawn[file_of(side)]]
    return parts


def held_out(summary: Mapping[str, Any]) -> list[Part]:
    """Exact match of the Examples of held_out(), which training never shows."""
    found = summary.get(HELD_OUT) or {}
    if found.get("accuracy") is None:
        return []
    told = "Examples of held_out() in prepare.py. Their prompts are in no other side."
    rows = [group_row("all", found["accuracy"], found.get("prompts")), *group_rows(found)]
    return [Paragraph(told, "soft"), PageTable(("group", "exact match", "prompts", ""), rows)]


def group_rows(found: Mapping[str, Any]) -> list[list[Cell]]:
    """Exact match of each group with the number of its prompts and a bar. found: with accuracy_by_group and prompts_by_group."""
    groups, prompts = found.get("accuracy_by_group") or {}, found.get("prompts_by_group") or {}
    return [group_row(group_text(name), groups[name], prompts.get(name)) for name in sorted(groups, key=by_numbers)]


def group_row(name: str, share: float, prompts: int | None) -> list[Cell]:
    count = "" if prompts is None else f"{prompts:,}"
    return [Cell(name), Cell(share_text(share), "mark"), Cell(count, "mark"), Cell("", share=share)]


def kinds(written: Written) -> list[Part]:
    """The kinds of errors: how many, the first one of each, and the training examples that are nearest to it."""
    parts: list[Part] = []
    for side in dict.fromkeys(found.side for found in written.errors):
        of_side = [found for found in written.errors if found.side == side]
        total = sum(found.number for found in of_side)
        name = "held_out() prompts" if side == HELD_OUT else side_name(side)
        parts += [
            Paragraph(f"{total:,} wrong answers to {name}, by kind, with the first of each kind.", "soft"),
            PageTable(
                ("error", "answers", "given", "model", "truth", "nearest in training"),
                [error_row(found) for found in of_side],
            ),
        ]
    return parts


def error_row(found: ErrorKind) -> list[Cell]:
    first = found.first
    near = [f"{prompt}{escaped(completion)}" for prompt, completion in first.nearest]
    near += [f"same answer: {prompt}{escaped(completion)}" for prompt, completion in found.same]
    return [
        Cell(found.kind),
        Cell(f"{found.number:,}", "mark"),
        Cell(first.prompt, "text"),
        Cell(escaped(first.text), "text bad"),
        Cell(escaped(first.truth), "text"),
        Cell("\n".join(near), "text soft"),
    ]
