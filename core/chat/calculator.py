"""A calculator for models: a line of arithmetic in, its value or an error out, as text. It parses; nothing is executed.

    48/2 -> 24        1/3 -> 0.3333333333        0.1+0.2 -> 0.3        2*(3+4) -> 14        1/0 -> error: division by zero

Numbers are exact fractions as long as they are short. Beyond MOST_DIGITS digits, and for roots, they have PRECISION digits.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, InvalidOperation, Overflow
from fractions import Fraction

MOST_CHARACTERS = 500  # of an expression
MOST_DEPTH = 50  # of brackets, signs and powers inside each other
MOST_DIGITS = 100  # in front of the point; more are an error
PRECISION = 50  # digits of what is not exact
WHOLE = 20  # digits of a result that ends, such as 12.375, at most; a longer one is rounded
SHOWN = 10  # digits of a result that is rounded; more where more stand in front of the point
ERROR = "error: "  # a result that begins so is none

TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)|(?P<sign>\*\*|//|[-+*/%^()]))"
)
NO_OPERAND = ("+", "-", "*", "/", "//", "%", "^", "**", ")")  # where a number should stand
LARGEST = 10**MOST_DIGITS
# Emin: what underflows becomes 0, and 0 is what held() would make of it.
ROUNDING = Context(prec=PRECISION + 10, Emax=999_999, Emin=-999_999, traps=[InvalidOperation, Overflow])


BINARY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": lambda one, other: Fraction(one // other),
    "%": operator.mod,
}


class NoValue(Exception):
    """The expression has no value; the message says why, in a few words."""


def calculate(text: str) -> str:
    """The value of an expression as text, or `error: ` and why there is none. Never raises.

    It knows + - * / // (rounded down) % (the remainder, with the sign of the divisor), ** or ^ (power), brackets, decimals
    and commas between thousands. Powers go first, from the right, then signs, then * / // %, then + -, as in Python.
    Integers are written whole, and so are other numbers of at most WHOLE digits. The rest is rounded to SHOWN digits.
    """
    try:
        if len(text) > MOST_CHARACTERS:
            raise NoValue(f"longer than {MOST_CHARACTERS} characters")
        return written(Parser(tokens_of(text)).value())
    except NoValue as reason:
        return f"{ERROR}{reason}"


def tokens_of(text: str) -> list[str]:
    """Numbers, signs and brackets. Raises NoValue for anything else."""
    tokens, place, end = list[str](), 0, len(text.rstrip())
    while place < end:
        found = TOKEN.match(text, place)
        if found is None:
            raise NoValue(f"cannot read {text[place:end].lstrip()[:10]!r}")
        tokens.append(found["number"] or found["sign"])
        place = found.end()
    return tokens


class Parser:
    """Reads tokens from left to right and computes on the way: one method for each level of precedence."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place, self.depth = tokens, 0, 0

    def value(self) -> Fraction:
        """The value of all tokens. Raises NoValue."""
        if not self.tokens:
            raise NoValue("nothing to calculate")
        value = self.sum()
        if self.next:
            raise NoValue(f"{self.next!r} is out of place")
        return value

    @property
    def next(self) -> str:
        """The token that comes next; "" at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        """Take the next token if it is one of these; "" if it is not."""
        found = self.next if self.next in wanted else ""
        self.place += bool(found)
        return found

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("+", "-"):
            value = held(BINARY[sign](value, self.product()))
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while sign := self.take("*", "/", "//", "%"):
            other = self.signed()
            if sign != "*" and not other:
                raise NoValue("division by zero")
            value = held(BINARY[sign](value, other))
        return value

    def signed(self) -> Fraction:
        """A power with signs before it. Everything that nests comes through here, so here the depth is counted."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise NoValue(f"nested more than {MOST_DEPTH} deep")
        sign = self.take("+", "-")
        value = self.signed() if sign else self.power()
        self.depth -= 1
        return -value if sign == "-" else value

    def power(self) -> Fraction:
        base = self.atom()
        return held(powered(base, self.signed())) if self.take("**", "^") else base

    def atom(self) -> Fraction:
        """A number, or a sum in brackets."""
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise NoValue("a bracket is not closed")
            return value
        if not self.next:
            raise NoValue("a number is missing at the end")
        if self.next in NO_OPERAND:
            raise NoValue(f"{self.next!r} is out of place")
        self.place += 1
        return held(Fraction(self.tokens[self.place - 1].replace(",", "").rstrip(".")))


def held(value: Fraction) -> Fraction:
    """A value that stays short: rounded where it has too many digits. Raises NoValue for one that is too large."""
    if abs(value) >= LARGEST:
        raise NoValue("the numbers become too large")
    return value if value.denominator <= LARGEST else rounded(decimal_of(value))


def powered(base: Fraction, exponent: Fraction) -> Fraction:
    """base ** exponent. Raises NoValue where that is not a real number, or is too large."""
    if not base and exponent < 0:
        raise NoValue("division by zero")
    if base < 0 and exponent.denominator != 1:
        raise NoValue("a root of a negative number")
    if abs(base) == 1 and exponent.denominator == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    if abs(exponent) >= 10**PRECISION:  # its last digits would be rounded away
        raise NoValue("the numbers become too large")
    longest = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator == 1 and longest * abs(exponent.numerator) <= 8 * MOST_DIGITS:
        return Fraction(base ** int(exponent))
    try:
        return rounded(ROUNDING.power(decimal_of(base), decimal_of(exponent)))
    except DecimalException:
        raise NoValue("the numbers become too large") from None


def decimal_of(value: Fraction) -> Decimal:
    """A value with PRECISION digits and some more."""
    return ROUNDING.divide(Decimal(value.numerator), Decimal(value.denominator))


def rounded(value: Decimal) -> Fraction:
    """A value with PRECISION digits: without the last ones, which roots get wrong. What is smaller than held() knows is 0."""
    if value.adjusted() > MOST_DIGITS:
        raise NoValue("the numbers become too large")
    if value.adjusted() < -MOST_DIGITS:
        return Fraction(0)
    return Fraction(Context(prec=PRECISION).plus(value))


def written(value: Fraction) -> str:
    """A value as calculate() writes it."""
    if value.denominator == 1:
        return str(value.numerator)
    number = decimal_of(value)
    ends = Fraction(number) == value and len(number.normalize(ROUNDING).as_tuple().digits) <= WHOLE
    shown = number if ends else Context(prec=max(SHOWN, number.adjusted() + 1)).plus(number)
    text = f"{shown:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
