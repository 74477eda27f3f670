"""The space of a sweep: seeds, grids of values, and ranges for random draws."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

from core.errors import UserError

SEED_KEY = "train.runtime.seed"
MOST_POINTS = 10_000  # more is probably a mistake: 10,000 runs of three seconds take eight hours
DRAW_SEED = 1337  # of random draws; fixed, so that more draws keep the earlier ones
TRIES = 20  # at most, for each draw that differs from the others
Values = dict[str, Any]  # dotted key -> value


@dataclass(frozen=True)
class Grid:
    """A key and the values to try."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A key and a range to draw from: evenly, or evenly on a log scale; whole numbers if both ends are whole."""

    key: str
    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, rng: random.Random) -> float | int:
        """Draw one value. Numbers that are not whole are rounded to three significant digits, for readability."""
        if self.whole:
            if not self.log:
                return rng.randint(int(self.low), int(self.high))
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))
            return min(int(drawn), int(self.high))
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = rng.uniform(*ends)
        return min(max(float(f"{math.exp(value) if self.log else value:.3g}"), self.low), self.high)


@dataclass(frozen=True)
class Space:
    """All that a sweep combines. seeds: empty for the config's seed. draws: number of settings drawn from `ranges`."""

    seeds: tuple[int, ...] = ()
    grids: tuple[Grid, ...] = ()
    ranges: tuple[Range, ...] = ()
    draws: int = 0

    @property
    def keys(self) -> list[str]:
        """The dotted keys that vary, without the seed."""
        return [grid.key for grid in self.grids] + [entry.key for entry in self.ranges]

    def settings(self) -> list[Values]:
        """Every combination of the grids with every draw, in order; the draws vary fastest, then the last grid."""
        rng = random.Random(DRAW_SEED)
        drawn: dict[str, Values] = {}
        for _ in range(TRIES * self.draws):  # a small range has fewer values than draws
            if len(drawn) < self.draws:
                draw = {entry.key: entry.draw(rng) for entry in self.ranges}
                drawn.setdefault(repr(draw), draw)
        products = itertools.product(*(grid.values for grid in self.grids))
        keys = [grid.key for grid in self.grids]
        return [dict(zip(keys, values, strict=True)) | draw for values in products for draw in (drawn.values() or [{}])]

    def points(self) -> list[tuple[Values, int | None]]:
        """Every setting with every seed; the seeds of a setting are together. Raises UserError for more than MOST_POINTS."""
        count = math.prod(len(grid.values) for grid in self.grids) * max(self.draws, 1) * max(len(self.seeds), 1)
        if count > MOST_POINTS:
            raise UserError(
                f"a sweep of {count:,} runs", remedy=f"Take fewer values or seeds: {MOST_POINTS:,} runs at most."
            )
        return [(settings, seed) for settings in self.settings() for seed in self.seeds or (None,)]


def check_space(space: Space) -> Space:
    """Return the space. Raises UserError for an empty one, for keys that cannot vary, and for keys given twice."""
    for key in space.keys:
        if space.keys.count(key) > 1:
            raise UserError(
                f"'{key}' is swept twice", place="grid", remedy=f"Give all values at once: `grid={key}=V1,V2`"
            )
    if SEED_KEY in space.keys:
        raise UserError("seeds have their own argument", place=SEED_KEY, remedy="For example: `seeds=0..4`")
    if "train.runtime.out_dir" in space.keys:
        raise UserError(
            "all runs of a sweep are in one folder",
            place="train.runtime.out_dir",
            remedy="Set it for all runs: `train.runtime.out_dir=FOLDER`",
        )
    if bool(space.ranges) != bool(space.draws):
        raise UserError(
            "`draws=N` and `ranges=KEY=LOW..HIGH` go together",
            remedy="For example: `draws=10` `ranges=train.optim.learning_rate=1e-4..1e-2:log`",
        )
    if not (space.seeds or space.grids or space.ranges):
        raise UserError(
            "there is nothing to sweep over",
            remedy="Give `seeds=0..4`, `grid=KEY=V1,V2`, or `draws=N` `ranges=KEY=LOW..HIGH`.",
        )
    return space
