"""Tables of text cells, written for a terminal, in Markdown, in LaTeX or as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.tracking.figures import loss_text

# Characters that LaTeX reads as commands, and how to write them as text.
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$",
}  # fmt: skip
NUMBER = re.compile(r"^[-+]?[\d,.]+([eE][-+]?\d+)?( ?%)?( ±.*)?( of .*)?( \(.*\))?$|^$|^-$")


@dataclass(frozen=True)
class Table:
    """columns: their titles; rows: as many cells each."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def is_numeric(self, column: int) -> bool:
        """Whether a column holds only numbers, which are aligned to the right."""
        cells = [row[column] for row in self.rows]
        return any(cells) and all(NUMBER.match(cell) for cell in cells)


def as_text(table: Table) -> str:
    """Columns aligned by spaces."""
    lines = [[one_line(cell) for cell in line] for line in (table.columns, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numeric = [table.is_numeric(index) for index in range(len(widths))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def as_markdown(table: Table) -> str:
    """A table in GitHub's Markdown."""
    marks = ["---:" if table.is_numeric(index) else "---" for index in range(len(table.columns))]
    lines = [[markdown_text(cell) for cell in line] for line in (table.columns, *table.rows)]
    return pipes([lines[0], marks, *lines[1:]])


def pipes(lines: Sequence[Sequence[str]]) -> str:
    """Lines of a table in Markdown. The cells are Markdown already."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_csv(table: Table) -> str:
    """Comma-separated values, RFC 4180 with line feeds."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue().rstrip("\n")


def as_latex(table: Table) -> str:
    """A tabular with booktabs rules."""
    marks = "".join("r" if table.is_numeric(index) else "l" for index in range(len(table.columns)))
    lines = [" & ".join(map(latex_cell, line)) + r" \\" for line in (table.columns, *table.rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{marks}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": as_text, "markdown": as_markdown, "csv": as_csv, "latex": as_latex,
}  # fmt: skip


def shown(value: object) -> str:
    """A value as a cell: - for None, yes or no, four decimals, or its text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return loss_text(value) if isinstance(value, float) else one_line(str(value))


def one_line(text: str) -> str:
    return " ".join(text.split())


def markdown_text(text: str) -> str:
    """Text escaped for Markdown, also in a table."""
    return re.sub(r"([\\`*_|<\[\]#])", r"\\\1", one_line(text))


def latex_cell(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in one_line(text))
