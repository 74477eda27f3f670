"""Add two numbers, the answer in one of six formats: `128+367=594`, the digits of 495 reversed."""

from itertools import islice

from core import Example, UserError

from .formats import Format, written
from .sums import carries, different_pairs, number_of_pairs, pairs


def documents(rng, *, format: Format = "reversed", min_digits: int = 1, max_digits: int = 4, examples: int = 0):
    """Sums in which the longer number has min_digits to max_digits digits.

    examples: how many different ones, of all sides together; 0: an endless stream, in which sums repeat.
    """
    if not 1 <= min_digits <= max_digits:
        raise UserError(
            f"there is no number of {min_digits} to {max_digits} digits",
            place="prepare.params.min_digits",
            remedy="Set 1 <= min_digits <= max_digits.",
        )
    if not 0 <= examples <= (most := number_of_pairs(min_digits, max_digits)):
        raise UserError(
            f"{examples = }, but {min_digits} to {max_digits} digits make {most:,} different sums",
            place="prepare.params.examples",
            remedy=f"Choose from 1 to {most:,}, or 0 for an endless stream.",
        )
    numbers = (min_digits, max_digits)
    for left, right in different_pairs(rng, *numbers, examples) if examples else pairs(rng, *numbers):
        yield example(left, right, format, max_digits)


def held_out(rng, *, format: Format = "reversed", max_digits: int = 4, probes: int = 200):
    """Sums in which the longer number has one digit more than training ever shows. probes: how many."""
    for left, right in islice(pairs(rng, max_digits + 1, max_digits + 1), probes):
        yield example(left, right, format, max_digits)


def example(left, right, format, max_digits):
    """A sum, grouped by the digits of the longer number and by its carries."""
    digits, carried = len(str(max(left, right))), carries(left, right)
    group = f"{digits} digit{'s' * (digits > 1)}, {carried} carr{'y' if carried == 1 else 'ies'}"
    return Example(*written(left, right, format, max_digits), group=group)


def answer(text):
    """The last line: what stands before it in a scratchpad does not count."""
    return text.rstrip("\n").rpartition("\n")[2]
