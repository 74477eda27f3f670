"""Write the report of an experiment: report.html and report.md beside its runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from core import files
from core.report.comparable import not_one_loss
from core.report.comparison import Group, compare
from core.report.comparison_forms import document
from core.report.document import Cards, Cell, Document, PageSection, PageTable, Paragraph, Part
from core.report.overlay import overlay
from core.report.plots import png
from core.report.run_report import duration, shown, write_document
from core.report.runs import RunData
from core.tracking.figures import exact_match_columns, loss_text, prompts_in_words, share_text

MOST_GROUPS = 12  # compared with each other; more would not fit on a readable page
PICTURE = "compare.png"


def write_experiment_report(
    out: Path, name: str, question: str, groups: Sequence[Group], sweeps: Sequence[Path]
) -> Path:
    """Write the report of an experiment's runs into its out folder. Returns the page's path.

    question: what the experiment is about, in one line. groups: the one of the run `default` first. sweeps: their pages.
    """
    comparison = compare(groups[:MOST_GROUPS])
    figure = overlay(comparison.groups)
    files.write_bytes(out / PICTURE, png(figure))
    compared = document(comparison, PICTURE, figure)
    return write_document(out, "report", about(out, name, question, groups, compared, sweeps))


def about(
    out: Path,
    name: str,
    question: str,
    groups: Sequence[Group],
    compared: Document,
    sweeps: Sequence[Path],
) -> Document:
    """The whole report: what the runs support, then the runs. compared: the comparison of its groups."""
    runs = sorted((run for group in groups for run in group.runs), key=lambda run: str(run.summary.get("started")))
    head: list[Part] = [Paragraph(question, "lead"), Cards(figures(runs))]
    parts = list(compared.head)
    if len(groups) > MOST_GROUPS:
        said = f"The first {MOST_GROUPS} of {len(groups)} settings are compared. `sweep` writes its own report."
        parts.append(Paragraph(said, "soft"))
    sections = [
        PageSection("What the runs support", parts),
        *compared.sections,
        PageSection("Runs", [table(out, runs)]),
    ]
    links = [[Cell(page.parent.name, link=relative(page, out))] for page in sweeps]
    return Document(name, head, [*sections, PageSection("Sweeps", [PageTable((), links)])])


def figures(runs: Sequence[RunData]) -> list[tuple[str, str, str]]:
    """(value, name, remark): the number of runs, the best of them, and the total time."""
    complete = [run for run in runs if run.summary.get("status") == "completed"]
    found = [(f"{len(runs):,}", "runs", "" if len(complete) == len(runs) else f"{len(complete)} of them complete")]
    known = [run for run in complete if run.summary.get("accuracy") is not None]
    if known:
        best = max(known, key=lambda run: float(run.summary["accuracy"]))
        prompts = prompts_in_words([best.summary])
        found.append(
            (share_text(best.summary["accuracy"]), "best exact match", best.name + (f", {prompts}" * bool(prompts)))
        )
    losses = [run for run in complete if run.summary.get("best_val_loss") is not None]
    if losses and not not_one_loss(losses):
        best = min(losses, key=lambda run: float(run.summary["best_val_loss"]))
        found.append((loss_text(best.summary["best_val_loss"]), "lowest validation loss", best.name))
    seconds = sum(run.summary.get("wall_seconds") or 0.0 for run in runs)
    return [*found, (duration(seconds), "of computing", "all runs together")]


def table(out: Path, runs: Sequence[RunData]) -> PageTable:
    """One row per run, with a link to its own report."""
    title, prompts = exact_match_columns([[run.summary] for run in runs])
    columns = ("run", "status", title, "val loss", "seed", "seconds", "started", "question")
    return PageTable(columns, [row(out, run, of) for run, of in zip(runs, prompts, strict=True)])


def row(out: Path, run: RunData, prompts: str) -> list[Cell]:
    """One run. prompts: what its exact match is of, if the title does not say it."""
    summary, page = run.summary, run.folder / "report.html"
    loss, accuracy = summary.get("best_val_loss"), summary.get("accuracy")
    return [
        Cell(run.name, link=relative(page, out) if page.is_file() else ""),
        Cell(str(summary.get("status") or ""), "" if summary.get("status") == "completed" else "bad"),
        Cell("" if accuracy is None else share_text(accuracy) + prompts),
        Cell("" if loss is None else loss_text(loss)),
        Cell(shown(summary, "seed", "d")),
        Cell(shown(summary, "train_seconds", ",.1f")),
        Cell(str(summary.get("started") or "")[:10], "mark"),
        Cell(str(summary.get("description") or "")),
    ]


def relative(page: Path, folder: Path) -> str:
    """The path from a folder to a page, as links are written."""
    return Path(os.path.relpath(page, folder)).as_posix()
