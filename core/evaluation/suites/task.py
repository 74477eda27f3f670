"""A suite: tasks, each with a baseline and items; an item is a few options of which one is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

Option = tuple[str, str]  # a context and its continuation


@dataclass(frozen=True)
class Item:
    """options: (context, continuation), where options[gold] is right. A single option: the model has to write its continuation.

    place: the file and line that it is from, for messages.
    """

    options: tuple[Option, ...]
    gold: int = 0
    place: str = ""

    @property
    def right(self) -> Option:
        return self.options[self.gold]

    @property
    def answer(self) -> str:
        """What the right option says: its continuation, or its context where all options have the same continuation."""
        context, continuation = self.right
        shared = len(self.options) > 1 and len({text for _, text in self.options}) == 1
        return context if shared else continuation


@dataclass(frozen=True)
class Task:
    """Items of one kind.

    kind: for display. shots: other items with their answers, before each item. baseline: accuracy, 0 to 1, that counts as
    knowing nothing. delimiter: between a context and its continuation. right: for a task whose answers are written, with one
    option each: the answer of a chat model and the truth -> whether it is right.
    """

    name: str
    kind: str
    items: Sequence[Item]
    shots: int = 0
    baseline: float = 0.0
    delimiter: str = " "
    right: Callable[[str, str], bool] | None = None


def question_text(item: Item) -> str:
    """A multiple choice item as a question with lettered choices. Choices that already are letters are not listed again.

    An item with one option is its context.
    """
    if len(item.options) == 1:
        return item.options[0][0]
    question = item.options[0][0].removesuffix("Answer:").rstrip()  # the request to answer stands at the end
    choices = [continuation for _, continuation in item.options]
    if choices == list(ascii_uppercase[: len(choices)]):
        return f"{question}\nAnswer with the letter."
    listed = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    return "\n".join([question, *listed, "Answer with the letter."])


def chance(items: Sequence[Item], baseline: float) -> tuple[float, float]:
    """The lowest and the highest accuracy on these items that needs no knowledge: the baseline, and those of a model that
    ignores the question: that always takes the option of one place, or always gives the most frequent answer.

    It is a range because the baselines in use are not of one sort. DCLM's for BoolQ is the share of the more frequent
    answer; its 9.1 % for language identification is for more options than the data has.
    """
    places, golds = max(len(item.options) for item in items), Counter(item.gold for item in items)
    shares = [golds[place] / len(items) for place in range(places)] if places > 1 else []
    (_, same), *_ = Counter(item.answer for item in items).most_common(1)
    return min([baseline, *shares]), max(baseline, *shares, same / len(items))


@dataclass(frozen=True)
class Suite:
    """Tasks that are reported together. absent: names of tasks that belong to it and are not there."""

    tasks: Sequence[Task]
    absent: Sequence[str] = ()


# What `register_suites` registers: a folder -> its suite; None if the folder is not of this reader's form.
Reader = Callable[[Path], Suite | None]
