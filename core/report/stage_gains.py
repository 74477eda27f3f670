"""Sections of the report about all stages: what each stage gained, and what was forgotten."""

from __future__ import annotations

from core.report.changes import BETTER, UNCLEAR, UNKNOWN, WORSE, Change
from core.report.document import Cell, PageTable, Paragraph, Part
from core.report.reward import MEANT, Rewarded
from core.report.run_report import duration
from core.report.stage_figures import SAME_AS, Pipeline
from core.report.stage_words import (
    KINDS,
    MARKS,
    difference_text,
    figure_text,
    interval_text,
    meaning,
    short_meaning,
    signed,
)

ONE_RUN = (
    "Intervals are 95 %, over the held-out data: how much another choice of it would change a figure. Changes are measured on "
    "the same data before and after. This is one run; another seed may change figures by more, and a sweep over seeds says by how much. "
    "All figures are of checkpoint best."
)


def at_a_glance(pipeline: Pipeline) -> list[Part]:
    """A row per stage: what it gained on its own data, what it lost of earlier stages', and its cost."""
    rows = [
        [Cell(name), gained(pipeline, name), lost(pipeline, name), cost_cell(pipeline, name)] for name in pipeline.runs
    ]
    told = (
        "Own data: the main figure of a stage, before → after it. Earlier stages: main figures of the data of the stages that it "
        "goes back to, where they got worse."
    )
    return [PageTable(("stage", "own data", "earlier stages", "cost"), rows), Paragraph(told, "soft")] if rows else []


def gained(pipeline: Pipeline, stage: str) -> Cell:
    """The main figure of a stage's own data, before and after it."""
    key, origin = pipeline.main_metric(stage), pipeline.origin(stage)
    if not key:
        return Cell("")
    change = pipeline.change(key, origin, stage)
    if change is None:
        start = f"from weights of {origin}" if origin else "from fresh weights"
        return Cell(figure_text(key, pipeline.table[key][stage]), note=f"{short_meaning(key)}, {start}")
    return Cell(
        f"{figure_text(key, change.before)} → {figure_text(key, change.after)}",
        KINDS.get(change.verdict, ""),
        note=", ".join(filter(None, (MARKS[change.verdict], difference_text(key, change), short_meaning(key)))),
    )


def lost(pipeline: Pipeline, stage: str) -> Cell:
    """The main figures of the data of the stages before, where this stage made them worse."""
    before = pipeline.lines[stage][:-1]
    keys = [pipeline.main_metric(each) for each in before]
    changes = [(key, change) for key in keys if (change := pipeline.change(key, pipeline.origin(stage), stage))]
    if not changes:
        return Cell("", note="none" if not before else "not measured")
    worse = [(key, change) for key, change in changes if change.verdict in (WORSE, UNKNOWN)]
    if not worse:
        return Cell("nothing forgotten", "good", note="beyond the intervals")
    lines = [f"{key}: {figure_text(key, change.before)} → {figure_text(key, change.after)}" for key, change in worse]
    verdict = WORSE if any(change.verdict == WORSE for _, change in worse) else UNKNOWN
    return Cell("\n".join(lines), f"lines {KINDS.get(verdict, '')}".strip(), note=MARKS[verdict])


def cost_cell(pipeline: Pipeline, stage: str) -> Cell:
    """How long a stage trained, on how many tokens."""
    summary = pipeline.runs[stage].summary
    return Cell(duration(summary.get("train_seconds") or 0.0), note=f"{summary.get('tokens') or 0:,} tokens")


def metrics_table(pipeline: Pipeline) -> list[Part]:
    """The table of pipeline.json, a row per metric and a column per stage. Own metrics that stand there twice are left out."""
    stages = list(pipeline.runs)
    keys = [key for key in pipeline.table if "/" in key] + [key for key in pipeline.table if is_alone(pipeline, key)]
    rows = [
        [Cell(key, note=meaning(pipeline, key)), *(metric_cell(pipeline, key, stage) for stage in stages)]
        for key in keys
    ]
    columns = ("metric", *(f"after {stage}" for stage in stages))
    explained = (
        "STAGE/METRIC is measured on the data of STAGE with the weights of every stage: what they knew before it, and what "
        f"was forgotten after it. {MARKS[BETTER]} and {MARKS[WORSE]} compare with the stage whose weights a stage started from."
    )
    parts: list[Part] = [PageTable(columns, rows), Paragraph(explained, "soft"), Paragraph(ONE_RUN, "soft")]
    return parts if rows else []


def is_alone(pipeline: Pipeline, key: str) -> bool:
    """Whether no rows STAGE/METRIC have what a row of stages' own figures says."""
    if "/" in key:
        return False
    same = SAME_AS.get(key, ())
    return not all(any(f"{stage}/{metric}" in pipeline.table for metric in same) for stage in pipeline.table[key])


def metric_cell(pipeline: Pipeline, key: str, stage: str) -> Cell:
    """A figure with its interval, and how it changed from the stage before."""
    value = pipeline.table[key].get(stage)
    if value is None:
        return Cell("")
    change = pipeline.change(key, pipeline.origin(stage), stage)
    interval = interval_text(pipeline, key, stage)
    remark = MARKS[change.verdict] if change and change.verdict != UNKNOWN else ""
    own = "own" if key.partition("/")[0] == stage else ""
    kind = KINDS.get(change.verdict, "") if change else ""
    return Cell(figure_text(key, value), f"{own} {kind}".strip(), note=", ".join(filter(None, (interval, remark))))


def forgotten(pipeline: Pipeline) -> list[Part]:
    """How the figures of each stage's data stand at the end of the line that goes on from it."""
    rows, gone, unsure = [], [], False
    for stage in pipeline.runs:
        last = [name for name, line in pipeline.lines.items() if stage in line][-1]
        for key in pipeline.table if last != stage else ():
            change = pipeline.change(key, stage, last) if key.startswith(f"{stage}/") else None
            if change is None:
                continue
            unsure = unsure or change.verdict == UNKNOWN
            if change.verdict == WORSE:
                gone.append(f"{key} {figure_text(key, change.before)} → {figure_text(key, change.after)}")
            rows.append(forgotten_row(pipeline, key, stage, last, change))
    if not rows:
        return []
    if gone:
        told = Paragraph(f"Forgotten by the end: {'; '.join(gone)}.")
    elif unsure:
        told = Paragraph(
            "Intervals are missing (too little validation data, or a run of an older version), so the report cannot say what was forgotten: compare the figures."
        )
    else:
        told = Paragraph("Nothing was forgotten beyond the intervals.")
    return [told, PageTable(("metric", "after its own stage", "at the end", "change", "", "most of it in"), rows)]


def forgotten_row(pipeline: Pipeline, key: str, stage: str, last: str, change: Change) -> list[Cell]:
    """A figure after its own stage and at the end."""
    words = {WORSE: "✗ forgotten", BETTER: "✓ better still", UNCLEAR: "≈ kept", UNKNOWN: "no interval"}
    return [
        Cell(key),
        Cell(figure_text(key, change.before)),
        Cell(figure_text(key, change.after), note=f"after {last}"),
        Cell(difference_text(key, change) or signed(key, change.after - change.before)),
        Cell(words[change.verdict], f"mark {KINDS.get(change.verdict, '')}".strip()),
        Cell(worst_stage(pipeline, key, stage, last) if change.verdict == WORSE else ""),
    ]


def worst_stage(pipeline: Pipeline, key: str, stage: str, last: str) -> str:
    """The stage between two in which a figure got worse by most."""
    line = pipeline.lines[last]
    steps = list(zip(line[line.index(stage) :], line[line.index(stage) + 1 :], strict=False))
    changes = {after: change for before, after in steps if (change := pipeline.change(key, before, after))}

    def worsening(name: str) -> float:
        return (changes[name].before - changes[name].after) * (1 if changes[name].up else -1)

    return max(changes, key=worsening, default="")


def reward_section(found: Rewarded) -> list[Part]:
    """A stage's reward and accuracies over its first and its last steps, with the verdict."""
    rows = [
        [
            Cell(name, note=MEANT[name] + prompts_text(found.prompts)),
            Cell(figure_text(kind, change.before)),
            Cell(figure_text(kind, change.after)),
            Cell(difference_text(kind, change) or signed(kind, change.after - change.before)),
            Cell(MARKS[change.verdict], f"mark {KINDS.get(change.verdict, '')}".strip()),
        ]
        for name, change in found.changes.items()
        for kind in [
            "accuracy" if 0 <= min(change.before, change.after) <= max(change.before, change.after) <= 1 else name
        ]
    ]
    return [Paragraph(found.verdict), PageTable(("", "first steps", "last steps", "change", ""), rows)]


def prompts_text(counts: tuple[float, float]) -> str:
    """Of how many prompts the first and the last value are the mean; "" if that is not known."""
    first, last = counts
    if not (first and last):
        return ""
    return f"; of {first:,.0f} prompts" if first == last else f"; of {first:,.0f} and {last:,.0f} prompts"
