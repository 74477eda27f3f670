"""The equations, sums and strings of the shipped experiments: complete, right, balanced, and written as the Readmes say."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
from preparing import error_of

from core.plugins.code import load_code
from core.plugins.discovery import Experiment

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def code_of(name: str) -> ModuleType:
    code = load_code(Experiment(EXPERIMENTS / name))
    assert code is not None
    return code


@pytest.mark.parametrize(("order", "equations"), [(2, 49), (3, 343)])
@pytest.mark.parametrize("operator", ["+", "-", "*"])
def test_every_equation_once_and_right(operator: str, order: int, equations: int) -> None:
    found = list(code_of("arithmetic").documents(random.Random(1), p=7, operator=operator, orders=(order,)))
    assert len({example.prompt for example in found}) == len(found) == equations
    for example in found:
        assert example.prompt.count(operator) == order - 1
        assert example.group == f"order {order}"
        assert example.completion == f"{eval(example.prompt.removesuffix(' = ')) % 7}\n"


@pytest.mark.parametrize(("order", "equations"), [(2, 7 * 6), (3, 7 * 6 * 6)])
def test_division_is_right_when_multiplied_back(order: int, equations: int) -> None:
    found = list(code_of("arithmetic").documents(random.Random(1), p=7, operator="/", orders=(order,)))
    assert len({example.prompt for example in found}) == len(found) == equations
    for example in found:
        dividend, *divisors = map(int, example.prompt.removesuffix(" = ").split(" / "))
        product = int(example.completion)
        for divisor in divisors:
            assert divisor
            product *= divisor
        assert product % 7 == dividend


def test_both_orders_and_their_order_by_seed() -> None:
    documents = code_of("arithmetic").documents
    both = list(documents(random.Random(1), p=5, orders=(3, 2)))
    assert Counter(example.group for example in both) == {"order 2": 25, "order 3": 125}
    assert both == list(documents(random.Random(1), p=5, orders=(2, 3)))
    assert both != list(documents(random.Random(2), p=5, orders=(2, 3)))


def test_division_needs_a_prime(tmp_path: Path) -> None:
    folder = tmp_path / "arithmetic"
    folder.mkdir()
    for name in ("prepare.py", "config.toml"):
        shutil.copy(EXPERIMENTS / "arithmetic" / name, folder)
    error = error_of(folder, "prepare.params.operator=/", "prepare.params.p=33")
    assert error.message == "p = 33 is not prime, so not every number can be divided by every other"
    assert error.place == "prepare.params.p"
    assert error.remedy == 'Choose a prime, such as 31 or 97, or another operator than "/".'


@pytest.mark.parametrize(
    ("format", "prompt", "completion", "counted"),
    [
        ("plain", "128+67=", "195\n", "195"),
        ("zero_padded", "0128+0067=", "00195\n", "00195"),
        ("reversed", "128+67=", "591\n", "591"),
        ("dollar", "$128+67=", "195$", "195$"),
        ("simple", "128+67:\n", "A->5 , C->1\nA->9 , C->0\nA->1 , C->0\n195\n", "195"),
        (
            "detailed",
            "128+67:\n",
            "<scratch>\n"
            "[1,2,8] has 3 digits.\n"
            "[6,7] has 2 digits.\n"
            "[1,2,8] + [6,7] , A=[] , C=0 , 8+7+0=15 , A->5 , C->1\n"
            "[1,2] + [6] , A=[5] , C=1 , 2+6+1=9 , A->9 , C->0\n"
            "[1] + [] , A=[9,5] , C=0 , 1+0+0=1 , A->1 , C->0\n"
            "[] + [] , A=[1,9,5] , C=0 , END\n"
            "</scratch>\n"
            "195\n",
            "195",
        ),
    ],
)
def test_formats_of_a_sum(format: str, prompt: str, completion: str, counted: str) -> None:
    code = code_of("addition")
    assert code.written(128, 67, format, 4) == (prompt, completion)
    assert code.answer(completion) == counted


def test_sums_are_balanced_by_digits_and_carries() -> None:
    found = list(islice(code_of("addition").documents(random.Random(1), format="plain", max_digits=3), 9000))
    counts = Counter(example.group for example in found)
    assert len(counts) == 2 + 3 + 4
    for digits in (1, 2, 3):
        word = f"{digits} digit{'s' * (digits > 1)}"
        for carries in range(digits + 1):
            count = counts[f"{word}, {carries} carr{'y' if carries == 1 else 'ies'}"]
            assert abs(count - 3000 / (digits + 1)) < 200
    for example in found:
        left, right = example.prompt.removesuffix("=").split("+")
        assert int(left) + int(right) == int(example.completion)
        assert example.group.startswith(f"{max(len(left), len(right))} digit")


@pytest.mark.parametrize(
    ("left", "right", "carries"), [(0, 0, 0), (5, 5, 1), (28, 87, 2), (99, 1, 2), (50, 60, 1), (123, 456, 0)]
)
def test_carries(left: int, right: int, carries: int) -> None:
    assert code_of("addition").carries(left, right) == carries


@pytest.mark.parametrize(
    ("fewest", "most", "examples"), [(1, 2, 10_000), (2, 2, 9_900), (1, 2, 7_000), (1, 1, 100), (1, 3, 2_000)]
)
def test_as_many_different_sums_as_asked_for(fewest: int, most: int, examples: int) -> None:
    documents = code_of("addition").documents
    found = list(documents(random.Random(1), min_digits=fewest, max_digits=most, examples=examples))
    assert len({example.prompt for example in found}) == len(found) == examples
    lengths = {max(map(len, example.prompt.removesuffix("=").split("+"))) for example in found}
    assert lengths == set(range(fewest, most + 1))


@pytest.mark.parametrize("task", ["copy", "reverse", "sort"])
def test_tasks_on_strings(task: str) -> None:
    found = list(islice(code_of("strings").documents(random.Random(1), task=task, min_letters=1, max_letters=3), 200))
    for example in found:
        letters = example.prompt.removesuffix(": ")
        answers = {"copy": letters, "reverse": letters[::-1], "sort": "".join(sorted(letters))}
        assert example.completion == f"{answers[task]}\n"
        assert example.group == f"{len(letters)} letter{'s' * (len(letters) > 1)}"
    assert {len(example.prompt) for example in found} == {3, 4, 5}


def test_probes_are_longer_than_anything_in_training() -> None:
    sums = list(code_of("addition").held_out(random.Random(1), format="plain", max_digits=3, probes=50))
    assert len(sums) == 50 and {example.group.partition(",")[0] for example in sums} == {"4 digits"}
    assert len({example.group for example in sums}) == 5  # of carries
    for example in sums:
        left, right = map(int, example.prompt.rstrip("=").split("+"))
        assert int(example.completion) == left + right
    strings = list(code_of("strings").held_out(random.Random(1), task="reverse", max_letters=8, probes=20))
    assert [len(example.completion) - 1 for example in strings] == [9, 10] * 10
    assert all(example.prompt[:-2] == example.completion[-2::-1] for example in strings)
    assert list(code_of("strings").held_out(random.Random(1), probes=0)) == []


def test_parity() -> None:
    """Solutions are right, and the share that is worked out is what it says."""
    code = code_of("parity")
    found = list(islice(code.documents(random.Random(1), bits=6, long=0.25), 2000))
    long = [example for example in found if example.group == "long"]
    assert 0.2 < len(long) / len(found) < 0.3
    for example in found:
        digits = [int(digit) for digit in example.prompt.removesuffix("=")]
        assert len(digits) == 6 and code.answer(example.completion) == str(sum(digits) % 2)
        if example.group == "long":
            work = "".join(str(sum(digits[: place + 1]) % 2) for place in range(6))
            assert example.completion == f">{work}:{sum(digits) % 2}\n"
        else:
            assert example.completion == f"{sum(digits) % 2}\n"
