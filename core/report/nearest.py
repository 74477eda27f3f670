"""Find the training examples that are most similar to a prompt: what the model may have mistaken it for."""

from __future__ import annotations

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
