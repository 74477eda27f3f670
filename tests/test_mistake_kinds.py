"""What is wrong in wrong answers: kinds, positions, carries; in evaluation.json and in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from core.data.documents import Example
from core.evaluation.exact_match import Answer
from core.evaluation.mistakes import anatomy, carries_of, kind_of

Terrarium = Callable[..., Result]


def codes(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("prompt", "truth", "text", "kind"),
    [
        ("19+25=", "44", "34", "a carry lost"),
        ("19+25=", "44", "54", "a carry too many"),
        ("19+25=", "44", "43", "off by one"),
        ("99+1=", "100", "99", "a digit too few"),
        ("1+1=", "2", "22", "a digit too many"),
        ("1+1=", "2", "2222", "several digits too many"),
        ("12+51=", "63", "36", "reversed"),
        ("12+52=", "64", "84", "one digit wrong"),
        ("12+52=", "64", "85", "several digits wrong"),
        ("19+26=", "54", "53", "a carry lost"),  # reversed digits: 45, and 35 is written
        ("19+26=", "54", "64", "off by one"),  # 46
        ("cab: ", "bac", "", "empty"),
        ("cab: ", "bac", "ba", "too short"),
        ("cab: ", "bac", "bacc", "too long"),
        ("cab: ", "bac", "cab", "reversed"),
        ("cab: ", "bac", "abc", "in another order"),
        ("cab: ", "bac", "bad", "one place wrong"),
        ("cab: ", "bac", "bdd", "several places wrong"),
        ("cab: ", "bac", "ddd", "all places wrong"),
    ],
)
def test_kinds(prompt: str, truth: str, text: str, kind: str) -> None:
    assert kind_of(prompt, truth, text) == kind


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_carries_are_those_of_the_sums_of_digits(left: int, right: int) -> None:
    def digits(number: int) -> int:
        return sum(map(int, str(number)))

    assert 9 * carries_of(left, right) == digits(left) + digits(right) - digits(left + right)


def test_positions_and_carries() -> None:
    answers = [
        Answer(Example("15+5=", "20\n"), "20\n"),
        Answer(Example("15+6=", "21\n"), "11\n"),
        Answer(Example("99+1=", "100\n"), "10\n"),
        Answer(Example("1+1=", "2\n"), "2\n"),
    ]
    found = anatomy(answers, codes)
    assert found.kinds == {"a carry lost": 1, "a digit too few": 1}
    assert found.from_start == [(3, 4), (3, 3), (0, 1)] and found.from_end == [(4, 4), (1, 3), (0, 1)]
    assert found.carries == {0: (1, 1), 1: (1, 2), 2: (0, 1)} and found.tokens == (6, 8)
    metrics = found.metrics("val")
    assert metrics["val_token_accuracy"] == 0.75 and metrics["val_carry_accuracy/1"] == 0.5
    assert metrics["val_start_accuracy/3"] == 0 and metrics["val_mistakes/a carry lost"] == 1


def test_a_run_tells_them(spaces: Path, terrarium: Terrarium) -> None:
    (spaces / "prepare.py").write_text(
        "from core import Example\n\n\ndef documents(rng):\n    while True:\n        a, b = rng.randrange(50), rng.randrange(50)\n"
        "        yield Example(f'{a}+{b}=', f'{a + b}\\n')\n"
    )
    (spaces / "config.toml").write_text(TINY)
    done = terrarium("loop", "spaces")
    assert done.exit_code == 0, done.output
    assert "  kinds of mistakes: " in done.stdout
    assert "val_token_accuracy" not in done.stdout and "val_start_accuracy" not in done.stdout
    figures = json.loads((spaces / "out/default/evaluation.json").read_text())
    wrong = sum(count for name, count in figures.items() if name.startswith("val_mistakes/"))
    assert wrong == round((1 - figures["val_accuracy"]) * figures["val_prompts"])
    assert {"val_start_accuracy/1", "val_end_accuracy/2", "val_carry_accuracy/0"} <= figures.keys()
    page = (spaces / "out/default/report.md").read_text()
    assert (
        "## Right answers by position and by carries" in page and " tokens of validation answers are right. By" in page
    )
    assert "| position | from start |" in page
    assert "| kind of mistake | answers |" in page and "| carries | exact match |" in page
