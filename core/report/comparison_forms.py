"""Write a comparison as text, Markdown, CSV, LaTeX, JSON or a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.files import json_text
from core.report.comparison import Comparison, as_dict, numbers, table
from core.report.differences import as_table
from core.report.document import Cell, Document, PageSection, PageTable, Paragraph, Picture
from core.report.markdown import markdown
from core.report.overlay import overlay
from core.report.page import page
from core.report.tables import FORMATS, Table, as_csv, as_latex, as_text, markdown_text, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")
# Suffix of the output file -> the form of its content.
SUFFIXES = {".txt": "text", ".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json", ".html": "html"}

MOST_DIFFERENCES = 24  # on a terminal: runs of different models differ in every key


def as_form(comparison: Comparison, form: str, picture: str = "compare.png") -> str:
    """The comparison in a form of FORMATS, or as json, html or document. picture: its path, relative to what is written."""
    forms: dict[str, Callable[[], str]] = {
        "text": lambda: text(comparison),
        "markdown": lambda: pasted(comparison),
        "csv": lambda: as_csv(numbers(comparison)),  # only this: a spreadsheet cannot read comments
        "latex": lambda: latex(comparison),
        "json": lambda: json_text(as_dict(comparison), indent=2),
        "html": lambda: page(document(comparison, picture)),
        "document": lambda: markdown(document(comparison, picture)),
    }
    return forms[form]()


def form_of(path: Path) -> str | None:
    """The form that a file's suffix asks for; None for a picture. Raises UserError for an unknown suffix."""
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return None
    if suffix not in SUFFIXES:
        raise UserError(
            f"'{path.name}' ends in {suffix or 'no suffix'}, which is not the suffix of a known format",
            place="output_path",
            remedy=f"A picture ends in {' or '.join(PICTURES)}, a table in {', '.join(SUFFIXES)}.",
        )
    return SUFFIXES[suffix]


def sentences(comparison: Comparison) -> list[str]:
    """The conclusion about each pair, then the other verdicts, then notes."""
    return [*(verdict.sentence for verdict in (*comparison.conclusions, *comparison.details)), *comparison.notes]


def text(comparison: Comparison) -> str:
    """For a terminal: the conclusions, figures, the details, and what differed."""
    concluded = [verdict.sentence for verdict in comparison.conclusions]
    rest = sentences(comparison)[len(concluded) :]
    parts = ["\n".join(concluded), as_text(table(comparison)), "\n".join(rest)]
    if comparison.differences:
        found = as_table(comparison.differences, comparison.names)
        rows = [[narrow(cell) for cell in row] for row in found.rows[:MOST_DIFFERENCES]]
        more = len(found.rows) - MOST_DIFFERENCES
        left_out = (
            f"\n... and {more} more; a page (.html) or a Markdown file (.md) lists all of them" if more > 0 else ""
        )
        parts.append("What differed:\n" + as_text(Table(found.columns, rows)) + left_out)
    elif len(comparison.groups) > 1:
        parts.append("Nothing differed: settings, data, code and environment are the same.")
    return "\n\n".join(filter(None, parts))


def narrow(cell: str, width: int = 44) -> str:
    """A cell cut to a width that fits on a terminal."""
    text = one_line(cell)
    return text if len(text) <= width else text[: width - 1] + "…"


def pasted(comparison: Comparison) -> str:
    """The table and the sentences, to paste into a README."""
    lines = "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences(comparison))
    return f"{FORMATS['markdown'](table(comparison))}\n\n{lines}"


def latex(comparison: Comparison) -> str:
    """The tabular, with the sentences as comments above it."""
    return "\n".join([*(f"% {one_line(sentence)}" for sentence in sentences(comparison)), as_latex(table(comparison))])


def document(comparison: Comparison, picture: str, figure: Figure | None = None) -> Document:
    """The whole comparison, for a page or a file in Markdown. figure: its curves, if they are drawn already."""
    figures, found = table(comparison), as_table(comparison.differences, comparison.names)
    drawing = Picture(
        "Validation loss by step, by tokens and by time",
        {"curves": lambda: figure or overlay(comparison.groups)},
        picture,
    )
    concluded = [Paragraph(verdict.sentence) for verdict in comparison.conclusions]
    rest = [*(verdict.sentence for verdict in comparison.details), *comparison.notes]
    warned = [Paragraph(note, "notice") for note in rest if note.startswith("warning: ")]
    details = [Paragraph(note, "soft") for note in rest if not note.startswith("warning: ")]
    if not concluded:  # notes are all that there is to say about one group
        concluded, details = details, []
    sections = [
        PageSection("Figures", [grid(figures), Paragraph("Mean ± standard deviation over seeds.", "soft"), *details]),
        PageSection("Curves", [drawing]),
    ]
    if len(comparison.groups) > 1:
        nothing = Paragraph("Nothing: settings, data, code and environment are the same.")
        sections.append(PageSection("What differed", [grid(found) if found.rows else nothing]))
    return Document(" / ".join(comparison.names), [*concluded, *warned], sections)


def grid(shown: Table) -> PageTable:
    return PageTable(
        shown.columns, [[Cell(cell, "mark" if cell[:1].isdigit() else "") for cell in row] for row in shown.rows]
    )
