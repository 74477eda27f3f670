"""Whether a stage that maximises a reward also learnt the skill: its metrics.csv in, a verdict in plain words out.

A reward can be earned by the form of an answer alone. So strict accuracy (right, and in the form that is asked for) may rise
while lenient accuracy (right, in any form) stays where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.report.changes import BETTER, WORSE, Change, share_change
from core.report.runs import RunData

REWARD, STRICT, LENIENT = "reward", "strict_accuracy", "lenient_accuracy"  # columns of metrics.csv, 0 to 1
MEANT = {REWARD: "reward", STRICT: "right, and in the form asked for", LENIENT: "right, in any form"}
ONLY_REWARD = "The reward rose, the skill did not"


@dataclass(frozen=True)
class Rewarded:
    """What a stage's reward came to. changes: column -> its first and last value. prompts: column -> how many each is of."""

    changes: dict[str, Change]
    prompts: dict[str, int]

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
        if risen:
            return f"{ONLY_REWARD}{fell}."
        return f"Neither the reward nor the skill rose beyond its interval{fell and '; the skill fell'}."


def rewarded(run: RunData) -> Rewarded | None:
    """What the reward of a run came to; None if it has none."""
    if run.config.get("train.objective.kind") != REWARD:
        return None
    columns = {name: values for name in (REWARD, STRICT, LENIENT) if (values := column(run.rows, name))}
    if not columns:
        return None
    count = prompts_of(run.config)
    changes = {name: share_change(values[0], values[-1], (count, count)) for name, values in columns.items()}
    return Rewarded(changes, dict.fromkeys(columns, count) if count else {})


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The values of a column, in the rows that have one."""
    return [float(row[name]) for row in rows if row.get(name) is not None]


def prompts_of(config: Mapping[str, Any]) -> int | None:
    """How many prompts a value of a column is the mean of: those of the steps since the row before.

    Prompts are counted and not answers, because answers to one prompt are alike. A reward between 0 and 1 varies at most as
    much as a share, so the interval of a share is wide enough for it.
    """
    prompts, steps = config.get("train.objective.prompts_per_step"), config.get("train.runtime.log_interval")
    return int(prompts * steps) if prompts and steps else None
