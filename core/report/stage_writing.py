"""Sections of the report about all stages: what the model of each stage writes."""

from __future__ import annotations

from core.report.document import Cell, Dialogue, PageTable, Paragraph, Part, Said
from core.report.stage_figures import Pipeline

SHOWN_TEXT = 140  # characters of a completion


def samples(pipeline: Pipeline) -> list[Part]:
    """Completions of the same validation prompts after each stage, a table for each stage's data."""
    parts: list[Part] = []
    shown: list[list[str]] = []  # stages with the same data have the same prompts
    for data in pipeline.runs:
        written = {name: found.on[data].samples for name, found in pipeline.after.items() if data in found.on}
        prompts = [sample.prompt for sample in written.get(data, [])]
        same = {name: found for name, found in written.items() if [each.prompt for each in found] == prompts}
        if not prompts or prompts in shown:
            continue
        shown.append(prompts)
        right = (
            ", ".join(
                f"{sum(bool(each.correct) for each in found)} of {len(found)} right after {name}"
                for name, found in same.items()
            )
            if written[data][0].correct is not None
            else ""
        )
        parts.append(
            Paragraph(f"{data}: " + (right or "beginnings of its validation texts, and how each stage goes on") + ".")
        )
        rows = [
            [
                Cell(each.prompt.strip(), "text sample"),
                *(completed(found[number].text, found[number].correct) for found in same.values()),
                Cell(clipped(each.truth), "text sample soft"),
            ]
            for number, each in enumerate(written[data])
        ]
        parts.append(PageTable(("prompt", *(f"after {name}" for name in same), "in the data"), rows))
    told = "The same prompts of the validation side after every stage, completed greedily by its best weights and cut short."
    return [Paragraph(told, "soft"), *parts] if parts else []


def completed(text: str, correct: bool | None) -> Cell:
    """What a stage wrote."""
    if correct is None:
        return Cell(clipped(text), "text sample")
    return Cell(
        text.strip(), "text sample good" if correct else "text sample", note="✓ right" if correct else "✗ wrong"
    )


def clipped(text: str) -> str:
    """The beginning of a text, so that a table of several stages stays readable."""
    text = text.strip()
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 1] + "…"


def talks(pipeline: Pipeline) -> list[Part]:
    """The same held-out conversations as every stage that was taught to talk answers them. Only the last stage's are open."""
    talkers = [name for name, found in pipeline.after.items() if name in found.on and found.on[name].talks]
    parts: list[Part] = []
    for name in reversed(talkers):
        found = pipeline.after[name].on.get(talkers[-1])
        for number, talk in enumerate(found.talks if found else (), 1):
            turns = [
                Said(turn.role, turn.text, f"in the data: {turn.expected}" if turn.expected else "") for turn in talk
            ]
            parts.append(Dialogue(turns, "" if name == talkers[-1] else f"After {name}, conversation {number}"))
    told = (
        "The user's turns are of held-out conversations; the model wrote the assistant's, greedily, each after its own earlier "
        "ones. Where the data says something else, that stands below; often many answers are right."
    )
    return [Paragraph(f"After {talkers[-1]}. {told}", "soft"), *parts] if parts else []
