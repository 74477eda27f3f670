"""Decide what the seeds of two groups show: the difference of a measure, its interval, and one sentence.

bootstrap.py has the statistics. This file decides which values count, which are paired, and what the sentence says.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.report.bootstrap import LEVEL, NO_SPREAD, Sides, interval, needed, spread

Seeded = tuple[int | None, float | None]  # a run's seed and its value; None or NaN where it has none
COMMON_SEEDS = 3  # with so many seeds in common, the other seeds are left out
MANY = 1000  # above it, the number of seeds needed is not given


@dataclass(frozen=True)
class Measure:
    """key: in summary.json. title: in sentences. unit: of a difference. factor: to that unit. most: the largest possible difference."""

    key: str
    title: str
    lower_is_better: bool = True
    unit: str = ""
    factor: float = 1.0
    most: float = math.inf

    def written(self, *values: float) -> list[str]:
        """Values as a sentence shows them: with the same number of decimals, for three digits of the largest."""
        scaled = [self.factor * value for value in values]
        largest = max(map(abs, scaled))
        digits = min(9, max(0, 2 - math.floor(math.log10(largest)))) if largest else 0
        return [f"{value:.{digits}f}" for value in scaled]


@dataclass(frozen=True)
class Verdict:
    """What is known about the difference of two groups, `second` minus `first`.

    difference: of the means. low, high: its 95 % interval. All are None where there are too few values. seeds: how many
    count in each group. evidence: whether the interval excludes zero. more_seeds: how many more per group would show a
    difference of this size (None: unknown, or not needed). notes: what was left out. sentence: all of this in words.
    """

    measure: Measure
    first: str
    second: str
    seeds: tuple[int, int]
    paired: bool
    notes: tuple[str, ...]
    sentence: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    evidence: bool = False
    better: str | None = None
    more_seeds: int | None = None


def judge(measure: Measure, first: str, a: Sequence[Seeded], second: str, b: Sequence[Seeded]) -> Verdict:
    """Compare two groups, named `first` and `second`. Runs of one seed in one group count as one, by their mean."""
    sides = matched(measure, first, a, second, b)
    names = (first, second)

    verdict = functools.partial(Verdict, measure, first, second, sides.seeds, sides.paired, sides.notes)
    if not all(sides.seeds):
        missing = [name for name, count in zip(names, sides.seeds, strict=True) if not count]
        who = " and ".join(missing) + (" have" if len(missing) > 1 else " has")
        return verdict(f"Nothing to compare: {who} no {measure.title} of a completed run.")
    difference = float(sides.b.mean() - sides.a.mean())
    if min(sides.seeds) == 1:
        return verdict(one_seed(measure, names, sides.seeds, difference), difference)
    if spread(sides) == 0:
        return without_spread(measure, names, sides, difference, verdict)
    low, high = (min(max(end, -measure.most), measure.most) for end in interval(sides, difference))
    evidence = not low <= 0 <= high
    more = None if evidence else needed(sides, difference)
    better = winner(measure, names, difference) if evidence else None
    sentence = sentence_of(measure, names, sides, difference, low, high, better, more)
    return verdict(sentence, difference, low=low, high=high, evidence=evidence, better=better, more_seeds=more)


def matched(measure: Measure, first: str, a: Sequence[Seeded], second: str, b: Sequence[Seeded]) -> Sides:
    """The values that count. They are paired if all seeds match, or at least three and more than half of each group's: the
    others are then left out. Pairs remove the effect of the seed, but a few pairs say less than many unpaired values."""
    notes: list[str] = []
    by_seed = [counted(measure, name, group, notes) for name, group in ((first, a), (second, b))]
    keys = [set(group) for group in by_seed]
    common = sorted(key for key in keys[0] & keys[1] if isinstance(key, int))
    most = 2 * len(common) > max(map(len, keys)) and len(common) >= COMMON_SEEDS
    paired = len(common) >= 2 and (keys[0] == keys[1] or most)
    if paired:
        for name, group in zip((first, second), by_seed, strict=True):
            if len(group) > len(common):
                rest = len(group) - len(common)
                notes.append(f"{rest} of {name}'s {len(group)} seeds {'are' if rest > 1 else 'is'} left out: the other group does not have {'them' if rest > 1 else 'it'}.")  # fmt: skip
        by_seed = [{key: group[key] for key in common} for group in by_seed]
    values = [np.array(list(group.values()), dtype=np.float64) for group in by_seed]
    return Sides(values[0], values[1], paired, tuple(notes))


def counted(measure: Measure, name: str, group: Sequence[Seeded], notes: list[str]) -> dict[int | str, float]:
    """Mean value by seed, in the order of seeds. Runs without a seed count one each. Adds to notes what is left out."""
    found: dict[int | str, list[float]] = {}
    for index, (seed, value) in enumerate(group):
        if value is not None and math.isfinite(value):
            found.setdefault(f"run {index}" if seed is None else seed, []).append(value)
    missing = len(group) - sum(map(len, found.values()))
    if missing:
        notes.append(f"{missing} of {name}'s {len(group)} runs {'are' if missing > 1 else 'is'} left out: no {measure.title} of a completed run.")  # fmt: skip
    for key, values in found.items():
        if len(values) > 1:
            notes.append(f"{len(values)} runs of {name} have the seed {key}: their mean counts as one.")
    ordered = sorted(found, key=lambda key: (isinstance(key, str), key if isinstance(key, int) else 0))
    return {key: math.fsum(found[key]) / len(found[key]) for key in ordered}


def without_spread(
    measure: Measure, names: tuple[str, str], sides: Sides, difference: float, verdict: Callable[..., Verdict]
) -> Verdict:
    """The verdict where all seeds agree, so there is nothing to resample. The number of seeds decides, by Fisher's permutation test.

    If the groups were equal, all of n pairs would differ in the same direction in 2 of 2^n cases, and all values of one
    group would be above those of the other in 2 of (n + m choose n). Below 5 % is evidence: 6 pairs, or 4 seeds per group.
    """
    constant = np.ptp(sides.a) == 0 and np.ptp(sides.b) == 0  # values that ignore the seed are not paired by it
    several, counts = min(sides.seeds), seeds_in_words(sides)
    if abs(difference) <= NO_SPREAD * float(np.abs(sides.a).max()):
        equal = "in every run" if constant else "seed by seed"
        return verdict(
            f"No evidence of a difference: {measure.title} is the same {equal} ({counts}).", 0.0, low=0.0, high=0.0
        )

    def chance(a: int, b: int) -> float:
        return 2 / math.comb(a + b, a) if constant or not sides.paired else 2.0 ** (1 - a)

    evidence = chance(*sides.seeds) < 1 - LEVEL
    (by,) = measure.written(abs(difference))
    same = f"by {with_unit(measure, by)} in every one of the seeds ({counts})"
    if evidence:
        sentence = f"{winner(measure, names, difference)} is better than {loser(measure, names, difference)}: {measure.title} {direction(measure, True)} {same}."
        return verdict(sentence, difference, low=difference, high=difference, evidence=True, better=winner(measure, names, difference))  # fmt: skip
    more = next(n for n in range(several + 1, several + 10) if chance(n, n) < 1 - LEVEL) - several
    how = "lower" if difference < 0 else "higher"
    sentence = (
        f"Too few seeds to tell: {measure.title} of {names[1]} is {how} than that of {names[0]} {same}; {wanted(more)}."
    )
    return verdict(sentence, difference, low=difference, high=difference, more_seeds=more)


def winner(measure: Measure, names: tuple[str, str], difference: float) -> str:
    return names[(difference < 0) == measure.lower_is_better]


def loser(measure: Measure, names: tuple[str, str], difference: float) -> str:
    return names[(difference < 0) != measure.lower_is_better]


def direction(measure: Measure, better: bool) -> str:
    return "lower" if better == measure.lower_is_better else "higher"


def with_unit(measure: Measure, value: str) -> str:
    return f"{value} {measure.unit}".strip()


def seeds_in_words(sides: Sides) -> str:
    """5 seeds each, paired."""
    a, b = sides.seeds
    return (f"{a} seeds each" if a == b else f"{a} and {b} seeds") + (", paired" if sides.paired else "")


def wanted(more: int | None) -> str:
    """How many more seeds are needed, in words."""
    if more is None or more > MANY:
        return f"more than {MANY:,} more seeds per group would be needed to see a difference of this size"
    return (
        f"about {more:,} more seed{'s' if more > 1 else ''} per group would be needed to see a difference of this size"
    )


def one_seed(measure: Measure, names: tuple[str, str], seeds: tuple[int, int], difference: float) -> str:
    """The sentence for a group with one seed."""
    who = "one seed each" if seeds == (1, 1) else f"one seed of {names[seeds[0] > 1]}"
    (by,) = measure.written(abs(difference))
    how = "lower" if difference < 0 else "higher"
    what = (
        f"is {how} by {with_unit(measure, by)} than that of {names[0]}" if difference else f"equals that of {names[0]}"
    )
    return f"No verdict with {who}: {measure.title} of {names[1]} {what}. A verdict needs several seeds of each."


def sentence_of(
    measure: Measure, names: tuple[str, str], sides: Sides, difference: float,
    low: float, high: float, better: str | None, more: int | None,
) -> str:  # fmt: skip
    """The sentence where the difference has an interval. better: the name of the better group, if there is evidence."""
    by, below, above = measure.written(abs(difference), abs(low), abs(high))
    if better:
        near, far = sorted((below, above), key=float)
        return (
            f"{better} is better than {loser(measure, names, difference)}: {measure.title} {direction(measure, True)} "
            f"by {with_unit(measure, by)} (95 % interval {near} to {far}; {seeds_in_words(sides)})."
        )
    how = "lower" if difference < 0 else "higher"
    what = f"is {how} by {with_unit(measure, by)} than" if difference else "has the same mean as"
    return (
        f"No evidence of a difference: {measure.title} of {names[1]} {what} that of {names[0]} (95 % interval "
        f"{below} lower to {above} higher; {seeds_in_words(sides)}); {wanted(more)}."
    )
