"""What a sweep tries: `--seeds`, `--grid` and `--range` go in as text, points of settings and seeds come out."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.toml import NoToml, parsed, read_override, shortened

SEED_KEY = "train.runtime.seed"
MOST_POINTS = 10_000  # more is a slip of the pen: so many runs of three seconds take eight hours
DRAW_SEED = 1337  # of --random: the first N draws are the same whatever N is
TRIES = 20  # draws for each one that is to differ from the others
Settings = dict[str, Any]  # dotted key -> value


@dataclass(frozen=True)
class Grid:
    """`--grid KEY=V1,V2`: one key, and the values that it takes."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """`--range KEY=LOW..HIGH[:log]`: values are drawn evenly, of the logarithm if `log`; whole numbers where both ends are."""

    key: str
    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, rng: random.Random) -> float | int:
        """One value; of three significant digits where it is no whole number, for people read it."""
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
    """Everything that a sweep combines. seeds: empty for the config's own; draws: number of points drawn from `ranges`."""

    seeds: tuple[int, ...] = ()
    grids: tuple[Grid, ...] = ()
    ranges: tuple[Range, ...] = ()
    draws: int = 0

    @property
    def keys(self) -> list[str]:
        """Dotted keys that vary, besides the seed."""
        return [grid.key for grid in self.grids] + [entry.key for entry in self.ranges]

    def settings(self) -> list[Settings]:
        """Every combination, in the order of the grid, the last key fastest; each with each draw."""
        rng = random.Random(DRAW_SEED)
        drawn: dict[str, Settings] = {}
        for _ in range(TRIES * self.draws):  # a small range has fewer values than draws
            if len(drawn) < self.draws:
                draw = {entry.key: entry.draw(rng) for entry in self.ranges}
                drawn.setdefault(repr(draw), draw)
        products = itertools.product(*(grid.values for grid in self.grids))
        keys = [grid.key for grid in self.grids]
        return [dict(zip(keys, values, strict=True)) | draw for values in products for draw in (drawn.values() or [{}])]

    def points(self) -> list[tuple[Settings, int | None]]:
        """Settings with seeds; the seeds of one setting stand together. Raises UserError for more than MOST_POINTS."""
        count = math.prod(len(grid.values) for grid in self.grids) * max(self.draws, 1) * max(len(self.seeds), 1)
        if count > MOST_POINTS:
            raise UserError(f"a sweep of {count:,} runs", remedy=f"Take fewer values: {MOST_POINTS:,} runs at most.")
        return [(settings, seed) for settings in self.settings() for seed in self.seeds or (None,)]


def read_space(seeds: str, grids: Sequence[str], ranges: Sequence[str], draws: int) -> Space:
    """The options of `sweep` as a Space. Raises UserError for what cannot be read, and for keys that are given twice."""
    space = Space(
        read_seeds(seeds) if seeds else (), tuple(map(read_grid, grids)), tuple(map(read_range, ranges)), draws
    )
    for key in space.keys:
        if space.keys.count(key) > 1:
            raise UserError(
                f"'{key}' is swept twice", place="--grid", remedy=f"Give all values at once: --grid {key}=V1,V2"
            )
    if SEED_KEY in space.keys:
        raise UserError("seeds have an option of their own", place=SEED_KEY, remedy="For example: --seeds 0..4")
    if "train.runtime.out_dir" in space.keys:
        raise UserError(
            "the runs of a sweep share one folder",
            place="train.runtime.out_dir",
            remedy="Set it for all of them with -s.",
        )
    if bool(ranges) != bool(draws):
        raise UserError(
            "--random N and --range KEY=LOW..HIGH go together", remedy="For example: --random 10 --range train.optim.learning_rate=1e-4..1e-2:log"
        )  # fmt: skip
    if not (seeds or grids or ranges):
        raise UserError(
            "there is nothing to sweep over", remedy="Give --seeds 0..4, --grid KEY=V1,V2, or --random N --range KEY=LOW..HIGH."
        )  # fmt: skip
    return space


def read_seeds(text: str) -> tuple[int, ...]:
    """`0..4`, both ends included, or `0,1,2`, or both: `0..2,7`. Raises UserError."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})\s*(?:\.\.\s*(\d{1,18})\s*)?", part, re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last:
            raise UserError(
                "seeds are whole numbers, or ranges of them", place=f"--seeds {shortened(text)}", remedy="For example: --seeds 0..4 or --seeds 0,1,2"
            )  # fmt: skip
        if last - first >= MOST_POINTS:
            raise UserError(f"a sweep of {last - first + 1:,} runs", place=f"--seeds {shortened(text)}", remedy=f"Take fewer: {MOST_POINTS:,} runs at most.")  # fmt: skip
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def read_grid(text: str) -> Grid:
    """`KEY=V1,V2`; the values are TOML, and text that is no TOML stands for itself. Raises UserError."""
    key, raw = parts_of(text, "--grid", "train.optim.learning_rate=1e-3,3e-3")
    try:
        found = parsed(f"value = [{raw}]")
        values = found["value"] if len(found) == 1 else []
    except NoToml:
        values = [
            value_at(read_override(f"{key}={part.strip()}").values, key) for part in raw.split(",") if part.strip()
        ]
    if not values:
        raise UserError(
            "no values to try", place=f"--grid {shortened(text)}", remedy="For example: --grid train.model.n_layer=2,4"
        )
    return Grid(key, tuple({repr(value): value for value in values}.values()))


def read_range(text: str) -> Range:
    """`KEY=LOW..HIGH` or `KEY=LOW..HIGH:log`. Raises UserError."""
    example = "train.optim.learning_rate=1e-4..1e-2:log"
    key, raw = parts_of(text, "--range", example)
    found = re.fullmatch(r"([^:]+?)\.\.([^:]+?)(:log)?", raw.strip())
    low, high = (number(found[1]), number(found[2])) if found else (None, None)
    place = f"--range {shortened(text)}"
    if found is None or low is None or high is None:
        raise UserError("a range is KEY=LOW..HIGH or KEY=LOW..HIGH:log, with numbers", place=place, remedy=f"For example: --range {example}")  # fmt: skip
    if not low < high:
        raise UserError(f"{low:g} is not below {high:g}", place=place, remedy=f"For example: --range {example}")
    if found[3] and low <= 0:
        raise UserError("a logarithmic range begins above 0", place=place, remedy=f"For example: --range {example}")
    return Range(key, low, high, bool(found[3]))


def parts_of(text: str, option: str, example: str) -> tuple[str, str]:
    """KEY and the rest of `KEY=...`. Raises UserError."""
    key, equals, raw = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", key.strip()):
        raise UserError(
            "it is written section.key=...",
            place=f"{option} {shortened(text)}",
            remedy=f"For example: {option} {example}",
        )
    return key.strip(), raw


def number(text: str) -> int | float | None:
    """A finite number, whole where it is written so; None for anything else."""
    try:
        value = parsed(f"value = {text.strip()}").get("value")
    except NoToml:
        return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else None


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of nested values."""
    for part in key.split("."):
        values = values[part]
    return values
