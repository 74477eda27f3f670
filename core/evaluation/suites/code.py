"""Problems whose answer is a program: what is asked, which part of an answer counts, and the program that shows whether it is right.

Nothing is run here.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.evaluation.intervals import wilson
from core.evaluation.passes import passes
from core.evaluation.suites.results import TaskResult
from core.evaluation.suites.task import Item, Task

CODE = "code"  # the kind of such a task
QUESTION = "Complete this Python function. Answer with the whole function in a code block."
TOP_LEVEL = re.compile(r"\n(?=[^\s)\]}])")  # a line without indentation that does not close a bracket: a new statement
FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class CodeItem(Item):
    """options: the beginning of a program, which is the prompt, and a right end. test: code that defines check(candidate).

    entry_point: the function of the program that is checked. name: of the problem.
    """

    entry_point: str = ""
    test: str = ""
    name: str = ""

    @property
    def prompt(self) -> str:
        return self.options[0][0]


@dataclass(frozen=True)
class DrawnPrograms:
    """right: how many of the `samples` programs for each problem were right, drawn at a temperature."""

    temperature: float
    samples: int
    right: Sequence[int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the unbiased estimates of pass@k. Intervals are Wilson's, with a trial for each problem."""
        found = passes(self.right, self.samples)
        intervals = {name: list(wilson(share, len(self.right))) for name, share in found.items()}
        return {"temperature": self.temperature, "samples": self.samples, **found, "intervals": intervals}


@dataclass(frozen=True)
class CodeResult(TaskResult):
    """outcomes: of the greedy program of each problem. The accuracy is pass@1."""

    outcomes: Mapping[str, str] = field(default_factory=dict)
    drawn: DrawnPrograms | None = None

    @property
    def chance(self) -> tuple[float, float]:
        """No program is right by chance."""
        return 0.0, 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        more = {} if self.drawn is None else {"drawn": self.drawn.as_dict()}
        counted = dict(Counter(self.outcomes.values()).most_common())
        return super().as_dict() | {"outcomes": counted, "problems": dict(self.outcomes)} | more


def is_code(task: Task) -> bool:
    """Whether the answers to a task are programs, which would have to be run."""
    return task.kind == CODE


def question_of(item: CodeItem) -> str:
    """What a chat model is asked."""
    return f"{QUESTION}\n\n```python\n{item.prompt.strip()}\n```"


def ends_statement(text: str) -> bool:
    """Whether a new statement at the top level begins in a text that continues a function."""
    return TOP_LEVEL.search(text) is not None


def continued(item: CodeItem, text: str) -> list[str]:
    """The parts of a program whose beginning a model has continued. What it writes behind the function is left out."""
    end = TOP_LEVEL.search(text)
    return [item.prompt + (text if end is None else text[: end.start() + 1]), *checked(item)]


def answered_in_chat(item: CodeItem, text: str) -> list[str]:
    """The parts of a program from a chat model's answer: its code block stands behind the prompt.

    Of several blocks, the first with the function counts; without any, the whole answer is taken for code. A block without the
    function goes on with the prompt.
    """
    blocks = [found[1] for found in FENCE.finditer(text)] or [text]
    defines = re.compile(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(item.entry_point)}\b", re.MULTILINE)
    with_function = [block for block in blocks if defines.search(block)]
    if not with_function:
        return [item.prompt + blocks[0], *checked(item)]
    return [beginning(item.prompt), with_function[0], *checked(item)]


def beginning(prompt: str) -> str:
    """A prompt as a program of its own, for its imports and for functions before the last one."""
    try:
        ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return prompt.rstrip() + "\n    pass\n"  # a function that has nothing in it yet
    return prompt


def checked(item: CodeItem) -> list[str]:
    """The parts that check a program."""
    return [item.test, f"check({item.entry_point})"]
