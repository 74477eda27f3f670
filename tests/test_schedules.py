"""The learning rate by step, against arithmetic."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Schedule
from core.training.schedules import fraction


def schedule(**settings: object) -> Schedule:
    return Schedule.model_validate(
        {
            "max_iters": 100,
            "warmup_iters": 0,
            "lr_decay_iters": 100,
            "min_lr": 0.1,
            "decay": "linear",
            "decay_fraction": 0.6,
        }
        | settings
    )


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (39, 1.0), (40, 1.0), (55, 1 - 0.25 * 0.95), (70, 1 - 0.5 * 0.95), (100, 0.05), (500, 0.05)],
)
def test_linear_is_flat_then_falls_to_min_lr(step: int, expected: float) -> None:
    assert fraction(step, schedule(), peak=2.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1 / 11), (4, 5 / 11), (9, 10 / 11), (10, 1.0), (55, 0.55), (100, 0.1), (101, 0.1)],
)
def test_cosine_with_warm_up_is_that_of_nanogpt(step: int, expected: float) -> None:
    assert fraction(step, schedule(decay="cosine", warmup_iters=10), peak=1.0) == pytest.approx(expected)


def test_constant_only_warms_up() -> None:
    values = [fraction(step, schedule(decay="constant", warmup_iters=3), peak=1.0) for step in (0, 1, 2, 3, 99, 1000)]
    assert values == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_long_warm_up_pushes_the_fall_back() -> None:
    values = [fraction(step, schedule(warmup_iters=80), peak=1.0) for step in (79, 80, 90, 100)]
    assert values == pytest.approx([80 / 81, 1.0, 0.55, 0.1])


def test_a_fall_of_no_step_ends_at_once() -> None:
    late = schedule(decay_fraction=0.001)
    assert [fraction(step, late, peak=1.0) for step in (99, 100)] == [1.0, 0.1]


@pytest.mark.parametrize(
    ("gone", "expected"), [(0, 1.0), (0.4, 1.0), (0.55, 1 - 0.25 * 0.95), (0.7, 1 - 0.5 * 0.95), (1, 0.05)]
)
def test_by_time_linear_falls_in_the_last_part_of_the_budget(gone: float, expected: float) -> None:
    for step in (0, 99, 100_000):  # max_iters and lr_decay_iters are 100
        assert fraction(step, schedule(), peak=2.0, gone=gone) == pytest.approx(expected)


@pytest.mark.parametrize(("gone", "expected"), [(0, 1.0), (0.25, 0.1 + 0.9 * 0.8535534), (0.5, 0.55), (1, 0.1)])
def test_by_time_cosine_takes_the_whole_budget(gone: float, expected: float) -> None:
    assert fraction(500, schedule(decay="cosine", warmup_iters=10), peak=1.0, gone=gone) == pytest.approx(expected)


def test_by_time_warm_up_stays_in_steps_and_the_lower_rate_counts() -> None:
    settings = schedule(warmup_iters=9, lr_decay_iters=1)
    assert [fraction(step, settings, peak=1.0, gone=0.1) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert fraction(8, settings, peak=1.0, gone=0.7) == pytest.approx(0.55)
    assert fraction(0, settings, peak=1.0, gone=0.7) == 0.1
    assert fraction(10, schedule(decay="constant"), peak=1.0, gone=1.0) == 1.0


@given(
    shape=st.sampled_from(["linear", "cosine"]),
    decay_fraction=st.floats(0, 1, exclude_min=True),
    end=st.integers(200, 1000),
)
def test_by_time_a_steady_run_has_the_rates_of_one_by_steps(shape: str, decay_fraction: float, end: int) -> None:
    settings = schedule(decay=shape, lr_decay_iters=end, decay_fraction=round(decay_fraction * end) / end or 1.0)
    for step in range(0, end + 1, 7):
        by_time = fraction(step, settings, peak=1.0, gone=step / end)
        assert by_time == pytest.approx(fraction(step, settings, peak=1.0), abs=1e-9)


@given(
    decay=st.sampled_from(["linear", "cosine", "constant"]),
    end=st.integers(2, 500),
    warmup_share=st.floats(0, 0.99),
    decay_fraction=st.floats(0.01, 1),
    lowest=st.floats(0, 1),
)
def test_every_schedule_rises_then_falls_within_its_bounds(
    decay: str, end: int, warmup_share: float, decay_fraction: float, lowest: float
) -> None:
    warmup = int(warmup_share * end)
    settings = schedule(
        decay=decay, lr_decay_iters=end, warmup_iters=warmup, decay_fraction=decay_fraction, min_lr=lowest
    )
    values = [fraction(step, settings, peak=1.0) for step in range(end + 3)]
    rise, fall = values[: warmup + 1], values[warmup:]
    assert rise == sorted(rise)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(fall))
    assert all(lowest - 1e-12 <= value <= 1 for value in fall)
    assert max(values) == 1.0
