"""Write and read samples.json: what a run wrote, with the truth where it is known, and its wrong answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core import files
from core.errors import UserError
from core.plugins.discovery import Read

RULE = f"\n{'-' * 15}\n"


@dataclass(frozen=True)
class Sample:
    """start: the given text. text: what the model wrote. truth: the right answer, if known. judged: whether prepare.py's
    `answer` finds the text right; None: it is right if it is the truth, character by character."""

    start: str
    text: str
    truth: str | None = None
    judged: bool | None = None

    @property
    def correct(self) -> bool | None:
        if self.truth is None or self.judged is not None:
            return self.judged
        return self.text == self.truth

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"start": self.start, "text": self.text, "truth": self.truth, "correct": self.correct}


@dataclass(frozen=True)
class Mistake:
    """A wrong greedy answer to a held-out prompt. nearest: similar training examples, (prompt, completion). kind: what is
    wrong with it."""

    prompt: str
    text: str
    truth: str
    group: str | None
    nearest: list[tuple[str, str]]
    kind: str = ""


@dataclass(frozen=True)
class ErrorKind:
    """A kind of error among the wrong answers to the prompts of one side: how many, and the first one.

    same: training examples with the same answer, (prompt, completion).
    """

    side: str
    kind: str
    number: int
    first: Mistake
    same: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Written:
    """What a report shows of a run's output. wrong: the number of wrong answers, the first of which are in `mistakes`.
    searched: how many training examples were searched for the nearest ones. errors: the kinds of errors, the most frequent
    first."""

    samples: list[Sample] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    wrong: int = 0
    searched: int = 0
    errors: list[ErrorKind] = field(default_factory=list)


def write_samples(folder: Path, written: Written) -> None:
    """Write them into a run's folder: samples.txt for people, samples.json for reports."""
    files.write_text(folder / "samples.txt", as_text(written.samples))
    files.write_json(folder / "samples.json", asdict(written))


def read_samples(folder: Path, read: Read = Path.read_bytes) -> Written:
    """What `write_samples` wrote; empty if it did not. Raises UserError for any other file."""
    path = folder / "samples.json"
    if not path.is_file():
        return Written()
    try:
        written: Written = TypeAdapter(Written).validate_python(json.loads(read(path)))
    except (ValueError, RecursionError, ValidationError):
        raise UserError(
            "not the samples of a run", place=str(path), remedy="Delete it; `loop` writes it again."
        ) from None
    return written


def as_text(samples: Sequence[Sample]) -> str:
    """One answer per line, marked right or wrong. Running texts are written whole, with a rule between them."""
    if all(sample.truth is not None for sample in samples):
        width = max(len(escaped(sample.start)) for sample in samples)
        return "".join(answer_line(sample, width) for sample in samples)
    return RULE.join(sample.start + sample.text for sample in samples) + "\n"


def after_first(samples: Sequence[Sample]) -> str:
    """The rest of running texts when the first one is printed already."""
    return "".join(RULE + sample.start + sample.text for sample in samples[1:]) + "\n"


def answer_line(sample: Sample, width: int) -> str:
    mark = "ok   " if sample.correct else "WRONG"
    truth = "" if sample.correct else f"   (truth: {escaped(sample.truth or '')})"
    return f"{mark}  {escaped(sample.start):<{width}} {escaped(sample.text)}{truth}\n"


def escaped(text: str) -> str:
    """One line: without the line break at the end, and with others as \\n."""
    return text.removesuffix("\n").replace("\n", "\\n")
