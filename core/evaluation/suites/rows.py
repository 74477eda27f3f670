"""Items to ids: a prompt with its shots, then a continuation, cut from the left to what a model sees."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.encoders.base import Encoder, between
from core.errors import UserError
from core.evaluation.suites.task import Item, Option, Task
from core.sampling.generate import prompt_ids

SEED = 1234  # of the shots and of the sample of items: every model gets the same


@dataclass(frozen=True)
class Row:
    """ids: a prompt and its continuation, at most one id more than the model sees. scored: how many of the last are measured.

    cut: ids that were left out on the left. whole: whether all of the continuation is measured.
    """

    ids: tuple[int, ...]
    scored: int
    cut: int = 0
    whole: bool = True


def row_of(prompt: Sequence[int], continuation: Sequence[int], block_size: int) -> Row:
    """The end of both that fits into a model's context: block_size inputs, and one more id that only is a target."""
    ids = (*prompt, *continuation)
    cut = max(len(ids) - block_size - 1, 0)
    scored = min(len(continuation), len(ids) - cut - 1)
    return Row(ids[cut:], scored, cut, scored == len(continuation))


def numbers_asked(task: Task, most: int) -> list[int]:
    """Which items are asked: all, or a fixed random sample of `most`. most 0: all."""
    everything = range(len(task.items))
    if not 0 < most < len(everything):
        return list(everything)
    return sorted(random.Random(f"{SEED} {task.name}").sample(everything, most))


def shots_before(task: Task, number: int) -> list[Item]:
    """The items that stand before an item, never itself. They do not depend on which items are asked.

    A task with too few others gives all of them.
    """
    others = len(task.items) - 1
    drawn = random.Random(f"{SEED} {task.name} {number}").sample(range(others), min(task.shots, others))
    return [task.items[place + (place >= number)] for place in drawn]


def prompts_of(task: Task, number: int) -> list[Option]:
    """The options of an item as they are encoded: (prompt, continuation), the shots at the beginning of each prompt.

    As in DCLM, a shot ends with a line break, and space between prompt and continuation belongs to the continuation: there
    encoders of words and of pieces of words expect it.
    """
    shots = [shot.right for shot in shots_before(task, number)]
    head = "".join(f"{context}{task.delimiter}{continuation}\n" for context, continuation in shots)
    return [
        ((head + context + task.delimiter).rstrip(), continuation)
        for context, continuation in task.items[number].options
    ]


def rows_of(task: Task, number: int, encoder: Encoder, block_size: int, begin: int | None = None) -> list[Row]:
    """A row for each option of an item. begin: the id that documents begin with, if the model was trained so.

    Raises UserError, with the item's file and line, for text that cannot be encoded.
    """
    head = [] if begin is None else [begin]
    known: dict[str, list[int]] = {}  # options mostly share a prompt
    rows = []
    with readable(task, number):
        for prompt, continuation in prompts_of(task, number):
            if prompt not in known:
                known[prompt] = [*head, *prompt_ids(encoder, prompt)]
            rows.append(row_of(known[prompt], continuation_ids(encoder, prompt, continuation), block_size))
    return rows


@contextlib.contextmanager
def readable(task: Task, number: int) -> Iterator[None]:
    """A context that says which item a text is of, if an encoder cannot encode it."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"the model's encoder cannot read this item of {task.name}: {error.message}",
            place=task.items[number].place,
            remedy='Only models whose encoder reads any text can be asked: "bytes", "bpe" or "gpt2".',
        ) from None


def continuation_ids(encoder: Encoder, prompt: str, continuation: str) -> list[int]:
    """Ids of a continuation after a prompt: with a space before it, unless the encoder implies one there."""
    implied = between(encoder, prompt, continuation)
    return [int(token) for token in encoder.encode(continuation if implied else f" {continuation}")]
