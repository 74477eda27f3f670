"""What a run wrote: samples, with the truth beside them where it is known, and its wrong answers; kept in samples.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core import files
from core.errors import UserError

RULE = f"\n{'-' * 15}\n"


@dataclass(frozen=True)
class Sample:
    """start: what was given; text: what the model wrote; truth: what it should have written, if known."""

    start: str
    text: str
    truth: str | None = None

    @property
    def correct(self) -> bool | None:
        return None if self.truth is None else self.text == self.truth

    def as_dict(self) -> dict[str, Any]:
        """For --json and the report."""
        return {**asdict(self), "correct": self.correct}


@dataclass(frozen=True)
class Mistake:
    """A held-out prompt that was answered wrongly, greedily. nearest: training examples, prompt and completion."""

    prompt: str
    text: str
    truth: str
    group: str | None
    nearest: list[tuple[str, str]]


@dataclass(frozen=True)
class Written:
    """What a report shows of a run's writing. wrong: how many answers were, of which the first are in `mistakes`;
    searched: in how many training examples the nearest were looked for."""

    samples: list[Sample] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    wrong: int = 0
    searched: int = 0


def write_samples(folder: Path, written: Written) -> None:
    """Keep them in a run's folder: samples.txt for people, samples.json for reports."""
    files.write_text(folder / "samples.txt", as_text(written.samples))
    files.write_json(folder / "samples.json", asdict(written))


def read_samples(folder: Path) -> Written:
    """What `write_samples` kept; empty where it did not. Raises UserError for a file that is something else."""
    path = folder / "samples.json"
    if not path.is_file():
        return Written()
    try:
        written: Written = TypeAdapter(Written).validate_python(json.loads(path.read_bytes()))
    except (ValueError, RecursionError, ValidationError):
        raise UserError(
            "not the samples of a run", place=str(path), remedy="Delete it; `loop` writes it again."
        ) from None
    return written


def as_text(samples: Sequence[Sample]) -> str:
    """Answers one to a line, marked right or wrong; running texts whole, with a rule between them."""
    if all(sample.truth is not None for sample in samples):
        width = max(len(one_line(sample.start)) for sample in samples)
        return "".join(answer_line(sample, width) for sample in samples)
    return RULE.join(sample.start + sample.text for sample in samples) + "\n"


def after_first(samples: Sequence[Sample]) -> str:
    """What is left to print of running texts when the first one stands already."""
    return "".join(RULE + sample.start + sample.text for sample in samples[1:]) + "\n"


def answer_line(sample: Sample, width: int) -> str:
    mark = "ok   " if sample.correct else "WRONG"
    truth = "" if sample.correct else f"   (truth: {one_line(sample.truth or '')})"
    return f"{mark}  {one_line(sample.start):<{width}} {one_line(sample.text)}{truth}\n"


def one_line(text: str) -> str:
    """Without the line break at the end; other line breaks are shown as \\n."""
    return text.removesuffix("\n").replace("\n", "\\n")
