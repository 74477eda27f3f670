"""Decide what the seeds of two groups show: the difference of a measure, its interval, and one sentence.

bootstrap.py and proportions.py have the statistics. This file decides which values count, which are paired, and what the
sentence says.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.report.bootstrap import LEVEL, NO_SPREAD, Sides, Values, interval, needed, spread
from core.report.proportions import LEAST_SEEDS, chance_alone, interval_of_shares
from core.tracking.figures import share_text

Seeded = tuple[int | None, float | None]  # a run's seed and its value; None or NaN where it has none
COMMON_SEEDS = 3  # with so many seeds in common, the other seeds are left out
MANY = 1000  # above it, the number of seeds needed is not given
Prompts = tuple[int | None, int | None]  # how many prompts a share is measured on, in each group


@dataclass(frozen=True)
class Measure:
    """key: in summary.json. title: in sentences. unit: of a difference. factor: to that unit. share: whether it is one of prompts.
    of: which ones, such as "106 test prompts"."""

    key: str
    title: str
    lower_is_better: bool = True
    unit: str = ""
    factor: float = 1.0
    share: bool = False
    of: str = ""

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


def judge(
    measure: Measure, first: str, a: Sequence[Seeded], second: str, b: Sequence[Seeded], prompts: Prompts = (None, None)
) -> Verdict:
    """Compare two groups, named `first` and `second`. Runs of one seed in one group count as one, by their mean."""
    sides = matched(measure, first, a, second, b)
    names = (first, second)

    verdict = functools.partial(Verdict, measure, first, second, sides.seeds, sides.paired, sides.notes)
    if not all(sides.seeds):
        missing = [name for name, count in zip(names, sides.seeds, strict=True) if not count]
        who = " and ".join(missing) + (" have" if len(missing) > 1 else " has")
        return verdict(f"Nothing to compare: {who} no {measure.title} of a completed run.")
    difference = float(sides.b.mean() - sides.a.mean())
    if abs(difference) <= NO_SPREAD * float(np.abs(sides.a).max()):
        difference = 0.0  # only rounding
    if min(sides.seeds) == 1:
        return verdict(one_seed(measure, names, sides, difference), difference)
    if spread(sides) == 0 and not (measure.share and all(prompts) and difference):
        return without_spread(measure, names, sides, difference, verdict)
    if measure.share and min(sides.seeds) < LEAST_SEEDS:
        return verdict(two_seeds(measure, names, sides, difference), difference, more_seeds=1)
    low, high = interval_of_shares(sides, prompts) if measure.share else interval(sides, difference)
    evidence = not low <= 0 <= high
    more = None if evidence else needed(sides, difference, chance_alone(sides, prompts) if measure.share else 0.0)
    better = winner(measure, names, difference) if evidence else None
    sentence = sentence_of(measure, names, sides, difference, low, high, better, more)
    return verdict(sentence, difference, low=low, high=high, evidence=evidence, better=better, more_seeds=more)


def matched(measure: Measure, first: str, a: Sequence[Seeded], second: str, b: Sequence[Seeded]) -> Sides:
    """The values that count. They are paired if all seeds match, or at least three and more than half of each group's: the
    others are then left out. Pairs remove the effect of the seed, but a few pairs say less than many unpaired values.
    Shares are never paired: their interval needs the spread within each group."""
    notes: list[str] = []
    by_seed = [counted(measure, name, group, notes) for name, group in ((first, a), (second, b))]
    keys = [set(group) for group in by_seed]
    common = sorted(key for key in keys[0] & keys[1] if isinstance(key, int))
    most = 2 * len(common) > max(map(len, keys)) and len(common) >= COMMON_SEEDS
    paired = len(common) >= 2 and (keys[0] == keys[1] or most) and not measure.share
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
    if not difference:
        equal = "in every run" if constant else "seed by seed"
        value = f", {share_of(measure, sides.a)}" if measure.share and constant else ""
        sentence = f"No evidence of a difference: {measure.title} is the same {equal}{value} ({counts})."
        return verdict(sentence, 0.0, low=0.0, high=0.0)

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


def values_in_words(measure: Measure, names: tuple[str, str], sides: Sides, subject: str) -> str:
    """The two means of a share, `subject`'s first: `, 97.0% instead of 8.6%`; "" for other measures, which a table shows."""
    if not measure.share:
        return ""
    own, others = (sides.a, sides.b) if subject == names[0] else (sides.b, sides.a)
    return f", {share_text(float(own.mean()))} instead of {share_of(measure, others)}"


def share_of(measure: Measure, values: Values) -> str:
    """The mean of a share, with what it is of: `97.0% of 106 test prompts`."""
    return share_text(float(values.mean())) + (f" of {measure.of}" if measure.of else "")


def wanted(more: int | None) -> str:
    """How many more seeds are needed, in words."""
    if more is None or more > MANY:
        return f"{MANY:,} more seeds per group would be too few to see a difference as small as this"
    return (
        f"about {more:,} more seed{'s' if more > 1 else ''} per group would be needed to see a difference of this size"
    )


def comparison_of(
    measure: Measure, names: tuple[str, str], sides: Sides, difference: float, by: str | None = None
) -> str:
    """How the second group stands to the first: `val loss of B is lower by 0.123 than that of A`. by: the 0.123."""
    if not difference:
        return f"{measure.title} of {names[1]} equals that of {names[0]}"
    by = by or measure.written(abs(difference))[0]
    how = "lower" if difference < 0 else "higher"
    values = values_in_words(measure, names, sides, names[1])
    return f"{measure.title} of {names[1]} is {how} by {with_unit(measure, by)} than that of {names[0]}{values}"


def one_seed(measure: Measure, names: tuple[str, str], sides: Sides, difference: float) -> str:
    """The sentence for a group with one seed."""
    who = "one seed each" if sides.seeds == (1, 1) else f"one seed of {names[sides.seeds[0] > 1]}"
    what = comparison_of(measure, names, sides, difference)
    return f"No verdict with {who}: {what}. A verdict needs several seeds of each."


def two_seeds(measure: Measure, names: tuple[str, str], sides: Sides, difference: float) -> str:
    """The sentence for a share of a group with two seeds, where two that fail say little about the others."""
    what = comparison_of(measure, names, sides, difference)
    return f"Too few seeds to tell: {what} ({seeds_in_words(sides)}). A verdict on {measure.title} needs {LEAST_SEEDS} seeds of each."


def sentence_of(
    measure: Measure, names: tuple[str, str], sides: Sides, difference: float,
    low: float, high: float, better: str | None, more: int | None,
) -> str:  # fmt: skip
    """The sentence where the difference has an interval. better: the name of the better group, if there is evidence."""
    by, below, above = measure.written(abs(difference), abs(low), abs(high))
    if better:
        near, far = sorted((below, above), key=float)
        values = values_in_words(measure, names, sides, better)
        return (
            f"{better} is better than {loser(measure, names, difference)}: {measure.title} {direction(measure, True)} "
            f"by {with_unit(measure, by)}{values} (95 % interval {near} to {far}; {seeds_in_words(sides)})."
        )
    interval = f"(95 % interval {below} lower to {above} higher; {seeds_in_words(sides)})"
    if not difference:
        return f"No evidence of a difference: {measure.title} has the same mean in both groups {interval}."
    return f"No evidence of a difference: {comparison_of(measure, names, sides, difference, by)} {interval}; {wanted(more)}."
