"""Equations modulo p, with one token per number: `30 + 3 = 2` modulo 31."""

import itertools
from typing import Literal

from core import Example, UserError


def documents(rng, *, p: int = 31, operator: Literal["+", "-", "*", "/"] = "+", orders: tuple[int, ...] = (2,)):
    """All equations of each operation order, the number of operands: 2 for a op b, 3 for a op b op c, from the left."""
    if p < 2:
        raise UserError(f"{p = } leaves one number", place="prepare.params.p", remedy="Set it to 2 or more.")
    if operator == "/" and any(p % factor == 0 for factor in range(2, int(p**0.5) + 1)):
        raise UserError(
            f"{p = } is not prime, so not every number can be divided by every other",
            place="prepare.params.p",
            remedy='Choose a prime, such as 31 or 97, or another operator than "/".',
        )
    if not orders or set(orders) - {2, 3}:
        raise UserError(
            f"orders = {list(orders)} has an operation order other than 2 and 3, or none",
            place="prepare.params.orders",
            remedy="Choose [2], [3] or [2, 3].",
        )
    equations = [equation for order in sorted(set(orders)) for equation in all_equations(p, operator, order)]
    rng.shuffle(equations)  # a row of a batch holds neighbours, and sorted ones would tell each other's answers
    yield from equations


def all_equations(p, operator, order):
    """Every equation of an operation order once, p^order of them; with "/" those in which nothing is divided by 0."""
    seconds = range(operator == "/", p)
    for first, *others in itertools.product(range(p), *[seconds] * (order - 1)):
        result = first
        for other in others:
            if operator == "+":
                result += other
            elif operator == "-":
                result -= other
            else:
                result *= other
        # Division by multiplying back: if r * b = a, then a / b = r.
        left, answer = (result % p, first) if operator == "/" else (first, result % p)
        text = f" {operator} ".join(map(str, (left, *others)))
        yield Example(f"{text} = ", f"{answer}\n", group=f"order {order}")
