"""Score what a model wrote: by prepare.py's `reward`, or by exact match; and whether it is right, strictly and leniently."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from core.chat.gsm8k import final_answer
from core.data.documents import Example
from core.errors import UserError
from core.evaluation.exact_match import Answer, Part

Reward = Callable[[Example, str], float]
WORD = re.compile(r"\w+")


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
        try:
            found = self.reward(example, text)
        except Exception as error:
            if hasattr(error, "add_note"):  # Python 3.11
                error.add_note(
                    f"This was reward() in {self.place}, for the answer {text[:200]!r} to {example.prompt[:200]!r}."
                )
            raise
        if not isinstance(found, Real) or not math.isfinite(found):
            raise UserError(
                f"reward returned {found!r} for {text[:60]!r}, not a number",
                place=self.place,
                remedy="Return a finite number for every answer, such as 1.0 for a right one and 0.0 for all others.",
            )
        return float(found)

    def is_strict(self, example: Example, text: str) -> bool:
        """Whether it is an exact match: of the part that prepare.py's `answer` gives, or of every character."""
        return Answer(example, text, self.part).correct

    def is_lenient(self, example: Example, text: str) -> bool:
        """Whether it is right in whatever form: an exact match, or the last number is that of the truth, or the last word."""
        return self.is_strict(example, text) or said_in_the_end(text, example.completion)


def said_in_the_end(text: str, truth: str) -> bool:
    """Whether a text ends with the same number as the truth, however that is written; where the truth has none, with the same word."""
    number = final_answer(truth, lenient=True)
    if number is not None:
        return final_answer(text, lenient=True) == number
    return last_word(text) == last_word(truth)


def last_word(text: str) -> str:
    """The last word of a text, in small letters; "" if there is none."""
    found = WORD.findall(text)
    return found[-1].casefold() if found else ""
