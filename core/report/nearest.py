"""Find the training examples behind a wrong answer: those with the most similar prompts, and those with this very answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from core.data.documents import Example


def nearest(prompt: str, examples: Sequence[Example], number: int = 2) -> list[Example]:
    """The examples whose prompts need the fewest edits to become this one (Levenshtein, 1966), the nearest first.

    Ties go to the earlier examples.
    """
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    choices = [example.prompt for example in examples]
    found = process.extract(prompt, choices, scorer=Levenshtein.distance, limit=number)
    return [examples[index] for _, _, index in found]


def answered_so(answer: str, examples: Sequence[Example], number: int = 1) -> list[Example]:
    """The first examples whose completion is a wrong answer, to the letter: what the model may have learnt by heart."""
    found = (example for example in examples if example.completion == answer)
    return list(itertools.islice(found, number))
