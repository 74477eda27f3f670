"""Write a report as Markdown that reads well as plain text and on GitHub."""

from __future__ import annotations

import re
from urllib.parse import quote

from core.report.document import Cards, Cell, Code, Dialogue, Document, PageTable, Paragraph, Part
from core.report.tables import Table, as_markdown, markdown_text, pipes

BAR = 20  # characters of a full bar


def markdown(document: Document) -> str:
    """The whole text."""
    blocks = [f"# {markdown_text(document.title)}", *map(block, document.head)]
    for section in document.sections:
        shown = [text for part in section.parts if (text := block(part))]
        if shown:
            blocks += [f"## {markdown_text(section.title)}", *shown]
    return "\n\n".join(text for text in blocks if text) + "\n"


def block(part: Part) -> str:
    """One part; "" if it has no content."""
    if isinstance(part, Paragraph):
        text = markdown_text(part.text)
        return f"**{text}**" if part.kind == "lead" and text else f"> {text}" if part.kind == "notice" else text
    if isinstance(part, Cards):
        rows = [[value, name, remark] for value, name, remark in part.figures]
        return as_markdown(Table(["", "", ""], rows)) if rows else ""
    if isinstance(part, PageTable):
        return grid(part)
    if isinstance(part, Dialogue):
        return dialogue(part)
    if isinstance(part, Code):
        return fence(part)
    return f"![{markdown_text(part.label)}]({quote(part.file)})" if part.drawings else ""


def grid(part: PageTable) -> str:
    """A table. Folded tables are shown open."""
    if not part.rows:
        return ""
    columns = part.columns or [""] * len(part.rows[0])
    plain = Table(columns, [[cell.text for cell in row] for row in part.rows])
    marks = ["---:" if plain.is_numeric(index) else "---" for index in range(len(columns))]
    return pipes([list(map(markdown_text, columns)), marks, *([cell_text(cell) for cell in row] for row in part.rows)])


def cell_text(cell: Cell) -> str:
    if cell.share is not None:
        return "█" * round(BAR * min(1.0, max(0.0, cell.share)))
    text = "<br>".join(map(markdown_text, cell.text.strip().splitlines()))
    text = f"[{text}]({quote(cell.link)})" if cell.link else text
    return f"{text}<br>{markdown_text(cell.note)}" if cell.note else text


def dialogue(part: Dialogue) -> str:
    """A conversation as a list of turns, which also reads well as plain text. Folded ones are shown open."""
    turns = [
        f"- **{markdown_text(turn.role)}:** {markdown_text(turn.text)}"
        + f" ({markdown_text(turn.note)})" * bool(turn.note)
        for turn in part.turns
    ]
    title = [markdown_text(part.folded), ""] if part.folded else []
    return "\n".join([*title, *turns]) if turns else ""


def fence(part: Code) -> str:
    """Text unchanged, in a fence that it cannot close."""
    text = (part.start + part.text).rstrip("\n")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{text}\n{marks}" if text else ""
