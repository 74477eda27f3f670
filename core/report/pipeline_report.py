"""Write pipeline.json and the report of a run with stages: what each stage gained and forgot, curves, samples, data, cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core import files
from core.report import plots
from core.report.document import Cards, Code, Document, PageSection, Paragraph, Part, Picture
from core.report.plots import INK, Panel, Row, png
from core.report.reward import LENIENT, ONLY_REWARD, REWARD, STRICT, Rewarded, rewarded
from core.report.run_report import duration, quantity, write_document
from core.report.runs import RunData
from core.report.stage_costs import commit_text, cost_table, data_mix, machine, share_of_peak, tokenizer, total
from core.report.stage_figures import Pipeline, read_pipeline
from core.report.stage_gains import at_a_glance, forgotten, metrics_table, reward_section
from core.report.stage_writing import samples, talks
from core.tracking.figures import share_text
from core.tracking.run import PIPELINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = "curves.png"
REWARDS = Panel(
    "reward by step", "step", {"reward": REWARD, "strict": STRICT, "lenient": LENIENT}, "mean of the answers"
)
PANELS = [Panel("loss by step", "step", plots.LOSS, plots.NATS), plots.ACCURACY, REWARDS]


def write_pipeline_report(folder: Path, experiment: str, stages: Sequence[str]) -> Path:
    """Write pipeline.json, curves.png, report.html and report.md into the folder of a run. Returns the page's path.

    stages: all of them, in their order. Those that have not begun are left out of the figures. Raises UserError for damaged
    files of a stage.
    """
    pipeline = read_pipeline(folder, experiment, stages)
    found = {
        "stages": pipeline.stages,
        "table": pipeline.table,
        "seconds": {name: run.summary.get("train_seconds") for name, run in pipeline.runs.items()},
        "tokens": {name: run.summary.get("tokens") for name, run in pipeline.runs.items()},
    }
    files.write_json(folder / PIPELINE, found)
    drawn = joined_curves(pipeline.runs)
    if drawn is not None:
        files.write_bytes(folder / PICTURE, png(drawn))
    return write_document(folder, "report", about(pipeline))


def about(pipeline: Pipeline) -> Document:
    """The whole page."""
    rewards = {name: found for name, run in pipeline.runs.items() if (found := rewarded(run))}
    commands = dict.fromkeys(str(run.summary.get("command") or "") for run in pipeline.runs.values())
    return Document(
        f"{pipeline.experiment} / {pipeline.folder.name}",
        head(pipeline, rewards),
        [
            PageSection("What each stage gained and forgot", at_a_glance(pipeline)),
            PageSection("Metrics by stage", metrics_table(pipeline)),
            PageSection("What was forgotten", forgotten(pipeline)),
            *(PageSection(f"Reward and skill in {name}", reward_section(found)) for name, found in rewards.items()),
            PageSection("Curves", curves(pipeline.runs)),
            PageSection("Same prompts, stage by stage", samples(pipeline)),
            PageSection("Conversations", talks(pipeline)),
            PageSection("Tokenizer", tokenizer(pipeline)),
            PageSection("Data", data_mix(pipeline)),
            PageSection("Cost", cost_table(pipeline)),
            PageSection("Machine and code", machine(pipeline)),
            PageSection("Run it again", [Code("\n".join(filter(None, commands)))]),
        ],
    )


def head(pipeline: Pipeline, rewards: dict[str, Rewarded]) -> list[Part]:
    """The question, what must not be missed, and the main figures."""
    runs = list(pipeline.runs.values())
    done = [run for run in runs if run.summary.get("status") == "completed"]
    share, flops = share_of_peak(pipeline), total(pipeline, "flops")
    figures = [
        (f"{len(pipeline.stages)}", "stages", "" if len(done) == len(pipeline.stages) else f"{len(done)} of them complete"),
        (duration(total(pipeline, "train_seconds")), "of training", f"{duration(total(pipeline, 'wall_seconds'))} with evaluations"),
        (f"{quantity(total(pipeline, 'tokens')).strip()}", "tokens", "all stages together"),
        (f"{quantity(flops)}FLOP" if flops else "", "operations", "estimated"),
        ("" if share is None else share_text(share), "of this machine's peak", "in matrix products"),
    ]  # fmt: skip
    notices = [f"In stage {name}: {found.verdict}" for name, found in rewards.items() if ONLY_REWARD in found.verdict]
    return [
        *([Paragraph(str(runs[0].summary.get("description") or ""), "lead")] if runs else []),
        *(Paragraph(text, "notice") for text in notices),
        Cards([figure for figure in figures if figure[0]]),
        *([Paragraph(code_and_machine(runs), "soft")] if runs else []),
    ]


def code_and_machine(runs: Sequence[RunData]) -> str:
    """Commit, processor, device and precision in one line. What differs between stages is listed."""
    found = {
        "Commit: ": [commit_text(run.summary) for run in runs],
        "Machine: ": [(run.summary.get("environment") or {}).get("cpu") for run in runs],
        "device ": [run.summary.get("device") for run in runs],
        "in ": [run.summary.get("dtype") for run in runs],
    }
    texts = {name: ", ".join(dict.fromkeys(str(value) for value in values if value)) for name, values in found.items()}
    commit = f"Commit: {text}. " if (text := texts.pop("Commit: ")) else ""
    return commit + ", ".join(name + text for name, text in texts.items() if text)


def curves(runs: dict[str, RunData]) -> list[Part]:
    """Each curve of all stages, one after the other."""
    panels = plots.present(joined(list(runs.values()))[0], PANELS)
    if not panels:
        return []
    return [
        Picture("curves of all stages, one after the other", {p.title: partial(drawn, runs, [p]) for p in panels}, PICTURE),
        Paragraph("A stage ends at each dotted line. The next one may have other validation data.", "soft"),
    ]  # fmt: skip


def joined_curves(runs: dict[str, RunData]) -> Figure | None:
    """Loss, exact match and rewards over the steps of all stages, side by side; None if there is nothing to draw."""
    panels = plots.present(joined(list(runs.values()))[0], PANELS)
    return drawn(runs, panels) if panels else None


def drawn(runs: dict[str, RunData], panels: Sequence[Panel]) -> Figure:
    """Panels over the steps of all stages, with a line where a stage ends."""
    rows, ends = joined(list(runs.values()))
    figure = plots.draw(rows, panels)
    for ax in figure.axes:
        for end, name in zip(ends, runs, strict=True):
            if end != ends[-1]:
                ax.axvline(end, color=INK, linewidth=0.8, linestyle=":")
            ax.annotate(
                name, (end, 1), xycoords=("data", "axes fraction"), xytext=(-2, -3), textcoords="offset points",
                ha="right", va="top", fontsize=7, color=INK,
            )  # fmt: skip
    return figure


def joined(runs: Sequence[RunData]) -> tuple[list[Row], list[float]]:
    """The rows of all stages with steps and seconds that go on, and the last step of each stage."""
    rows: list[Row] = []
    ends: list[float] = []
    step, seconds = 0.0, 0.0
    for run in runs:
        own = [row | {"step": row["step"] + step, "seconds": row.get("seconds", 0.0) + seconds} for row in run.rows]
        rows += own
        if own:
            step, seconds = own[-1]["step"], own[-1]["seconds"]
        ends.append(step)
    return rows, ends
