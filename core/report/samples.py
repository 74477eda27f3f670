"""Samples of a run, with the truth beside them where it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
