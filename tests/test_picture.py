"""The picture of a run on a terminal: its curves, its answers, and where it stands among other lines."""

from __future__ import annotations

import io
import itertools
import math
import re
import sys
import warnings

import click
import pytest
from rich.cells import cell_len

from core.cli.console import Console
from core.cli.curves import plot
from core.cli.main import show_warning
from core.cli.picture import MOST_POINTS, Learning, picture
from core.listener import SECONDS, STEPS, Answers, AskedPrompt, Begun

ANSWERS = [AskedPrompt("abc: ", "a b c\n", "a b c\n", True), AskedPrompt("cab: ", "c a b\n", "c b\n", False)]
HOSTILE = [
    AskedPrompt("日本語のテキスト" * 20, "\x1b[2J\r\n" * 40, "\x1b]0;title\x07" * 9, False),
    AskedPrompt("e\u0301\u200d" * 90, "\ud800\ufdfa" * 60, "", False),
]


class Screen(io.StringIO):
    """A terminal of 80 columns and 24 rows: what stands on it, and in how many pieces it was written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.at, self.column = [""], 0, 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for piece in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", re.sub(r"\x1b\[\d*m", "", text)):
            row = self.rows[self.at]
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.at, self.column = self.at + 1, 0
                self.rows += [""] * (self.at == len(self.rows))
            elif piece.endswith("A"):
                self.at -= int(piece[2:-1])
            elif piece in ("\x1b[K", "\x1b[J"):
                self.rows[self.at] = row[: self.column]
                del self.rows[self.at + 1 if piece == "\x1b[J" else len(self.rows) :]
            else:
                self.rows[self.at] = row[: self.column].ljust(self.column) + piece + row[self.column + len(piece) :]
                self.column += len(piece)
        return len(text)


def a_row(step: int, loss: float, **more: float) -> dict[str, float]:
    return {"step": step, "train_loss": loss, "seconds": 1.0, "tokens_per_second": 1234.0, **more}


def learning(*rows: dict[str, float], answers: list[AskedPrompt] | None = None) -> Learning:
    found = Learning()
    for row in rows:
        found.add(row)
    found.answers = answers or []
    return found


def lines(
    of: Learning, width: int = 79, height: int = 24, encoding: str = "utf-8", *, colour: bool = False
) -> list[str]:
    return picture(of, width, height, encoding, colour=colour)


def test_it_stands_below_the_lines_and_goes_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(warnings, "showwarning", show_warning)
    monkeypatch.setattr("core.cli.status.REFRESH", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    console = Console()
    console.say("training spaces/default")
    console.hear(Begun("default"))
    for step in range(1, 5):
        console.progress(STEPS, step, 4)
        if step == 2:
            console.hear(Answers(ANSWERS))
            console.row(a_row(step, 1.5, val_loss=1.75, val_accuracy=0.5))
            print("printed by the experiment")
        elif step == 3:
            console.row(a_row(step, 1.0))
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("a warning", stacklevel=1)
            said = ["training spaces/default", "step 2/4  loss 1.5000  val 1.7500  exact  50.0%  1.0 s  1,234 tokens/s"]
            said += ["printed by the experiment", "warning: a warning"]
            assert screen.rows[:4] == said
            drawn = screen.rows[4:]
            assert drawn[0] == "" and screen.at == 4, "the cursor waits above the picture"
            assert [line[61:] for line in drawn[1:4]] == ["  ⠒ train 1.0000", "  o val   1.7500", "    exact 50.0%"]
            assert drawn[5:8] == [
                f"         step 1{'3':>46}",
                "  ✓ abc: -> a b c",
                "  ✗ cab: -> c b  truth: c a b",
            ]
            assert re.fullmatch(r"\[#{22}\.{8}\] step 3/4  1,234 tokens/s  \d+:\d\d left", drawn[8])
        elif step == 1:
            console.row(a_row(step, 2.0))
            assert len(screen.rows) == 2, "one point is no curve"
    console.say("over")
    assert screen.rows == [*said, "over", ""]


def test_a_curve() -> None:
    line, marks = [(float(x), -float(x)) for x in range(12)], [(0.0, -0.0), (11.0, -11.0)]
    assert ["".join(row) for row in plot(line, [], 6, 3, float, braille=True)] == ["⠑⢄    ", "  ⠑⢄  ", "    ⠑⢄"]
    assert ["".join(row) for row in plot(line, marks, 6, 2, float, braille=False)] == ["o-.   ", "   '-o"]
    flat = plot([(5.0, 1.0)], [], 4, 2, float, braille=False)
    assert ["".join(row) for row in flat] == ["'   ", "    "]
    jump = plot([(0.0, 0.0), (1.0, 9.0)], [], 2, 3, float, braille=False)
    assert ["".join(row) for row in jump] == [" :", " :", ".:"]


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_scale() -> None:
    falling = learning(*(a_row(step, 4 * math.exp(-step / 100)) for step in range(0, 1000, 10)))
    drawn = lines(falling)
    assert drawn[4].endswith("log scale") and drawn[0].startswith("  4.0000 ⠉") and drawn[3].startswith("  0.0002 ")
    assert drawn[1][20] != " " or drawn[1][25] != " ", "a straight line"
    assert not lines(learning(a_row(1, 4.0), a_row(2, 3.0)))[4].endswith("log scale")
    assert not lines(learning(a_row(1, 4.0, reward=0.0), a_row(2, 3.0, reward=-1.0)))[4].endswith("log scale")


def test_rewards_are_drawn_where_a_run_trains_by_them() -> None:
    rows = [a_row(1, 9.0, reward=0.25), a_row(2, 9.0, reward=0.75, val_loss=5.0, val_reward=0.5, val_accuracy=1.0)]
    drawn = lines(learning(*rows))
    assert [line.split()[-2:] for line in drawn[:3]] == [["train", "0.7500"], ["val", "0.5000"], ["exact", "100.0%"]]


def test_a_long_run_is_thinned_and_what_is_not_finite_is_left_out() -> None:
    long = learning(*(a_row(step, 1.0 if step % 7 else math.nan, val_loss=1.0) for step in range(10_000)))
    steps = [step for step, _ in long.train]
    assert MOST_POINTS / 2 <= len(steps) < MOST_POINTS and len(long.val) < MOST_POINTS
    assert all(value == 1.0 for _, value in long.train)
    assert steps[0] < 200 and steps[-1] > 9_990 and max(b - a for a, b in itertools.pairwise(steps)) < 300


@pytest.mark.parametrize(
    ("width", "height", "number"), [(79, 14, 0), (39, 24, 0), (40, 15, 6), (79, 19, 6), (79, 20, 7)]
)
def test_it_needs_room(width: int, height: int, number: int) -> None:
    assert len(lines(learning(a_row(1, 2.0), a_row(2, 1.0), answers=ANSWERS), width, height)) == number


@pytest.mark.parametrize("width", [40, 59, 79, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_line_is_wider_than_the_terminal_or_steers_it(width: int, encoding: str) -> None:
    run = learning(a_row(1, 1e9), a_row(20_000_000, 1e-9, val_loss=123.456, val_accuracy=0.999999), answers=HOSTILE)
    for line in lines(run, width, 24, encoding):
        assert cell_len(line) <= width and line.isprintable(), line
        assert line.encode(encoding).decode(encoding) == line


def test_without_utf8_it_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    run = learning(a_row(1, 2.0), a_row(2, 1.0), answers=ANSWERS)
    plain = lines(run, encoding="ascii")
    assert "".join(plain).isascii() and plain[-2:] == ["  right abc: -> a b c", "  wrong cab: -> c b  truth: c a b"]
    monkeypatch.setenv("TERM", "linux")  # whose font has no braille
    assert lines(run) == plain


def test_colours_only_repeat_what_is_there_without_them() -> None:
    run = learning(a_row(1, 2.0), a_row(2, 1.0, val_loss=1.5, val_accuracy=0.5), answers=ANSWERS)
    coloured = lines(run, colour=True)
    assert "\x1b[32m✓" in coloured[-2] and "\x1b[31m✗" in coloured[-1]
    assert [click.unstyle(line) for line in coloured] == lines(run)


def test_a_run_limited_by_time_has_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr("core.cli.status.REFRESH", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    console = Console()
    for step in (1, 2):
        console.progress(SECONDS, step, 60)
        console.row(a_row(step, 2.0 / step, wall_seconds=float(step)))
    assert " train 1.0000" in "\n".join(screen.rows) and "step 2  1,234 tokens/s" in screen.rows[-1]
    console.close()
    assert screen.rows == [""]
