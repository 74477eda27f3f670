"""Write a folder to hand in: report.md with its pictures as files, report.html, and report.pdf."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from core import durable, files
from core.errors import UserError
from core.report.answers import read_details
from core.report.comparable import not_one_loss
from core.report.comparison import Group, compare
from core.report.comparison_forms import document
from core.report.document import Code, Document, PageSection, PageTable, Paragraph, Part
from core.report.experiment_report import MOST_GROUPS, table
from core.report.markdown import markdown
from core.report.on_the_way import on_the_way
from core.report.overlay import overlay
from core.report.page import page
from core.report.pdf import write_pdf
from core.report.plots import loss_curves, png
from core.report.run_report import (
    about_answers,
    accuracy,
    curves,
    environment,
    planned,
    sample_title,
    samples,
    settings,
    write_pictures,
)
from core.report.runs import RunData
from core.report.samples import read_samples

CURVES, OF_RUN = "curves.png", "loss_curves.png"
TITLE = "My conclusion"
OWN, END = (
    f"## {TITLE}\n",
    "<!-- end of my conclusion -->",
)  # what stands between them in report.md is the student's, and stays
PLACE = "{my conclusion}"
ROOM = "(Write here what you conclude, and why. This text stays when the report is written again.)"


def write_hand_in(
    folder: Path,
    name: str,
    question: str,
    groups: Sequence[Group],
    more: Callable[[RunData], Sequence[PageSection]] = lambda run: (),
    *,
    markdown_only: bool = False,
) -> dict[str, Path]:
    """Write the folder. Returns its files by name; "pdf" is missing where no program can print one.

    question: what the experiment is about, in one line. groups: of runs, the one of the run `default` first. more: sections
    of other parts of the program on a run; their pictures are written as files. markdown_only: write no page and no PDF.
    The text under `My conclusion` of an earlier report.md is kept. Raises UserError if the folder has a report.md of another
    origin.
    """
    written = {kind: folder / f"report.{kind}" for kind in (("md",) if markdown_only else ("md", "html", "pdf"))}
    own = conclusion_of(written["md"], name)
    comparison = compare(groups[:MOST_GROUPS])
    figure, shown = overlay(comparison.groups), shown_run(groups)
    durable.make_folders(folder)
    files.write_bytes(folder / CURVES, png(figure))
    compared = document(comparison, CURVES, figure)
    detailed = [*about_run(shown), *more(shown)]
    for section in detailed:
        write_pictures(folder, section.parts)
    files.write_bytes(
        folder / OF_RUN, png(loss_curves(shown.rows))
    )  # all curves, where the page has one picture for each

    def whole(conclusion: Sequence[str]) -> Document:
        """The report with these paragraphs as its conclusion."""
        sections = [
            PageSection("What the runs support", compared.head),
            *compared.sections,
            PageSection(TITLE, list(map(Paragraph, conclusion))),
            *detailed,
            PageSection("Run it again", again(groups)),
            PageSection(f"Settings of {shown.name}", settings(shown.config)),
            PageSection("Environment", environment(shown.summary)),
        ]
        return Document(name, [Paragraph(question, "lead")], sections)

    files.write_text(written["md"], markdown(whole([PLACE])).replace(PLACE, f"{own}\n\n{END}"))
    if markdown_only:
        return written
    files.write_text(written["html"], page(whole(own.split("\n\n"))))
    if not write_pdf(written["html"], written["pdf"]):
        written["pdf"].unlink(missing_ok=True)  # of an earlier report
        del written["pdf"]
    return written


def conclusion_of(path: Path, name: str) -> str:
    """The student's text in an earlier report.md, or the room for it.

    Raises UserError for another program's report.md, and for one of another experiment than this name.
    """
    if not path.is_file():
        return ROOM
    earlier = path.read_text(encoding="utf-8")
    title, begins, rest = earlier.partition(OWN)
    if begins and (first := title.partition("\n")[0]) != f"# {name}":
        raise UserError(
            f"this folder has a report about another experiment: {first.removeprefix('# ')!r}, not {name!r}",
            place=str(path),
            remedy="Choose another folder, or move the file away.",
        )
    text, ends, _ = rest.partition(END)
    if not begins or not ends:
        raise UserError(
            f"the part from '{OWN.strip()}' to '{END}' is missing in this file, so your text could be lost",
            place=str(path),
            remedy="Choose another folder, or move the file away.",
        )
    return text.strip() or ROOM


def shown_run(groups: Sequence[Group]) -> RunData:
    """The run that the report shows in detail: the first one of the best group, if possible one with samples."""
    runs = [run for group in groups for run in group.counted]
    with_samples = [run for run in runs if read_samples(run.folder).samples]
    candidates = with_samples or runs or groups[0].runs
    compared = not not_one_loss(candidates)

    def score(run: RunData) -> tuple[float, float]:
        loss = run.summary.get("best_val_loss")
        return run.summary.get("accuracy") or 0.0, -loss if compared and loss is not None else 0.0

    return max(candidates, key=score)


def about_run(run: RunData) -> list[PageSection]:
    """The sections on one run: curves, exact match by group, samples, wrong answers, settings, and the machine."""
    written = read_samples(run.folder)
    found: list[Part] = samples(written.samples)
    none = [Paragraph("This run has no samples yet; `loop` writes them.", "soft")]
    return [
        PageSection(f"The run {run.name}", curves(run)),
        PageSection("Best values, and values on the way", on_the_way(run.rows, planned(run.config))),
        PageSection("Exact match by group", accuracy(run.summary)),
        PageSection(sample_title(written.samples), found or none),
        *about_answers(run.summary, written, read_details(run.folder, run.summary.get("best_step"))),
    ]


def again(groups: Sequence[Group]) -> list[Part]:
    """All runs, and their commands, each once. Without links: the folder is handed to people who do not have the runs."""
    runs = sorted((run for group in groups for run in group.runs), key=lambda run: str(run.summary.get("started")))
    listed = table(runs[0].folder, runs)
    rows = [[replace(cell, link="") for cell in row] for row in listed.rows]
    lines = dict.fromkeys(str(run.summary.get("command") or "") for run in runs)
    return [PageTable(listed.columns, rows), Code("\n".join(filter(None, lines)))]
