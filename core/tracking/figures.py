"""The figures of a run as people see them: from summary.json, all of one checkpoint, as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.tracking.metrics import read_rows
from core.tracking.notes import read_notes
from core.tracking.run import current_status, read_summary

Summary = Mapping[str, Any]
OF_BEST = {"best_val_loss": "val_loss", "bits_per_byte": "bits_per_byte", "accuracy": "val_accuracy"}


def read_figures(folder: Path) -> dict[str, Any]:
    """summary.json as people see it: with its status at this moment, the steps of a run that has not ended, and all figures
    of checkpoint `best`.

    Older runs (those without `side`) recorded the lowest validation loss beside the step of another checkpoint. Theirs are
    read from metrics.csv. Raises UserError where summary.json is damaged.
    """
    summary = read_summary(folder)
    if not summary:
        return summary
    status, best = current_status(folder, summary), summary.get("best_step")
    noted = {key: value for key, value in read_notes(folder).items() if key == "description"}
    under_way = status in ("running", "interrupted")
    old = summary.get("side") is None and best is not None
    rows = read_rows(folder / "metrics.csv") if under_way or old else []
    if under_way and rows:
        summary["steps"] = max(summary.get("steps") or 0, rows[-1]["step"])
    row: dict[str, Any] = next((row for row in reversed(rows) if old and row["step"] == best), {})
    return summary | noted | {"status": status} | {key: row[column] for key, column in OF_BEST.items() if column in row}


HELD_OUT = "held_out_accuracy"


def figure(summary: Summary, key: str) -> Any:
    """A figure of summary.json; held_out_accuracy is the exact match of held_out()'s prompts. None if the run does not have it."""
    return (summary.get("held_out") or {}).get("accuracy") if key == HELD_OUT else summary.get(key)


def loss_text(value: float) -> str:
    """A loss for people: four decimals, and two digits where those would be zeros, such as 3.2e-05."""
    return f"{value:.1e}" if 0 < abs(value) < 5e-5 else f"{value:.4f}"


def share_text(value: float) -> str:
    """A share for people, in percent. Only all is 100.0%, and only none is 0.0%."""
    text = f"{value:.1%}"
    return f"{value:.3%}" if (text == "100.0%" and value < 1) or (text == "0.0%" and value > 0) else text


def group_text(group: str) -> str:
    """A group's name in one line: quoted, with escapes, if it is empty or has characters that cannot be seen."""
    return group if group.strip() == group != "" and group.isprintable() else json.dumps(group, ensure_ascii=False)


def by_numbers(name: str) -> list[tuple[bool, int, str]]:
    """Sorts names with numbers in them: 2 letters before 10 letters."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def side_name(side: str | None) -> str:
    """The prompts of a side in words. Runs without a test side are scored on the prompts that chose their checkpoint."""
    return "test prompts" if side == "test" else "validation prompts"


def prompts_in_words(summaries: Sequence[Summary]) -> str:
    """What exact match is of: `106 test prompts`. "" where runs differ in it, or do not say."""
    found = {(summary.get("prompts"), summary.get("side")) for summary in summaries}
    if len(found) != 1:
        return ""
    [(count, side)] = found
    return f"{count:,} {side_name(side)}" if count else ""


def exact_match_columns(groups: Sequence[Sequence[Summary]]) -> tuple[str, list[str]]:
    """The title of a column for exact match, and what to write behind each group's figure: one of them names the prompts."""
    if same := prompts_in_words(
        [summary for group in groups for summary in group if summary.get("accuracy") is not None]
    ):
        return f"exact match of {same}", [""] * len(groups)
    return "exact match", [f" of {words}" if (words := prompts_in_words(group)) else "" for group in groups]
