"""Score what a model wrote: by prepare.py's `reward`, or by exact match; and whether it is right, strictly and leniently."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from core.data.documents import Example
from core.errors import UserError
from core.evaluation.exact_match import Answer, Part

Reward = Callable[[Example, str], float]
LAST = re.compile(r"-?\d+(?:\.\d+)?|\w+")  # a number or a word


@dataclass(frozen=True)
class Scoring:
    """How answers are scored. reward: prepare.py's; None: 1 for an exact match, else 0. part: prepare.py's `answer`.

    place: the file of `reward`.
    """

    reward: Reward | None = None
    part: Part | None = None
    place: str = "prepare.py"

    def score(self, example: Example, text: str) -> float:
        """The reward of an answer. Raises UserError if prepare.py's is not a finite number."""
        if self.reward is None:
            return float(Answer(example, text, self.part).correct)
        found = self.reward(example, text)
        if not isinstance(found, Real) or not math.isfinite(found):
            raise UserError(
                f"reward returned {found!r} for {text[:60]!r}, not a number",
                place=self.place,
                remedy="Return a finite number for every answer, such as 1.0 for a right one and 0.0 for all others.",
            )
        return float(found)

    def is_strict(self, example: Example, text: str) -> bool:
        """Whether every character is right."""
        return Answer(example, text).correct

    def is_lenient(self, example: Example, text: str) -> bool:
        """Whether what counts is right, in whatever form: prepare.py's `answer`; without it the last number, or the last word."""
        if self.part is not None:
            return Answer(example, text, self.part).correct
        return last_of(text) == last_of(example.completion)


def last_of(text: str) -> str:
    """The last number or word of a text, in small letters; "" if there is none."""
    found = LAST.findall(text)
    return found[-1].casefold() if found else ""
