"""metrics.csv as columns of numbers. A file that has grown is read on from where it ended; whole lines only.

Thinned curves keep the least and the greatest value of each stretch, so that no peak is lost.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from core.serve.live.catalog import is_young, stamp
from core.serve.live.reading import open_file
from core.serve.live.rows import finite_number

Open = Callable[[Path], BinaryIO]
Values = npt.NDArray[np.float64]
AXES = ("step", "tokens", "seconds")
ROOM = 64 << 20  # bytes of columns that are kept
MOST_CURVES = 200  # thinned ones that are kept: some 15 MB
MOST_COLUMNS, LARGEST = 500, 512 << 20  # of one file; what is behind that is not read
BLOCK = 5000  # rows that are read as Python's numbers at once
NAN = float("nan")
REVISIONS = itertools.count()  # each state of a table has a number of its own


class MetricsTable:
    """The columns of one metrics.csv, as far as they have been read. problem: what could not be read, or "".

    May be used by several threads: one joins what was read while another reads on.
    """

    def __init__(self, path: Path, opened: Open = open_file) -> None:
        self.path, self.opened, self.turn = path, opened, threading.RLock()
        self.begin()

    def begin(self) -> None:
        """Forget everything that was read."""
        self.names: list[str] = []
        self.rows: list[Values] = []
        self.read_to = self.file = 0
        self.problem = ""
        self.joined: Values | None = None
        self.filled: list[str] | None = None
        self.revision = next(REVISIONS)
        self.stamp = (0, 0)

    def update(self) -> None:
        """Read what has been written since. A file that was replaced or cut is read anew."""
        with self.turn:
            self.read_on()

    def read_on(self) -> None:
        """`update`, in its turn."""
        at = stamp(self.path)
        if at == self.stamp and at != (0, 0) and not is_young(at[1]):
            return
        try:
            with self.opened(self.path) as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self.file or found.st_size < self.read_to:
                    self.begin()
                    self.file = found.st_ino
                if found.st_size > LARGEST:
                    self.problem = f"metrics.csv has more than {LARGEST:,} bytes: the rest is not shown"
                file.seek(self.read_to)
                data = file.read(max(0, LARGEST - self.read_to))
        except OSError:
            self.begin()
            return
        self.stamp = at
        whole = data[: data.rfind(b"\n") + 1]
        self.read_to += len(whole)
        if whole:
            self.take(whole.partition(b"\0")[0].decode("utf-8", "replace"))

    def take(self, text: str) -> None:
        """Add lines."""
        lines = csv.reader(io.StringIO(text))
        if not self.names:
            self.names = next(lines, [])[:MOST_COLUMNS]
        rows: list[list[float]] = []
        try:
            for cells in lines:
                rows.append(numbers(cells, len(self.names)))
                if len(rows) == BLOCK:
                    self.add(rows)
                    rows = []
        except csv.Error as error:
            self.problem = f"metrics.csv: {error}"
        if rows:
            self.add(rows)

    def add(self, rows: list[list[float]]) -> None:
        """Add rows of numbers; what is not finite is not known."""
        block = np.array(rows, dtype=np.float64)
        block[np.isinf(block)] = NAN
        self.rows.append(block)
        self.joined = self.filled = None
        self.revision = next(REVISIONS)

    @property
    def table(self) -> Values:
        """Rows by columns."""
        with self.turn:
            if self.joined is None:
                self.joined = np.concatenate(self.rows) if self.rows else np.empty((0, len(self.names)))
                self.rows = [self.joined] if len(self.joined) else []
            return self.joined

    def column(self, name: str) -> Values:
        """A column; not a number where a row does not have it."""
        with self.turn:
            if name not in self.names:
                return np.full(len(self.table), NAN)
            return self.table[:, self.names.index(name)]

    @property
    def metrics(self) -> list[str]:
        """The columns that have a value anywhere, but for those that others are drawn over."""
        with self.turn:
            if self.filled is None:
                known = ~np.isnan(self.table)
                self.filled = [name for at, name in enumerate(self.names) if name not in AXES and known[:, at].any()]
            return self.filled

    def curve(self, metric: str, axis: str) -> tuple[Values, Values]:
        """x and y where both are known."""
        with self.turn:
            x, y = self.column(axis), self.column(metric)
        known = ~(np.isnan(x) | np.isnan(y))
        return x[known], y[known]

    @property
    def size(self) -> int:
        """Bytes of the columns."""
        with self.turn:
            return sum(rows.nbytes for rows in self.rows)


def numbers(cells: list[str], width: int) -> list[float]:
    """The numbers of a row; not a number for cells that are blank, missing or something else."""
    cells = cells[:width]
    try:
        found = [float(cell) if cell else NAN for cell in cells]
    except ValueError:
        found = [NAN if (value := finite_number(cell)) is None else float(value) for cell in cells]
    return found + [NAN] * (width - len(found))


class Tables:
    """The tables of the runs that were looked at last, as many as there is room for. May be used by several threads."""

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.size = room, 0  # bytes: at most, and now
        self.known: OrderedDict[Path, MetricsTable] = OrderedDict()
        self.curves: OrderedDict[tuple[Path, str, str, int], tuple[int, dict[str, list[float]]]] = OrderedDict()
        self.turn = threading.Lock()

    def of(self, path: Path, opened: Open = open_file) -> MetricsTable:
        """The table of a file, up to date. opened: how it is opened."""
        with self.turn:
            table = self.known.pop(path, None) or MetricsTable(path, opened)
            before = table.size
            table.update()
            self.known[path] = table
            self.size += table.size - before
            while self.size > self.room and len(self.known) > 1:
                self.size -= self.known.popitem(last=False)[1].size
            return table

    def thinned(self, table: MetricsTable, metric: str, axis: str, points: int) -> dict[str, list[float]]:
        """A curve of a table, thinned once for each state of it."""
        key, revision = (table.path, metric, axis, points), table.revision
        known = self.curves.get(key)
        if known is None or known[0] != revision:
            known = revision, thinned(*table.curve(metric, axis), points)
        with self.turn:
            self.curves[key] = known
            self.curves.move_to_end(key)
            while len(self.curves) > MOST_CURVES:
                self.curves.popitem(last=False)
        return known[1]


def thinned(x: Values, y: Values, points: int) -> dict[str, list[float]]:
    """A curve in at most so many stretches of equal length in x: the last x of each, the mean of y, its least and greatest.

    Curves with few enough points stay as they are.
    """
    if len(x) <= points:
        return {"x": x.tolist(), "y": y.tolist(), "low": y.tolist(), "high": y.tolist()}
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    low, high = float(x[0]), float(x[-1])
    place = np.minimum(((x - low) / max(high - low, 1e-300) * points).astype(np.int64), points - 1)
    begin = np.flatnonzero(np.diff(place, prepend=-1))
    count = np.diff(np.append(begin, len(x)))
    return {
        "x": x[begin + count - 1].tolist(),
        "y": (np.add.reduceat(y, begin) / count).tolist(),
        "low": np.minimum.reduceat(y, begin).tolist(),
        "high": np.maximum.reduceat(y, begin).tolist(),
    }
