"""Write pipeline.json and the report of a run with stages: its metrics by stage, what each stage forgot, joined curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import files
from core.report import plots
from core.report.document import Cards, Cell, Code, Document, PageSection, PageTable, Paragraph, Part, Picture
from core.report.plots import INK, Panel, Row, png
from core.report.run_report import duration, write_document
from core.report.runs import RunData, read_run
from core.tracking.figures import HELD_OUT, figure, loss_text, share_text
from core.tracking.run import PIPELINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = "curves.png"
OTHERS = "other_stages.json"  # in a stage's run folder: {other stage: {metric: value}}, measured with its best weights
OWN = {
    "val_loss": "best_val_loss", "bits_per_byte": "bits_per_byte", "val_accuracy": "val_accuracy", "accuracy": "accuracy",
    HELD_OUT: HELD_OUT,
}  # fmt: skip
AGAIN = (
    "val_loss",
    "val_accuracy",
    "test_accuracy",
    HELD_OUT,
)  # of a stage's data, measured after every stage
Metrics = dict[str, dict[str, float]]


def write_pipeline_report(folder: Path, experiment: str, stages: Sequence[str]) -> Path:
    """Write pipeline.json, curves.png, report.html and report.md into the folder of a run. Returns the page's path.

    stages: all of them, in their order. Those that have not begun are left out of the figures.
    """
    runs = {name: read_run(folder / name) for name in stages if (folder / name / "summary.json").is_file()}
    table, prompts = tables_of(folder, runs)
    found = {
        "stages": list(stages),
        "table": table,
        "seconds": {name: run.summary.get("train_seconds") for name, run in runs.items()},
        "tokens": {name: run.summary.get("tokens") for name, run in runs.items()},
    }
    files.write_json(folder / PIPELINE, found)
    drawn = joined_curves(runs)
    if drawn is not None:
        files.write_bytes(folder / PICTURE, png(drawn))
    return write_document(
        folder, "report", about(folder, experiment, stages, runs, metrics(list(runs), table, prompts), drawn)
    )


def tables_of(folder: Path, runs: dict[str, RunData]) -> tuple[Metrics, Metrics]:
    """{metric: {stage: value}}: each stage's own figures, then STAGE/METRIC for the data of a stage after every stage.

    The second table has the number of prompts of each exact match.
    """
    found: Metrics = {}
    prompts: Metrics = {}
    for name, run in runs.items():
        for metric, field in OWN.items():
            put(found, metric, name, figure(run.summary, field))
        put(prompts, "accuracy", name, run.summary.get("prompts"))
        put(prompts, HELD_OUT, name, (run.summary.get("held_out") or {}).get("prompts"))
        put(prompts, "val_accuracy", name, read_json(folder / name / "evaluation.json").get("val_prompts"))
    for measured_on in runs:
        for name in runs:
            measured = read_json(folder / name / ("evaluation.json" if name == measured_on else OTHERS))
            values = measured if name == measured_on else measured.get(measured_on, {})
            for metric in AGAIN:
                put(found, f"{measured_on}/{metric}", name, values.get(metric))
                put(prompts, f"{measured_on}/{metric}", name, values.get(metric.replace("accuracy", "prompts")))
    return {metric: values for metric, values in found.items() if "/" not in metric or len(values) > 1}, prompts


def put(found: Metrics, metric: str, stage: str, value: Any) -> None:
    """Note a figure, if there is one."""
    if isinstance(value, (int, float)):
        found.setdefault(metric, {})[stage] = value


def read_json(path: Path) -> dict[str, Any]:
    """A dict in a file; {} if it is missing or damaged: it is measured again where it is needed."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def joined_curves(runs: dict[str, RunData]) -> Figure | None:
    """Loss and exact match over the steps of all stages, one after the other, with a line where a stage ends."""
    rows, ends = joined(list(runs.values()))
    panels = plots.present(rows, [Panel("loss by step", "step", plots.LOSS, plots.NATS), plots.ACCURACY])
    if not panels:
        return None
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


def about(
    folder: Path,
    experiment: str,
    stages: Sequence[str],
    runs: dict[str, RunData],
    table: Sequence[Part],
    figure: Figure | None,
) -> Document:
    """The whole page."""
    seconds = sum(run.summary.get("train_seconds") or 0.0 for run in runs.values())
    done = sum(run.summary.get("status") == "completed" for run in runs.values())
    head: list[Part] = [
        *([Paragraph(str(next(iter(runs.values())).summary.get("description") or ""), "lead")] if runs else []),
        Cards([
            (f"{len(stages)}", "stages", "" if done == len(stages) else f"{done} of them complete"),
            (duration(seconds), "of training", "all stages together"),
        ]),
    ]  # fmt: skip
    curves: list[Part] = []
    if figure is not None:
        curves = [
            Picture("loss of all stages, one after the other", {"all stages": lambda: figure}, PICTURE),
            Paragraph("A stage ends at each dotted line. The next one may have other validation data.", "soft"),
        ]
    commands = dict.fromkeys(str(run.summary.get("command") or "") for run in runs.values())
    return Document(
        f"{experiment} / {folder.name}",
        head,
        [
            PageSection("Metrics by stage", table),
            PageSection("Curves", curves),
            PageSection("Stages", [stages_table(folder, runs)]),
            PageSection("Run it again", [Code("\n".join(filter(None, commands)))]),
        ],
    )


def metrics(stages: Sequence[str], table: Metrics, prompts: Metrics) -> list[Part]:
    """The table of pipeline.json, a row per metric and a column per stage. prompts: how many each exact match is of."""
    rows = [
        [
            Cell(metric),
            *(Cell(text_of(metric, values.get(stage), prompts.get(metric, {}).get(stage))) for stage in stages),
        ]
        for metric, values in table.items()
    ]
    again = (
        "STAGE/METRIC is measured on the data of that stage, after every stage: what was known before it, and what was "
        "forgotten later."
    )
    explained = [Paragraph(again, "soft")] if any("/" in metric for metric in table) else []
    own = "accuracy is the exact match of the test side, where a stage has one. All figures are of checkpoint best."
    return [PageTable(("metric", *stages), rows), Paragraph(own, "soft"), *explained]


def text_of(metric: str, value: float | None, prompts: float | None) -> str:
    """A figure for people."""
    if value is None:
        return ""
    if not metric.endswith("accuracy"):
        return loss_text(value)
    return share_text(value) + (f" of {prompts:,}" if prompts else "")


def stages_table(folder: Path, runs: dict[str, RunData]) -> PageTable:
    """One row per stage, with a link to its own report."""
    rows = []
    for name, run in runs.items():
        page, summary = folder / name / "report.html", run.summary
        start = run.config.get("train.model.init_from") or "fresh weights"
        rows.append(
            [
                Cell(name, link=f"{name}/report.html" if page.is_file() else ""),
                Cell(str(summary.get("status") or ""), "" if summary.get("status") == "completed" else "bad"),
                Cell(str(start).removeprefix("./")),
                Cell(f"{summary.get('steps') or 0:,}"),
                Cell(f"{summary.get('tokens') or 0:,}"),
                Cell(duration(summary.get("train_seconds") or 0.0)),
            ]
        )
    return PageTable(("stage", "status", "starts from", "steps", "tokens", "training"), rows)
