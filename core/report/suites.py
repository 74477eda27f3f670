"""The figures of suites of tasks: read suites.json of a run, say them in lines, show them in its report.

core/evaluation/suites/results.py says what the numbers mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.report.document import Cell, PageSection, PageTable, Paragraph, Part
from core.tracking.figures import share_text

FILE = "suites.json"
COLUMNS = ("task", "items", "shots", "accuracy", "95 % interval", "baseline", "centered", "")
ENDINGS = {
    "passed": "passed", "wrong": "failed a test", "error": "raised an error", "time": "took too long", "memory": "took too much memory",
    "left": "ended before the tests did",
}  # fmt: skip
Found = Mapping[str, Any]  # of one suite


def title_of(name: str, form: str) -> str:
    """The name of a suite and of the form in which it was asked, if it is not the usual one."""
    return name if form == "continuation" else f"{name} ({form})"


def read_suites(folder: Path) -> dict[str, Any]:
    """Title of a suite -> its figures; {} if none was measured. Raises UserError if the file is damaged."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
        for figures in found.values():
            section("", figures)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise UserError(
            "not the figures of suites", place=str(path), remedy="Delete it; evaluating on a suite writes it again."
        ) from None
    return dict(found)


def suite_sections(folder: Path, step: int | None) -> list[PageSection]:
    """A section for each suite that was measured at a run's best step."""
    suites = read_suites(folder)
    return [section(title, found) for title, found in suites.items() if found["step"] == step]


def section(title: str, found: Found) -> PageSection:
    """A table of the tasks, and the mean."""
    rows = [row(name, task) for name, task in found["tasks"].items()]
    of_code = [f"{name}: {line}" for name, task in found["tasks"].items() for line in code_lines(task)]
    parts: list[Part] = [Paragraph(line, "soft") for line in (*of_code, *remarks(found))]
    return PageSection(f"Suite {title}", [Paragraph(mean_text(found)), PageTable(COLUMNS, rows), *parts])


def row(name: str, task: Found) -> list[Cell]:
    """One task."""
    kind = {"above chance": "mark good", "below chance": "mark bad"}.get(task["verdict"], "")
    texts = (name, f"{task['items']:,}", f"{task['shots']}", share_text(task["accuracy"]))
    more = (interval_text(task), share_text(task["baseline"]), f"{task['centered']:.3f}")
    return [*map(Cell, (*texts, *more)), Cell(task["verdict"], kind)]


def interval_text(task: Found) -> str:
    low, high = task["interval"]
    return f"{share_text(low)} to {share_text(high)}"


def told_of(found: Found) -> Iterator[str]:
    """Lines for a terminal."""
    width = max(map(len, found["tasks"]), default=0)
    for name, task in found["tasks"].items():
        items = f"{task['items']:,} item{'s' * (task['items'] != 1)}"
        chance = f"{task['verdict']} (baseline {share_text(task['baseline'])})"
        yield f"{name:<{width}}  {share_text(task['accuracy'])} of {items} ({interval_text(task)}), {chance}"
        yield from (f"{'':<{width}}  {line}" for line in code_lines(task))
    yield mean_text(found)
    yield from remarks(found)


def code_lines(task: Found) -> Iterator[str]:
    """Of a task whose answers are programs: how they ended, and pass@k of those that were drawn."""
    if counted := task.get("outcomes"):
        yield "pass@1, greedy: " + ", ".join(
            f"{number:,} {ENDINGS.get(name, name)}" for name, number in counted.items()
        )
    if drawn := task.get("drawn"):
        shares = (
            f"{name} {share_text(drawn[name])} ({share_text(low)} to {share_text(high)})"
            for name, (low, high) in drawn["intervals"].items()
        )
        yield f"drawn {drawn['samples']} times at temperature {drawn['temperature']:g}: {', '.join(shares)}"


def mean_text(found: Found) -> str:
    tasks = found["tasks"].values()
    above = sum(task["verdict"] == "above chance" for task in tasks)
    number = f"{len(tasks)} task{'s' * (len(tasks) != 1)}"
    return f"mean centered accuracy {found['mean_centered']:.3f} of {number}, {above} of them above chance"


def remarks(found: Found) -> Iterator[str]:
    """What a reader has to know to compare the figures."""
    if found["absent"]:
        yield f"not in the folder, so the mean is not comparable with others': {', '.join(found['absent'])}"
    if found.get("not_asked"):
        yield f"not asked in this form, which is for multiple choice: {', '.join(found['not_asked'])}"
    if found.get("not_run"):
        yield f"left out, because programs that a model writes are run only if that is asked for: {', '.join(found['not_run'])}"
    cut = sum(task["cut"] for task in found["tasks"].values())
    if cut:
        items = sum(task["items"] for task in found["tasks"].values())
        yield f"cut: {cut:,} of {items:,} prompts are longer than block_size, so the model saw only their end"
