"""pass@k against the average over all choices of k answers."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.evaluation.passes import pass_at, passes


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_it_is_the_average_over_all_choices(answers: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    choices = [any(chosen) for chosen in combinations(answers, k)]
    assert pass_at(k, len(answers), sum(answers)) == pytest.approx(sum(choices) / len(choices))


def test_powers_of_two_up_to_the_samples() -> None:
    assert passes([0, 6, 3], 6) == pytest.approx({"pass@1": 0.5, "pass@2": (0 + 1 + 0.8) / 3, "pass@4": 2 / 3})


@pytest.mark.parametrize("k", [0, 9])
def test_more_answers_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} is not from 1 to 8"):
        pass_at(k, 8, 1)
