"""Whether a stage that maximises a reward also learnt the skill: its metrics.csv in, a verdict in plain words out.

A reward can be earned by the form of an answer alone. So strict accuracy (right, and in the form that is asked for) may rise
while lenient accuracy (right, in any form) stays where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.report.changes import BETTER, UNKNOWN, WORSE, Change, share_change
from core.report.runs import RunData

REWARD, STRICT, LENIENT = "reward", "strict_accuracy", "lenient_accuracy"  # columns of metrics.csv, 0 to 1
MEANT = {REWARD: "reward", STRICT: "right, and in the form asked for", LENIENT: "right, in any form"}
PART = 0.1  # of the steps: so many at the beginning are compared with so many at the end
ONLY_REWARD = "The reward rose, the skill did not"


@dataclass(frozen=True)
class Rewarded:
    """What a stage's reward came to. changes: column -> its mean over the first steps, and over the last ones. prompts: of how
    many each of the two is the mean; 0 where nothing says how many a step has."""

    changes: dict[str, Change]
    prompts: tuple[float, float]

    @property
    def verdict(self) -> str:
        """In words. Only what goes beyond the interval of a change counts as risen or fallen."""
        verdicts = {name: change.verdict for name, change in self.changes.items()}
        risen = [name for name in (REWARD, STRICT) if verdicts.get(name) == BETTER]
        if LENIENT not in verdicts:
            return "Lenient accuracy was not measured, so nothing here says whether the skill rose."
        if verdicts[LENIENT] == BETTER:
            return "The skill rose: more answers are right, in whatever form."
        fell = ", and fell" if verdicts[LENIENT] == WORSE else ""
        if verdicts.get(REWARD) == UNKNOWN and STRICT not in risen:
            return f"The skill {'fell' if fell else 'did not rise beyond its interval'}. The reward is no share, so its interval is not known."
        if risen:
            return f"{ONLY_REWARD}{fell}."
        return f"Neither the reward nor the skill rose beyond its interval{fell and '; the skill fell'}."


def rewarded(run: RunData) -> Rewarded | None:
    """What the reward of a run came to; None if it has none."""
    if run.config.get("train.objective.kind") != REWARD:
        return None
    spans = spans_of(run.rows)
    names = [name for name in (REWARD, STRICT, LENIENT) if any(name in span.row for span in spans)]
    if not names:
        return None
    begin, end = part_of(spans), part_of(spans[::-1])
    each = float(run.config.get("train.objective.prompts_per_step") or 0)
    prompts = each * steps_of(begin), each * steps_of(end)
    changes = {name: change_of(mean_of(begin, name), mean_of(end, name), prompts) for name in names}
    return Rewarded(changes, prompts)


@dataclass(frozen=True)
class Span:
    """A row of metrics.csv, which has means of so many steps."""

    row: Mapping[str, Any]
    steps: float


def spans_of(rows: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The rows with the steps that each is the mean of: those since the row before. Rows without a reward are left out."""
    before = [0.0, *(float(row["step"]) for row in rows)]
    spans = [Span(row, float(row["step"]) - begin) for row, begin in zip(rows, before, strict=False)]
    return [span for span in spans if span.row.get(REWARD) is not None]


def part_of(spans: Sequence[Span]) -> Sequence[Span]:
    """The first spans, as many as it takes to have PART of all steps: the means of a few steps vary by chance."""
    enough, kept = PART * steps_of(spans), 0
    while steps_of(spans[:kept]) < enough:
        kept += 1
    return spans[: max(kept, 1)]


def steps_of(spans: Sequence[Span]) -> float:
    return sum(span.steps for span in spans)


def mean_of(spans: Sequence[Span], name: str) -> float:
    """The mean of a column over the steps of some rows."""
    return sum(float(span.row[name]) * span.steps for span in spans) / steps_of(spans)


def change_of(before: float, after: float, prompts: tuple[float, float]) -> Change:
    """From the first to the last part. What leaves 0 to 1 is no share, so its interval is not known.

    Prompts are counted and not answers, because answers to one prompt are alike. A reward between 0 and 1 varies at most as
    much as a share, so the interval of a share is wide enough for it.
    """
    shares = 0 <= min(before, after) <= max(before, after) <= 1
    return share_change(before, after, prompts if shares else (None, None))
