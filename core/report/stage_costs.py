"""Sections of the report about all stages: tokenizer, data, cost, machine and code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.report.after_stage import DataFacts, SideFacts
from core.report.document import Cell, PageTable, Paragraph, Part
from core.report.run_report import duration, quantity
from core.report.stage_figures import Pipeline
from core.tracking.figures import group_text


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
