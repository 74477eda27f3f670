"""The calculator: what Python's exact numbers say, within limits; and an error as text for whatever is no arithmetic."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import calculator
from core.chat.calculator import ERROR, MOST_CHARACTERS, MOST_DEPTH, SHOWN, calculate

ROOT = Path(__file__).parents[1]
VALUES = [
    ("48/2", "24"), ("1/3", "0.3333333333"), ("2/3", "0.6666666667"), ("0.1+0.2", "0.3"), ("2*(3+4)", "14"), ("-2**2", "-4"), ("2**-1", "0.5"),
    ("2^3^2", "512"), ("7//2", "3"), ("-7//2", "-4"), ("-7%3", "2"), ("7.5%2", "1.5"), ("1,000*2", "2000"), ("80,000+50,000", "130000"),
    ("1,234,567.5", "1234567.5"), (".5", "0.5"), ("5.+1", "6"), ("20000*.8", "16000"), (" 1 + 1 ", "2"), ("+3", "3"), ("2--3", "5"), ("4**0.5", "2"),
    ("2**0.5", "1.414213562"), ("100**0.5%10", "0"), ("1.0001**365", "1.037172411"), ("12345678901.55", "12345678901.55"), ("2/3*100000000000", "66666666667"),
    ("1/1024", "0.0009765625"), ("10**99", "1" + "0" * 99), ("(-1)**(10**99+1)", "-1"), ("0**0", "1"), ("0.1**200", "0"), ("007", "7"), ("1-1", "0"), ("0*-1", "0"),
    ("(1/3)*3", "1"), ("0.5**(10**40)", "0"), ("1/10**30", "0." + "0" * 29 + "1"),
]  # fmt: skip
ERRORS = [
    ("", "nothing to calculate"), ("  ", "nothing to calculate"), ("1/0", "division by zero"), ("1//0", "division by zero"), ("1%0", "division by zero"),
    ("0**-1", "division by zero"), ("2(3)", "'(' is out of place"), ("1 2", "'2' is out of place"), ("1)", "')' is out of place"), ("*2", "'*' is out of place"),
    ("()", "')' is out of place"), ("2+", "a number is missing at the end"), ("(", "a number is missing at the end"), ("((1)", "a bracket is not closed"),
    ("(1 2)", "a bracket is not closed"), ("three", "cannot read 'three'"), ("3 x 4", "cannot read 'x 4'"), ("__import__('os')", "cannot read '__import__'"),
    ("1,00", "cannot read ',00'"), ("1,0000", "cannot read ',0000'"), ("1e5", "cannot read 'e5'"), ("٣", "cannot read '٣'"), ("3=3", "cannot read '=3'"),
    ("(-8)**(1/3)", "a root of a negative number"), ("10**100", "the numbers become too large"), ("10**99*10", "the numbers become too large"),
    ("9**9**9", "the numbers become too large"), ("1.5**(10**90)", "the numbers become too large"), ("1" * 101, "the numbers become too large"),
    ("1" * (MOST_CHARACTERS + 1), f"longer than {MOST_CHARACTERS} characters"), ("(" * MOST_DEPTH + "1", f"nested more than {MOST_DEPTH} deep"),
    ("-" * 100 + "1", f"nested more than {MOST_DEPTH} deep"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values(text: str, value: str) -> None:
    assert calculate(text) == value


@pytest.mark.parametrize(("text", "reason"), ERRORS)
def test_errors_are_text(text: str, reason: str) -> None:
    assert calculate(text) == f"error: {reason}"


def leaf(number: int, places: int) -> tuple[str, Fraction]:
    """A decimal as text, and its value."""
    text = f"{number / 10**places:.{places}f}"
    return text, Fraction(text)


LEAVES = st.builds(leaf, st.integers(0, 10**6), st.integers(0, 3))


def combined(children: st.SearchStrategy[tuple[str, Fraction]]) -> st.SearchStrategy[tuple[str, Fraction]]:
    """Sums of smaller ones, in brackets where Python needs them too: the text is Python's own."""

    def two(left: tuple[str, Fraction], sign: str, right: tuple[str, Fraction]) -> tuple[str, Fraction]:
        if sign in ("/", "//", "%") and not right[1]:
            sign = "+"
        value = Fraction(eval("a " + sign + " b", {"a": left[1], "b": right[1]}))
        return f"({left[0]}){sign}({right[0]})", value

    return st.builds(two, children, st.sampled_from(["+", "-", "*", "/", "//", "%"]), children) | st.builds(
        lambda one: (f"-({one[0]})", -one[1]), children
    )


@settings(max_examples=300)
@given(pair=st.recursive(LEAVES, combined, max_leaves=8))
def test_values_are_those_of_exact_fractions(pair: tuple[str, Fraction]) -> None:
    text, value = pair
    found = calculate(text)
    if len(text) > MOST_CHARACTERS or abs(value) >= calculator.LARGEST:
        assert found.startswith(ERROR)
    elif value.denominator == 1:
        assert found == str(value.numerator)
    else:
        exact = Context(prec=60).divide(Decimal(value.numerator), Decimal(value.denominator))
        step = Decimal(1).scaleb(exact.adjusted() - SHOWN + 1)
        assert abs(Decimal(found) - exact) <= step / 2 * Decimal("1.000001")


TERMS = st.integers(0, 999).map(str)
SIGNED = st.builds(lambda signs, term: "".join(signs) + term, st.lists(st.sampled_from("+-"), max_size=2), TERMS)


@settings(max_examples=300)
@given(
    terms=st.lists(SIGNED, min_size=1, max_size=8),
    signs=st.lists(st.sampled_from(["+", "-", "*", "//", "%"]), min_size=8, max_size=8),
)
def test_precedence_is_that_of_python(terms: list[str], signs: list[str]) -> None:
    text = "".join(term + sign for term, sign in zip(terms, signs, strict=False)) + "1"
    try:
        wanted = str(eval(python(text)))
    except ZeroDivisionError:
        wanted = "error: division by zero"
    assert calculate(text) == wanted


def python(text: str) -> str:
    """The same for Python, which takes no number that begins with 0."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", text)


@settings(max_examples=200)
@given(base=st.integers(-50, 50), exponent=st.integers(-20, 20), sign=st.sampled_from(["**", "^"]))
def test_powers(base: int, exponent: int, sign: str) -> None:
    found = calculate(f"({base}){sign}{exponent}")
    if not base and exponent < 0:
        assert found == "error: division by zero"
    elif exponent >= 0:
        assert found == str(base**exponent)
    else:
        assert math.isclose(float(found), float(Fraction(base) ** exponent), rel_tol=1e-9)


@settings(max_examples=300)
@given(text=st.text(max_size=40) | st.text("0123456789.,+-*/%^() ", max_size=40))
def test_whatever_comes_gives_one_short_line(text: str) -> None:
    found = calculate(text)
    assert found and len(found) <= 220 and "\n" not in found
    assert found.startswith(ERROR) or Decimal(found).is_finite()


def test_ten_thousand_hostile_expressions() -> None:
    """None executes anything, takes long or takes memory: in a process of its own, which notes every event of Python's audit."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "hostile_sums.py"), "10000", "0", "64"],
        capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["executed"] == [] and found["values"] + found["errors"] == 10_000
    assert found["errors"] > 5_000 and found["values"] > 500
    assert found["longest"] < 0.5


def test_there_is_no_eval() -> None:
    tree = ast.parse(Path(calculator.__file__).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "__import__", "getattr", "globals", "open"}
