"""Verdicts over seeds: what is evidence, what is not, and what one seed can say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.evaluation.intervals import wilson
from core.report.bootstrap import Sides, interval, needed, t_quantile
from core.report.verdict import Measure, Verdict, judge

LOSS = Measure("best_val_loss", "val loss")
EXACT = Measure("accuracy", "exact match", lower_is_better=False, unit="points", factor=100.0, share=True)


def seeded(*values: float | None, start: int = 0) -> list[tuple[int | None, float | None]]:
    return list(enumerate(values, start))


def verdict(
    a: list[tuple[int | None, float | None]], b: list[tuple[int | None, float | None]], measure: Measure = LOSS
) -> Verdict:
    return judge(measure, "A", a, "B", b)


def test_a_clear_difference_has_its_interval_in_the_sentence() -> None:
    found = verdict(seeded(1.50, 1.52, 1.49, 1.51, 1.48), seeded(1.38, 1.39, 1.37, 1.38, 1.37))
    assert found.evidence and found.better == "B" and found.paired and found.more_seeds is None
    assert found.difference == pytest.approx(-0.122)
    assert found.low is not None and found.high is not None and found.low < -0.122 < found.high < 0
    assert found.sentence == (
        f"B is better than A: val loss lower by 0.122 (95 % interval {-found.high:.3f} to {-found.low:.3f}; 5 seeds each, paired)."
    )


def test_the_better_one_stands_first_whichever_was_given_first() -> None:
    found = verdict(seeded(1.38, 1.39, 1.37), seeded(1.50, 1.52, 1.49))
    assert found.sentence.startswith("A is better than B: val loss lower by 0.123 (95 % interval 0.")
    found = verdict(seeded(0.5, 0.51, 0.52), seeded(0.9, 0.91, 0.92, start=3), EXACT)
    assert found.better == "B" and not found.paired
    assert found.sentence.startswith(
        "B is better than A: exact match higher by 40.0 points, 91.0% instead of 51.0% (95 % interval 3"
    )
    assert found.sentence.endswith("; 3 seeds each).")


def test_no_evidence_says_how_many_more_seeds() -> None:
    found = verdict(seeded(1.50, 1.52, 1.49, 1.51, 1.48), seeded(1.51, 1.49, 1.50, 1.50, 1.49))
    assert not found.evidence and found.better is None
    assert found.more_seeds is not None and found.more_seeds > 10
    assert found.sentence.startswith(
        "No evidence of a difference: val loss of B is lower by 0.0020 than that of A (95 % interval 0.0"
    )
    assert found.sentence.endswith(
        f"; 5 seeds each, paired); about {found.more_seeds} more seeds per group would be needed to see a difference of this size."
    )


def test_a_tiny_difference_needs_more_seeds_than_are_counted() -> None:
    found = verdict(seeded(1.0, 2.0, 3.0), seeded(3.0, 1.0001, 2.0))
    assert found.sentence.endswith(
        "; 1,000 more seeds per group would be too few to see a difference as small as this."
    )


def test_a_difference_of_zero_asks_for_no_seeds() -> None:
    found = verdict(seeded(1.0, 2.0, 3.0), seeded(3.0, 1.0, 2.0))
    assert (found.difference, found.more_seeds) == (0.0, None)
    assert found.sentence.startswith("No evidence of a difference: val loss has the same mean in both groups (95 % ")
    assert found.sentence.endswith(" higher; 3 seeds each, paired).")


def shares(a: list[float], b: list[float], prompts: int | None = 100) -> Verdict:
    return judge(replace(EXACT, of="100 test prompts"), "A", seeded(*a), "B", seeded(*b), (prompts, prompts))


def test_no_interval_of_a_share_is_wider_than_its_scale() -> None:
    for a, b in (([0.1, 0.5, 0.9], [1.0] * 3), ([0.0] * 3, [1.0] * 3), ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0])):
        found = shares(a, b)
        assert found.low is not None and found.high is not None and -1 <= found.low <= found.high <= 1


def test_a_share_has_its_values_and_its_prompts_in_the_sentence() -> None:
    found = shares([0.5, 0.52, 0.51], [0.97, 0.99, 0.98])
    assert found.better == "B" and not found.paired
    assert found.sentence.startswith(
        "B is better than A: exact match higher by 47.0 points, 98.0% instead of 51.0% of 100 test prompts (95 % interval "
    )
    one = judge(EXACT, "A", [(0, 0.97)], "B", [(0, 0.086)])
    assert one.sentence == (
        "No verdict with one seed each: exact match of B is lower by 88.4 points than that of A, 8.6% instead of 97.0%. "
        "A verdict needs several seeds of each."
    )


def test_shares_near_one_have_room_on_the_side_of_the_others_only() -> None:
    """Three seeds without a mistake in 100 prompts are not without a spread: the next seed may make one."""
    found = shares([1.0, 1.0, 1.0], [0.99, 1.0, 1.0])
    assert not found.evidence and found.difference == pytest.approx(-1 / 300)
    assert found.low is not None and found.low < -0.01 and found.high is not None and found.high > 0.01
    assert shares([1.0, 1.0, 1.0], [0.9, 0.9, 0.9]).evidence  # by the prompts, though no seed differs from another
    assert not shares([1.0, 1.0, 1.0], [0.97, 0.97, 0.97]).evidence
    assert not shares([1.0, 1.0, 1.0], [0.9, 0.9, 0.9], prompts=None).evidence  # 3 seeds without a spread


def test_two_seeds_of_a_share_are_too_few() -> None:
    found = shares([0.98, 0.99], [0.01, 0.02])
    assert not found.evidence and found.more_seeds == 1
    assert found.sentence == (
        "Too few seeds to tell: exact match of B is lower by 97.0 points than that of A, 1.5% instead of 98.5% of 100 test "
        "prompts (2 seeds each). A verdict on exact match needs 3 seeds of each."
    )


def test_wilsons_interval_is_that_of_the_paper() -> None:
    """Newcombe 1998, table I: 81 of 263, and 15 of 148, with z = 1.96."""
    assert wilson(81 / 263, 263, 1.96) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15 / 148, 148, 1.96) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def test_one_seed_gives_no_verdict() -> None:
    found = verdict([(0, 1.5)], [(0, 1.377)])
    assert not found.evidence and found.low is None and found.difference == pytest.approx(-0.123)
    assert found.sentence == (
        "No verdict with one seed each: val loss of B is lower by 0.123 than that of A. A verdict needs several seeds of each."
    )
    assert verdict([(0, 1.5)], seeded(1.3, 1.31, 1.32)).sentence.startswith(
        "No verdict with one seed of A: val loss of B is lower by "
    )
    assert verdict(seeded(1.3, 1.31), [(7, 1.5)]).sentence.startswith("No verdict with one seed of B: ")
    assert "val loss of B equals that of A" in verdict([(0, 1.5)], [(1, 1.5)]).sentence


def test_the_same_run_over_again_is_one_seed() -> None:
    """Copies of one run are no evidence, however many they are."""
    found = verdict([(0, 1.5)] * 5, [(0, 1.4)] * 5)
    assert found.seeds == (1, 1) and found.sentence.startswith("No verdict with one seed each: ")
    assert "5 runs of A have the seed 0: their mean counts as one." in found.notes


def test_equal_values_are_no_evidence() -> None:
    found = verdict(seeded(1.5, 1.6, 1.7), seeded(1.5, 1.6, 1.7))
    assert found.sentence == "No evidence of a difference: val loss is the same seed by seed (3 seeds each, paired)."
    assert not found.evidence and (found.low, found.high, found.more_seeds) == (0.0, 0.0, None)
    found = verdict(seeded(1.0, 1.0), seeded(1.0, 1.0), EXACT)
    assert found.sentence == "No evidence of a difference: exact match is the same in every run, 100.0% (2 seeds each)."


@pytest.mark.parametrize(("count", "evidence"), [(2, False), (3, False), (4, True)])
def test_without_any_spread_the_number_of_seeds_decides(count: int, evidence: bool) -> None:
    found = verdict(seeded(*[1.5] * count), seeded(*[1.4] * count))
    assert found.evidence is evidence
    if evidence:
        assert (
            found.sentence
            == "B is better than A: val loss lower by 0.100 in every one of the seeds (4 seeds each, paired)."
        )
    else:
        assert found.more_seeds == 4 - count
        assert found.sentence.startswith(
            "Too few seeds to tell: val loss of B is lower than that of A by 0.100 in every one of the seeds"
        )


def test_a_constant_difference_of_pairs_needs_six_of_them() -> None:
    values = np.arange(1.0, 8.0)
    assert verdict(seeded(*values[:5]), seeded(*values[:5] - 0.5)).more_seeds == 1
    assert verdict(seeded(*values[:6]), seeded(*values[:6] - 0.5)).evidence


def test_missing_values_are_left_out_and_named() -> None:
    found = verdict(seeded(1.5, math.nan, 1.52, 1.51, 1.49), seeded(1.38, 1.39, None, 1.37, math.inf))
    assert found.seeds == (4, 3) and not found.paired  # only seeds 0 and 3 are on both sides
    assert found.notes == (
        "1 of A's 5 runs is left out: no val loss of a completed run.",
        "2 of B's 5 runs are left out: no val loss of a completed run.",
    )
    assert found.evidence and "4 and 3 seeds" in found.sentence
    nothing = verdict(seeded(None, None), seeded(1.0))
    assert (
        nothing.sentence == "Nothing to compare: A has no val loss of a completed run." and nothing.difference is None
    )


def test_three_common_seeds_are_paired_and_the_others_left_out() -> None:
    found = verdict(seeded(1.0, 2.0, 3.0, 4.0), seeded(1.9, 2.9, 3.91, 9.0, start=1))
    assert found.paired and found.seeds == (3, 3) and found.difference == pytest.approx(-0.0967, abs=1e-4)
    assert "1 of A's 4 seeds is left out: the other group does not have it." in found.notes
    assert not verdict(seeded(1.0, 2.0, 3.0), seeded(1.0, 2.0, 3.0, start=1)).paired  # two in common, of three
    # Three of ten in common: ten values apart say more than three pairs.
    many = verdict(seeded(*(1.0 + 0.01 * n for n in range(10))), seeded(*(1.2 + 0.01 * n for n in range(10)), start=7))
    assert not many.paired and many.seeds == (10, 10) and many.evidence
    assert not verdict([(None, 1.0), (None, 2.0)], [(None, 1.0), (None, 2.1)]).paired


def test_pairs_see_what_two_sides_do_not() -> None:
    a, b = seeded(1.0, 1.4, 1.8, 2.2, 2.6), seeded(0.95, 1.34, 1.75, 2.16, 2.55)
    assert verdict(a, b).evidence
    assert not verdict(a, [(seed and seed + 9, value) for seed, value in b][1:]).evidence


@pytest.mark.parametrize(("freedom", "bound"), [(1, 12.706), (2, 4.303), (4, 2.776), (8, 2.306), (29, 2.045)])
def test_the_quantile_of_students_t_is_that_of_the_tables(freedom: float, bound: float) -> None:
    assert t_quantile(freedom) == pytest.approx(bound, abs=2e-3)


def test_needed_seeds_are_those_of_the_formula() -> None:
    a = np.array([0.0, 0.0, 0.0, 0.0, 0.0])
    b = np.array([-0.5, 1.5, 0.5, 0.0, 1.0])  # mean 0.5, variance 0.625
    assert needed(Sides(a, b, True, ()), 0.5) == math.ceil(7.849 * 0.625 / 0.25 + 1.92) - 5


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_no_difference_is_seen_as_one_in_about_5_percent(paired: bool, seeds: int) -> None:
    random, tries = np.random.default_rng(1), 500
    draws = random.normal(size=(tries, 2, seeds))
    alarms = 0
    for a, b in draws:
        low, high = interval(Sides(a, b, paired, ()), float(b.mean() - a.mean()))
        alarms += not low <= 0 <= high
    assert 0.005 < alarms / tries < 0.08


# How the exact match of seeds may be spread: chance alone near 1, a little more, seeds that fail, and either all or nothing.
SPREADS = {
    "chance": lambda random, size: np.full(size, 0.97),
    "more": lambda random, size: random.beta(38.8, 1.2, size),
    "failing": lambda random, size: np.where(random.random(size) < 0.3, 0.3, 0.99),
    "bimodal": lambda random, size: np.where(random.random(size) < 0.5, 0.02, 0.98),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("seeds", [2, 3, 5, 15])
def test_shares_that_do_not_differ_are_rarely_called_different(spread: str, seeds: int) -> None:
    """300 pairs of groups of the same kind, each seed scored on 106 prompts; docs/LOG.md has 3,000."""
    random, tries, alarms = np.random.default_rng(3), 300, 0
    for _ in range(tries):
        a, b = random.binomial(106, SPREADS[spread](random, (2, seeds))) / 106
        alarms += shares(list(a), list(b), 106).evidence
    assert alarms / tries < 0.08 and (seeds > 2 or not alarms)


def test_a_difference_of_two_standard_deviations_is_mostly_seen() -> None:
    draws = np.random.default_rng(2).normal(size=(100, 2, 5))
    seen = sum(verdict(seeded(*a), seeded(*(b - 2.5))).better == "B" for a, b in draws)
    assert seen > 67


numbers = st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=5)


@given(numbers, numbers)
def test_any_values_make_a_sentence(a: list[float | None], b: list[float | None]) -> None:
    found = verdict(seeded(*a), seeded(*b))
    assert found.sentence.endswith(".") and "nan" not in found.sentence
    if found.low is not None and found.high is not None and found.difference is not None:
        assert found.low <= found.difference + 1e-6 and found.high >= found.difference - 1e-6
        assert (found.better is not None) == found.evidence
