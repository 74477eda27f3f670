"""Ask a chat model multiple choice questions: by the logits of the letters, or by what it writes.

Legend: B rows, T tokens, V ids. `ids_of_prompt` turns the text of a question into ids after which the model answers; it is
given, so that nothing here depends on how conversations are written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np
import torch

from core.chat.render import PromptText
from core.encoders.base import Encoder
from core.errors import UserError
from core.evaluation.suites.kinds import MULTIPLE_CHOICE
from core.evaluation.suites.results import TaskResult
from core.evaluation.suites.rows import numbers_asked, readable
from core.evaluation.suites.scoring import batches, tokens_at_once
from core.evaluation.suites.task import Item, Task, question_text
from core.training.machine import Machine
from core.training.step import to_device

PromptIds = Callable[[str], Sequence[int]]
NEW_TOKENS = 64  # of a written answer that names an option, at most
WORKED_OUT = 256  # of one that works something out, at most
# A letter that stands alone, as in `B`, `(b)`, `**B**` and `B. Berlin`, or one behind the word answer: `The answer is B`.
# Before a word only a capital is one: `The answer is a city` names no option.
ALONE = r"([A-Za-z])(?=[.):,*\n]|\s*$)"
LETTER = re.compile(rf"\W*(?:(?i:(?:the )?(?:correct )?answer(?: is)?)\W*(?:{ALONE}|([A-Z])\b)|{ALONE})")


@dataclass(frozen=True)
class AskedItem:
    """An item, and the ids (T,) of its prompt."""

    item: Item
    ids: tuple[int, ...]


Answers = Callable[[Sequence[AskedItem]], Sequence[int | None]]  # the option that a model chooses for each; None: none
Write = Callable[
    [Sequence[PromptText], int], Sequence[str]
]  # prompts, and the most tokens -> what a model answers to each


def chosen_by_logits(
    model: torch.nn.Module, questions: Sequence[AskedItem], encoder: Encoder, machine: Machine
) -> list[int | None]:
    """The categorical form: for each question the option whose letter has the highest logit as the answer's first token.

    Many share a forward pass. Of a prompt that is too long the model sees the end. Raises UserError if the encoder does not
    begin each letter with another token.
    """
    letters = [int(encoder.encode(letter)[0]) for letter in ascii_uppercase[: max(map(number_of_options, questions))]]
    if len(set(letters)) < len(letters):
        raise UserError(
            "letters begin with the same token, so their logits cannot be compared",
            place="evaluate.suite_form",
            remedy='Use "written", or an encoder that has a token for each letter.',
        )
    block_size = int(model.block_size)  # type: ignore[arg-type]
    prompts = [question.ids[-block_size:] for question in questions]
    found = dict[tuple[int, ...], torch.Tensor]()  # logits of the letters
    for batch in batches(
        [(prompt, 1) for prompt in dict.fromkeys(prompts)], tokens_at_once(encoder.vocab_size, machine)
    ):
        inputs = np.zeros((len(batch), max(len(prompt) for prompt, _ in batch)), np.int64)
        for number, (prompt, _) in enumerate(batch):
            inputs[number, : len(prompt)] = prompt
        with torch.inference_mode(), machine.autocast():
            logits = model(to_device(inputs, machine))  # (B, T, V)
            last = torch.tensor([len(prompt) - 1 for prompt, _ in batch], device=logits.device)
            rows = torch.arange(len(batch), device=logits.device)
            of_letters = logits[rows, last][:, letters].float().cpu()
        found.update(zip([prompt for prompt, _ in batch], of_letters, strict=True))
    return [
        int(found[prompt][: number_of_options(question)].argmax())
        for prompt, question in zip(prompts, questions, strict=True)
    ]


def number_of_options(question: AskedItem) -> int:
    return len(question.item.options)


def chosen_by_writing(questions: Sequence[AskedItem], write: Write) -> list[int | None]:
    """The generative form: for each question the option that the answer names; None if it names none."""
    texts = write([as_prompt(question) for question in questions], NEW_TOKENS)
    return [named_option(text, question.item) for text, question in zip(texts, questions, strict=True)]


def as_prompt(question: AskedItem) -> PromptText:
    """A prompt that knows its ids."""
    made = PromptText(question_text(question.item))
    made.ids = question.ids
    return made


def named_option(text: str, item: Item) -> int | None:
    """The option that an answer names: by its text, or by its letter; see LETTER."""
    said = text.strip().rstrip(".").casefold()
    for number, (_, choice) in enumerate(item.options):
        if said == choice.strip().rstrip(".").casefold():
            return number
    found = LETTER.match(text)
    if found is None:
        return None
    number = ascii_uppercase.index((found[1] or found[2] or found[3]).upper())
    return number if number < len(item.options) else None


def has_letters(task: Task) -> bool:
    """Whether a task has lettered choices: multiple choice, with no more of them than letters."""
    return task.kind == MULTIPLE_CHOICE and all(len(item.options) <= len(ascii_uppercase) for item in task.items)


def measure_chat_task(
    task: Task, answers: Answers, ids_of_prompt: PromptIds, block_size: int, most: int = 0
) -> TaskResult:
    """Ask at most `most` items of a multiple choice task, without shots; 0: all. answers: one of the two forms.

    Raises UserError for an item that cannot be encoded.
    """
    questions = asked_items(task, ids_of_prompt, most)
    right = sum(chosen == question.item.gold for chosen, question in zip(answers(questions), questions, strict=True))
    return result_of(task, questions, right, block_size)


def measure_written_task(
    task: Task, write: Write, ids_of_prompt: PromptIds, block_size: int, most: int = 0
) -> TaskResult:
    """Ask at most `most` items of a task whose answers are written; 0: all. Raises UserError for an item that cannot be encoded."""
    assert task.right is not None
    questions = asked_items(task, ids_of_prompt, most)
    texts = write([as_prompt(question) for question in questions], WORKED_OUT)
    right = sum(task.right(text, question.item.answer) for text, question in zip(texts, questions, strict=True))
    return result_of(task, questions, right, block_size)


def asked_items(task: Task, ids_of_prompt: PromptIds, most: int) -> list[AskedItem]:
    """At most `most` items of a task with the ids of their prompts; 0: all. Raises UserError for one that cannot be encoded."""
    questions = []
    for number in numbers_asked(task, most):
        item = task.items[number]
        with readable(task, number):
            questions.append(AskedItem(item, tuple(int(token) for token in ids_of_prompt(question_text(item)))))
    return questions


def result_of(task: Task, questions: Sequence[AskedItem], right: int, block_size: int) -> TaskResult:
    cut = sum(len(question.ids) > block_size for question in questions)
    return TaskResult(task, [question.item for question in questions], right, 0, cut)
