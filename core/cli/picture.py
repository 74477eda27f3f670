"""A run while it learns, in a few lines: its curves, and answers of its last evaluation.

It is drawn by hand: rich has no curves, and takes far longer for a few lines.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence

import click

from core.cli.conversation import printable
from core.cli.curves import MARK, Curve, plot
from core.listener import AskedPrompt
from core.tracking.figures import loss_text, share_text

LOWEST, LOW, NARROWEST = 15, 20, 40  # rows of a terminal that has room for it, or for all of it; columns
LABEL, LEGEND = 9, 18  # columns left and right of the curves
MOST_POINTS = 400  # of a curve; where there are more, two neighbours become one
LOGARITHMIC = 20  # highest value by lowest, from which on small values could not be told apart
CUT = "..."
Paint = Callable[..., str]  # text and its style -> coloured text, or the text


class Learning:
    """How a run learns: the curves of training and of its evaluations, their latest values, and the latest answers."""

    def __init__(self) -> None:
        self.train: Curve = []
        self.val: Curve = []
        self.latest: dict[str, float] = {}
        self.answers: Sequence[AskedPrompt] = ()

    def add(self, row: dict[str, float]) -> None:
        """Add a row of metrics. With training by reward, rewards are drawn, because the loss then says little."""
        names = ("reward", "val_reward") if "reward" in row else ("train_loss", "val_loss")
        for curve, name, known in zip((self.train, self.val), names, ("train", "val"), strict=True):
            if math.isfinite(row.get(name, math.nan)):
                curve.append((row["step"], row[name]))
                self.latest[known] = row[name]
        if "val_accuracy" in row:
            self.latest["exact"] = row["val_accuracy"]
        self.train, self.val = thinned(self.train), thinned(self.val)


def thinned(curve: Curve) -> Curve:
    """The curve; of too many points, the means of two neighbours each."""
    if len(curve) <= MOST_POINTS:
        return curve
    return [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in zip(curve[::2], curve[1::2], strict=False)]


def picture(learning: Learning, width: int, height: int, encoding: str, *, colour: bool) -> list[str]:
    """Lines of at most `width` columns; none where a terminal of this height has no room, or too little is known.

    encoding: of the terminal. Without UTF-8, and on Linux's console, whose font has no braille, it is drawn in ASCII.
    """
    if height < LOWEST or width < NARROWEST or len(learning.train) < 2:
        return []
    braille = encoding.lower().replace("-", "") == "utf8" and os.environ.get("TERM") != "linux"
    paint: Paint = click.style if colour else lambda text, **_: text
    rows = 3 if height < LOW else 4
    asked, marks = learning.answers[: rows - 1], ("✓", "✗") if braille else ("right", "wrong")
    return [*curve_lines(learning, width, rows, braille, paint), *answer_lines(asked, width, encoding, marks, paint)]


def curve_lines(learning: Learning, width: int, rows: int, braille: bool, paint: Paint) -> list[str]:
    """Both curves with their scale, their latest values, and the steps below."""
    columns, latest = width - LABEL - LEGEND, learning.latest
    points = [*learning.train, *learning.val]
    values, steps = [value for _, value in points], [step for step, _ in points]
    low, high = min(values), max(values)
    scale: Callable[[float], float] = math.log if low > 0 and high / low >= LOGARITHMIC else float
    legends = [f"{paint('⠒' if braille else '-', fg='cyan')} train {loss_text(latest['train'])}"]
    legends += [f"{paint(MARK, fg='yellow')} val   {loss_text(latest['val'])}"] if "val" in latest else []
    legends += [f"  exact {share_text(latest['exact'])}"] if "exact" in latest else []
    labels = [loss_text(high), *[""] * (rows - 2), loss_text(low)]
    text = plot(learning.train, learning.val, columns, rows, scale, braille=braille)
    lines = [
        f"{label:>{LABEL - 1}} {painted(row, paint)}  {legend}".rstrip()
        for label, row, legend in itertools.zip_longest(labels, text, legends, fillvalue="")
    ]
    first, last = f"step {min(steps):,.0f}", f"{max(steps):,.0f}"
    below = f"{'':{LABEL}}{first}{last:>{columns - len(first)}}"
    return [*lines, f"{below}  log scale" if scale is math.log else below]


def painted(row: Sequence[str], paint: Paint) -> str:
    """A row of characters in the colours of their curves."""
    runs = itertools.groupby(row, lambda letter: "yellow" if letter == MARK else "cyan" if letter != " " else "")
    return "".join([paint("".join(run), fg=colour) if colour else "".join(run) for colour, run in runs])


def answer_lines(
    asked: Sequence[AskedPrompt], width: int, encoding: str, marks: tuple[str, str], paint: Paint
) -> list[str]:
    """A line for each prompt: whether its answer is right, the answer, and the truth beside a wrong one."""
    from rich.cells import cell_len

    prompts = [fitted(each.prompt.rstrip(), width // 3, encoding, end=True) for each in asked]
    widest = max(map(cell_len, prompts), default=0)
    lines = []
    for each, prompt in zip(asked, prompts, strict=True):
        mark = paint(marks[not each.right], fg="green" if each.right else "red")
        room = width - len(marks[not each.right]) - widest - 8
        if each.right:
            told = fitted(each.answer, room, encoding)
        else:
            room = (room - len("  truth: ")) // 2
            told = f"{fitted(each.answer, room, encoding)}  truth: {fitted(each.truth, room, encoding)}"
        lines.append(f"  {mark} {prompt}{' ' * (widest - cell_len(prompt))} -> {told}".rstrip())
    return lines


def fitted(text: str, columns: int, encoding: str, *, end: bool = False) -> str:
    """Text in at most so many columns, of characters that the terminal shows. end: its end is kept, not its beginning."""
    from rich.cells import cell_len

    text = printable(text.rstrip("\n")).encode(encoding, "backslashreplace").decode(encoding)
    if cell_len(text) <= columns:
        return text
    text = text[-columns:] if end else text[:columns]
    while text and cell_len(text) > columns - len(CUT):
        text = text[1:] if end else text[:-1]
    return f"{CUT}{text}" if end else f"{text}{CUT}"
