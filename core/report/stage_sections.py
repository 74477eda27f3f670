"""The sections of the report about all stages: what each gained, what was forgotten, and what it is all made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core.report.after_stage import DataFacts, SideFacts
from core.report.changes import BETTER, UNCLEAR, UNKNOWN, WORSE, Change
from core.report.document import Cell, Dialogue, PageTable, Paragraph, Part, Said
from core.report.reward import MEANT, Rewarded
from core.report.run_report import duration, quantity
from core.report.stage_figures import SAME_AS, Pipeline
from core.tracking.figures import group_text, loss_text, share_text

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
SHOWN_TEXT = 140  # characters of a completion
ONE_RUN = (
    "Intervals are 95 %, over the held-out data: how much another choice of it would change a figure. Changes are measured on "
    "the same data before and after. This is one run; another seed may change figures by more, and a sweep over seeds says by how much. "
    "All figures are of checkpoint best."
)


# What each stage did


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


# Figures as text


def figure_text(key: str, value: float) -> str:
    return share_text(value) if key.endswith("accuracy") else loss_text(value)


def meaning(pipeline: Pipeline, key: str) -> str:
    """What a row of the table is."""
    counts = {int(count) for count in pipeline.prompts.get(key, {}).values()}
    number = f"{min(counts):,} " if len(counts) == 1 else ""
    return MEANINGS.get(key.rpartition("/")[2], "").format(number)


def short_meaning(key: str) -> str:
    """The metric in a few words."""
    names = {"val_loss": "validation loss", "accuracy": "exact match", "val_accuracy": "validation prompts"}
    return (names | {"test_accuracy": "test prompts right", "val_accuracy": "validation prompts right"}).get(
        key.rpartition("/")[2], key
    )


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


# What the models write


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


# What it is made of


def tokenizer(pipeline: Pipeline) -> list[Part]:
    """The vocabulary, and how many bytes of each stage's text a token holds."""
    facts = {name: found.data for name, found in pipeline.after.items()}
    if not facts:
        return []
    different = len({each.encoder_hash for each in facts.values()}) > 1
    rows = [
        [
            Cell(name),
            Cell(each.encoder),
            Cell(f"{each.vocab_size:,}", note=f"{each.special_tokens} of them special" if each.special_tokens else ""),
            *(Cell(bytes_per_token(each.sides.get(side))) for side in ("train", "val")),
        ]
        for name, each in facts.items()
    ]
    told = "Stages have different tokenizers, so their losses per token cannot be compared." if different else (
        "All stages have one tokenizer, so their losses on the same data can be compared. Special tokens count as tokens."
    )  # fmt: skip
    columns = ("stage", "kind", "vocabulary", "bytes per token, training", "validation")
    return [Paragraph(told), PageTable(columns, rows)]


def bytes_per_token(side: SideFacts | None) -> str:
    return f"{side.bytes / side.tokens:.3f}" if side and side.bytes and side.tokens else ""


def data_mix(pipeline: Pipeline) -> list[Part]:
    """What each stage was trained on, how much of it there is, and how often it was read."""
    rows = [data_row(pipeline, name, found.data) for name, found in pipeline.after.items()]
    groups = [
        [Cell(name), Cell(group_text(group)), Cell(f"{count:,}"), Cell(f"{count / total:.1%}"), Cell("", share=count / total)]
        for name, found in pipeline.after.items()
        if (total := sum(found.data.sides["train"].groups.values()))
        for group, count in sorted(found.data.sides["train"].groups.items(), key=lambda item: -item[1])
    ]  # fmt: skip
    columns = (
        "stage",
        "from",
        "training documents",
        "training tokens",
        "times read",
        "validation tokens",
        "test tokens",
    )
    table = PageTable(columns, rows)
    more = PageTable(("stage", "group", "training documents", "share of those with a group", ""), groups, "Groups")
    return [table, more] if groups else [table] if rows else []


def data_row(pipeline: Pipeline, stage: str, facts: DataFacts) -> list[Cell]:
    """The data of one stage."""
    train = facts.sides["train"]
    run = pipeline.runs[stage]
    by_reward = run.config.get("train.objective.kind") == "reward"  # its tokens are mostly the model's own
    read = "" if by_reward else f"{(run.summary.get('tokens') or 0) / train.tokens:.2f}"
    tokens = {side: facts.sides[side].tokens if side in facts.sides else None for side in ("val", "test")}
    return [
        Cell(stage, note=facts.kind),
        Cell(", ".join(facts.inputs) or f"{facts.documents}() of prepare.py"),
        Cell("" if train.documents is None else f"{train.documents:,}"),
        Cell(f"{train.tokens:,}"),
        Cell(read),
        *(Cell("" if count is None else f"{count:,}") for count in tokens.values()),
    ]


def cost_table(pipeline: Pipeline) -> list[Part]:
    """One row per stage, with a link to its own report, and the sums."""
    summaries = {name: run.summary for name, run in pipeline.runs.items()}
    rows = [cost_row(pipeline, name, summary) for name, summary in summaries.items()]
    totals = [total(pipeline, key) for key in ("steps", "tokens", "train_seconds", "wall_seconds")]
    share = share_of_peak(pipeline)
    last = [
        Cell("all", "own"), Cell(""), Cell(""), *(Cell(f"{value:,.0f}") for value in totals[:2]),
        *(Cell(duration(value)) for value in totals[2:]),
        Cell(f"{quantity(total(pipeline, 'flops'))}FLOP"), Cell("" if share is None else f"{share:.1%}"),
    ]  # fmt: skip
    columns = (
        "stage", "status", "starts from", "steps", "tokens", "training", "with evaluations", "operations", "share of peak"
    )  # fmt: skip
    told = (
        "Operations are estimated from the model's shape. The share is of what this machine reached in matrix products."
    )
    if any(run.config.get("train.objective.kind") == "reward" for run in pipeline.runs.values()):
        told += (
            " Of a stage that is trained by reward, only the steps are counted, with padding; writing the answers takes most of its "
            "time, so its share is low."
        )
    return [PageTable(columns, [*rows, last] if len(rows) > 1 else rows), Paragraph(told, "soft")] if rows else []


def cost_row(pipeline: Pipeline, name: str, summary: Mapping[str, Any]) -> list[Cell]:
    """One stage: its state, and what it cost."""
    page = pipeline.folder / name / "report.html"
    start = str(pipeline.runs[name].config.get("train.model.init_from") or "fresh weights").removeprefix("./")
    flops, mfu = summary.get("flops"), summary.get("mfu")
    return [
        Cell(name, link=f"{name}/report.html" if page.is_file() else ""),
        Cell(str(summary.get("status") or ""), "" if summary.get("status") == "completed" else "bad"),
        Cell(start),
        Cell(f"{summary.get('steps') or 0:,}"),
        Cell(f"{summary.get('tokens') or 0:,}"),
        Cell(duration(summary.get("train_seconds") or 0.0)),
        Cell(duration(summary.get("wall_seconds") or 0.0)),
        Cell("" if flops is None else f"{quantity(flops)}FLOP"),
        Cell("" if mfu is None else f"{mfu:.1%}"),
    ]


def total(pipeline: Pipeline, key: str) -> float:
    """The sum of a figure over all stages that have it."""
    return sum(float(run.summary.get(key) or 0) for run in pipeline.runs.values())


def share_of_peak(pipeline: Pipeline) -> float | None:
    """Operations of all stages, as a share of what their machines could have done in that time; None if one is unknown."""
    possible = 0.0
    for run in pipeline.runs.values():
        if not (run.summary.get("mfu") and run.summary.get("peak_flops")):
            return None
        possible += float(run.summary["peak_flops"]) * float(run.summary["train_seconds"])
    return total(pipeline, "flops") / possible if possible else None


def machine(pipeline: Pipeline) -> list[Part]:
    """Code, hardware and software. What differs between stages stands once for each."""
    found: dict[str, dict[str, str]] = {}
    for stage, run in pipeline.runs.items():
        summary = run.summary
        known = {"device": summary.get("device"), "dtype": summary.get("dtype"), **(summary.get("environment") or {})}
        for name, value in ({"commit": commit_text(summary)} | known | {"started": started(summary)}).items():
            if value is not None and name not in ("git_commit", "git_dirty"):
                found.setdefault(name, {})[stage] = str(value)
    rows = [
        [Cell(name.replace("_", " ")), Cell("\n".join(by_stage(values)), "lines")] for name, values in found.items()
    ]
    return [PageTable((), rows)] if rows else []


def by_stage(values: Mapping[str, str]) -> Iterator[str]:
    """One line if all stages have one value, else a line for each."""
    if len(set(values.values())) == 1:
        yield next(iter(values.values()))
    else:
        yield from (f"{stage}: {value}" for stage, value in values.items())


def commit_text(summary: Mapping[str, Any]) -> str | None:
    """The commit of a run, and whether files differed from it; None where neither commit nor code is known."""
    environment = summary.get("environment") or {}
    commit, code = environment.get("git_commit"), environment.get("code")
    if commit:
        changed = " with uncommitted changes" if environment.get("git_dirty") else ", unchanged"
        return str(commit).removesuffix("+changes")[:12] + changed
    return f"none (not in git); the experiment's code has the hash {code}" if code else None


def started(summary: Mapping[str, Any]) -> str | None:
    """When a run began: date and minute."""
    text = str(summary.get("started") or "")
    return text[:16].replace("T", " ") or None


Section = Callable[[Pipeline], list[Part]]
SECTIONS: tuple[tuple[str, Section], ...] = (
    ("Same prompts, stage by stage", samples),
    ("Conversations", talks),
    ("Tokenizer", tokenizer),
    ("Data", data_mix),
    ("Cost", cost_table),
    ("Machine and code", machine),
)  # below the curves
