"""Figures of stages as text: values, intervals, changes and what they mean."""

from __future__ import annotations

from core.report.changes import BETTER, UNCLEAR, UNKNOWN, WORSE, Change
from core.report.stage_figures import Pipeline
from core.tracking.figures import loss_text, share_text

MARKS = {BETTER: "✓ better", WORSE: "✗ worse", UNCLEAR: "≈ no clear change", UNKNOWN: "changed, no interval"}
KINDS = {BETTER: "good", WORSE: "bad"}
MEANINGS = {
    "val_loss": "validation loss, nats per token",
    "bits_per_byte": "of the stage's own text",
    "val_accuracy": "exact match of {}validation prompts",
    "test_accuracy": "exact match of {}test prompts",
    "accuracy": "exact match of {}prompts",
    "held_out_accuracy": "exact match of {}prompts of held_out()",
}
SHORT_MEANINGS = {
    "val_loss": "validation loss",
    "accuracy": "exact match",
    "val_accuracy": "validation prompts right",
    "test_accuracy": "test prompts right",
}


def figure_text(key: str, value: float) -> str:
    return share_text(value) if key.endswith("accuracy") else loss_text(value)


def meaning(pipeline: Pipeline, key: str) -> str:
    """What a row of the table is."""
    counts = {int(count) for count in pipeline.prompts.get(key, {}).values()}
    number = f"{min(counts):,} " if len(counts) == 1 else ""
    return MEANINGS.get(key.rpartition("/")[2], "").format(number)


def short_meaning(key: str) -> str:
    """The metric in a few words."""
    return SHORT_MEANINGS.get(key.rpartition("/")[2], key)


def interval_text(pipeline: Pipeline, key: str, stage: str) -> str:
    """± of a loss, from - to of a share; "" without an interval."""
    interval = pipeline.interval(key, stage)
    if interval is None:
        return ""
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f}%" if key.endswith("accuracy") else f"± {(high - low) / 2:.4f}"


def difference_text(key: str, change: Change) -> str:
    """`+4.1 points (+2.0 to +6.2)`: how much a figure changed, with the interval; "" without one."""
    if change.interval is None:
        return ""
    low, high = change.interval
    if key.endswith("accuracy"):
        return f"{signed(key, change.after - change.before)} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{signed(key, change.after - change.before)} ({low:+.4f} to {high:+.4f})"


def signed(key: str, difference: float) -> str:
    """A difference of shares in points, or of losses."""
    return f"{100 * difference:+.1f} points" if key.endswith("accuracy") else f"{difference:+.4f}"
