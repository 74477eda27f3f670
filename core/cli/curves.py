"""Curves as lines of text: points go in, rows of characters come out, drawn with dots of braille or in ASCII."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

APART = 4  # columns between two marks, at least
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # dots of a character, by row and column
PLAIN = "'-."  # a dot at the top, in the middle and at the bottom of a character; several dots are a colon
MARK = "o"
Curve = list[tuple[float, float]]
Place = Callable[[float, float, int, int], tuple[int, int]]


def plot(
    line: Curve, marks: Curve, columns: int, rows: int, scale: Callable[[float], float], *, braille: bool
) -> list[list[str]]:
    """Rows of characters with a curve as a line, and MARK for points of another one. scale: of the values."""
    across, down = (2, 4) if braille else (1, len(PLAIN))
    place = placing([*line, *marks], scale)
    found: dict[int, list[int]] = {}
    for point in line:
        x, y = place(*point, columns * across, rows * down)
        found.setdefault(x, []).append(y)
    cells = [[0] * columns for _ in range(rows)]  # bits: the dots of each character
    for x, y in joined([(x, round(sum(heights) / len(heights))) for x, heights in sorted(found.items())]):
        cells[y // down][x // across] |= BRAILLE[y % down][x % across] if braille else 1 << y % down
    text = [[letter(bits, braille) for bits in row] for row in cells]
    places = [place(*point, columns, rows) for point in marks]
    for _, near in itertools.groupby(places, lambda found: found[0] // APART):
        *_, (x, y) = near
        text[y][x] = MARK
    return text


def placing(points: Curve, scale: Callable[[float], float]) -> Place:
    """What gives the column and row of a point in so many columns and rows."""
    steps, values = [step for step, _ in points], [scale(value) for _, value in points]
    first, length = min(steps), (max(steps) - min(steps)) or 1.0
    high, range_ = max(values), (max(values) - min(values)) or 1.0

    def place(step: float, value: float, columns: int, rows: int) -> tuple[int, int]:
        return round((step - first) / length * (columns - 1)), round((high - scale(value)) / range_ * (rows - 1))

    return place


def joined(points: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """All dots of a line through points, from left to right."""
    yield points[0]
    height = points[0][1]
    for (left, before), (right, behind) in itertools.pairwise(points):
        for x in range(left + 1, right + 1):
            former, height = height, round(before + (behind - before) * (x - left) / (right - left))
            for y in range(min(height, former + 1), max(height, former - 1) + 1):
                yield x, y


def letter(bits: int, braille: bool) -> str:
    """The character with these dots."""
    if not bits or braille:
        return chr(0x2800 + bits) if bits else " "
    return PLAIN[bits.bit_length() - 1] if bits.bit_count() == 1 else ":"
