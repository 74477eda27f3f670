"""A comparison as it is printed and written: in goes a Comparison, out come text, Markdown, CSV, LaTeX, JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.report.comparison import Comparison, as_dict, numbers, table
from core.report.differences import as_table
from core.report.document import Cell, Document, Grid, Paragraph, Picture, Section
from core.report.markdown import markdown
from core.report.overlay import overlay
from core.report.page import page
from core.report.tables import FORMATS, Table, as_csv, as_latex, as_text, markdown_text, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")
# Suffix of --out -> the form of what is written there.
SUFFIXES = {".txt": "text", ".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json", ".html": "html"}

MOST_DIFFERENCES = 24  # on a terminal: runs of different kinds differ in every key


def as_form(comparison: Comparison, form: str, picture: str = "compare.png") -> str:
    """The comparison in a form of FORMATS, or as json or html. picture: its file, as seen from what is written."""
    forms: dict[str, Callable[[], str]] = {
        "text": lambda: text(comparison),
        "markdown": lambda: pasted(comparison),
        "csv": lambda: as_csv(numbers(comparison)),  # nothing else: a spreadsheet knows no comments
        "latex": lambda: latex(comparison),
        "json": lambda: json.dumps(as_dict(comparison), indent=2, ensure_ascii=False),
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
            f"'{path.name}' ends in {suffix or 'no suffix'}, which says nothing of what to write",
            place="--out",
            remedy=f"A picture ends in {' or '.join(PICTURES)}, a table in {', '.join(SUFFIXES)}.",
        )
    return SUFFIXES[suffix]


def sentences(comparison: Comparison) -> list[str]:
    """Verdicts, then what to beware of."""
    return [*(verdict.sentence for verdict in comparison.verdicts), *comparison.notes]


def text(comparison: Comparison) -> str:
    """For a terminal: figures, verdicts, and what differed."""
    parts = [as_text(table(comparison)), "\n".join(sentences(comparison))]
    if comparison.differences:
        found = narrow(as_table(comparison.differences, comparison.names))
        more = len(found.rows) - MOST_DIFFERENCES
        rest = f"\n... and {more} more; --out FILE.html or FILE.md has them all" if more > 0 else ""
        parts.append("What differed:\n" + as_text(Table(found.columns, found.rows[:MOST_DIFFERENCES])) + rest)
    else:
        parts.append("Nothing differed: settings, data, code and environment are the same.")
    return "\n\n".join(parts)


def narrow(found: Table, width: int = 44) -> Table:
    """Cells that a terminal's line has room for."""
    rows = [
        [cell if len(cell) <= width else cell[: width - 1] + "…" for cell in map(one_line, row)] for row in found.rows
    ]
    return Table(found.columns, rows)


def pasted(comparison: Comparison) -> str:
    """The table and the sentences, to be pasted into a README."""
    lines = "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences(comparison))
    return f"{FORMATS['markdown'](table(comparison))}\n\n{lines}"


def latex(comparison: Comparison) -> str:
    """The tabular, with the sentences as comments above it."""
    return "\n".join([*(f"% {one_line(sentence)}" for sentence in sentences(comparison)), as_latex(table(comparison))])


def document(comparison: Comparison, picture: str, figure: Figure | None = None) -> Document:
    """The whole comparison, for a page and for a file in Markdown. figure: its curves, where they are drawn already."""
    figures, found = table(comparison), as_table(comparison.differences, comparison.names)
    drawing = Picture(
        "Validation loss by step, by tokens and by time",
        {"curves": lambda: figure or overlay(comparison.groups)},
        picture,
    )
    verdicts = [Paragraph(verdict.sentence) for verdict in comparison.verdicts]
    notes = [Paragraph(note, "notice" if note.startswith("warning: ") else "soft") for note in comparison.notes]
    sections = [
        Section("Figures", [grid(figures), Paragraph("Mean ± standard deviation over seeds.", "soft")]),
        Section("Curves", [drawing]),
        Section(
            "What differed",
            [grid(found) if found.rows else Paragraph("Nothing: settings, data, code and environment are the same.")],
        ),
    ]
    return Document(" / ".join(comparison.names), [*verdicts, *notes], sections)


def grid(shown: Table) -> Grid:
    return Grid(
        shown.columns, [[Cell(cell, "mark" if cell[:1].isdigit() else "") for cell in row] for row in shown.rows]
    )
