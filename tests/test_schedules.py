"""The learning rate by step, against arithmetic."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.config import Config, Schedule
from core.contradictions import Contradiction
from core.defaults import resolve
from core.training.schedules import Plateau, after_evaluation, fraction


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
    shape=st.sampled_from(["linear", "cosine", "wsd"]),
    decay_fraction=st.floats(0, 1, exclude_min=True),
    end=st.integers(200, 1000),
)
def test_by_time_a_steady_run_has_the_rates_of_one_by_steps(shape: str, decay_fraction: float, end: int) -> None:
    settings = schedule(decay=shape, lr_decay_iters=end, decay_fraction=round(decay_fraction * end) / end or 1.0)
    for step in range(0, end + 1, 7):
        by_time = fraction(step, settings, peak=1.0, gone=step / end)
        assert by_time == pytest.approx(fraction(step, settings, peak=1.0), abs=1e-9)


@given(
    decay=st.sampled_from(["linear", "cosine", "constant", "wsd", "step"]),
    end=st.integers(2, 500),
    warmup_share=st.floats(0, 0.99),
    decay_fraction=st.floats(0.01, 1),
    lowest=st.floats(0.001, 1),
)
def test_every_schedule_rises_then_falls_within_its_bounds(
    decay: str, end: int, warmup_share: float, decay_fraction: float, lowest: float
) -> None:
    warmup = int(warmup_share * end)
    settings = schedule(
        decay=decay,
        lr_decay_iters=end,
        warmup_iters=warmup,
        decay_fraction=decay_fraction,
        min_lr=lowest,
        interval=max(1, end // 3),
    )
    values = [fraction(step, settings, peak=1.0) for step in range(end + 3)]
    rise, fall = values[: warmup + 1], values[warmup:]
    assert rise == sorted(rise) or decay == "step"
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(fall))
    assert all(lowest - 1e-12 <= value <= 1 for value in fall)
    assert max(values) == 1.0 or decay == "step"  # it may fall before the warm-up ends


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1 / 11), (10, 1.0), (89, 1.0), (90, 1.0), (95, 0.1**0.5), (100, 0.1), (200, 0.1)]
)
def test_wsd_warms_up_is_stable_and_falls_exponentially(step: int, expected: float) -> None:
    settings = schedule(decay="wsd", warmup_iters=10, decay_fraction=0.1)
    assert fraction(step, settings, peak=1.0) == pytest.approx(expected)


def test_wsd_halves_the_rate_in_equal_times() -> None:
    settings = schedule(decay="wsd", decay_fraction=0.4, min_lr=1 / 16)
    assert [fraction(step, settings, peak=1.0) for step in (60, 70, 80, 90, 100)] == pytest.approx(
        [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16]
    )
    assert fraction(0, settings, peak=1.0, gone=0.8) == pytest.approx(1 / 4)


def test_step_multiplies_at_every_interval_and_ends_at_min_lr() -> None:
    settings = schedule(decay="step", factor=0.5, interval=30, min_lr=0.2)
    assert [fraction(step, settings, peak=1.0) for step in (0, 29, 30, 59, 60, 90, 500)] == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.2,
        0.2,
    ]
    assert fraction(1, schedule(decay="step", factor=0.5, interval=30, warmup_iters=3), peak=1.0) == 0.5
    assert fraction(60, settings, peak=1.0, gone=0.01) == 0.25  # the clock has no part in it


@pytest.mark.parametrize(
    ("patience", "losses", "falls"),
    [
        (0, [3, 2, 1], [0, 0, 0]),
        (0, [3, 3, 2, 4, 2], [0, 1, 1, 2, 3]),
        (2, [3, 4, 4, 4, 4, 4, 4], [0, 0, 0, 1, 1, 1, 2]),
        (2, [3, 4, 4, 2.9, 4, 4, 4], [0, 0, 0, 0, 0, 0, 1]),
        (1, [1, 0.99995, 0.9999, 0.998], [0, 0, 1, 1]),  # less than a ten-thousandth lower is not lower
    ],
)
def test_plateau_waits_for_a_lower_loss(patience: int, losses: list[float], falls: list[int]) -> None:
    settings, plateau, found = schedule(decay="plateau", patience=patience, factor=0.5, min_lr=0.2), Plateau(), []
    for loss in losses:
        plateau = after_evaluation(plateau, loss, settings)
        found.append(plateau.falls)
        assert fraction(50, settings, peak=1.0, plateau=plateau) == max(0.2, 0.5**plateau.falls)
    assert found == falls


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=40), st.integers(0, 4))
def test_plateau_is_that_of_torch(losses: list[float], patience: int) -> None:
    settings = schedule(decay="plateau", patience=patience, factor=0.5, min_lr=0.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, eps=0)
    plateau = Plateau()
    for loss in losses:
        plateau = after_evaluation(plateau, loss, settings)
        theirs.step(loss)
        assert fraction(0, settings, peak=1.0, plateau=plateau) == optimizer.param_groups[0]["lr"]


def resolved(**settings: object) -> Schedule:
    optim = settings.pop("optim", {})
    runtime = settings.pop("runtime", {})
    return resolve(
        Config.model_validate({"train": {"schedule": settings, "optim": optim, "runtime": runtime}})
    ).train.schedule


def test_defaults_follow_the_shape() -> None:
    assert (resolved(decay="wsd").decay_fraction, resolved(decay="linear").decay_fraction) == (0.1, 0.6)
    assert resolved(decay="cosine").decay_fraction == 0.6  # as runs of earlier versions have recorded it
    assert (resolved(decay="step", max_iters=900).interval, resolved(decay="wsd").interval) == (300, None)
    assert [resolved(decay=decay, optim={"learning_rate": 1.0}).min_lr for decay in ("wsd", "step", "plateau")] == [
        0.1,
        0,
        0,
    ]
    assert resolved(decay="step", interval=7, runtime={"max_minutes": 1}).interval == 7


def test_schedules_that_cannot_be_are_refused() -> None:
    with pytest.raises(Contradiction, match="needs an interval where max_minutes ends the run") as error:
        resolved(decay="step", runtime={"max_minutes": 1.0})
    assert error.value.remedy == "Set train.schedule.interval, optimizer steps."
    with pytest.raises(Contradiction, match="falls exponentially, and so never to 0") as error:
        resolved(decay="wsd", min_lr=0.0)
    assert error.value.remedy == "Give a min_lr above 0, or leave it out: a tenth of learning_rate."
