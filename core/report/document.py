"""The content of a report, apart from its form. page.py writes it as a web page, markdown.py as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """A cell of a table. kind: a class of page.STYLE. share: 0 to 1, drawn as a bar. link: a relative path. note: a small
    line below the text."""

    text: str
    kind: str = ""
    share: float | None = None
    link: str = ""
    note: str = ""


@dataclass(frozen=True)
class Paragraph:
    """kind: "", "soft", "lead" (the question of the run) or "notice" (something is wrong)."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Cards:
    """The main figures: (value, name, remark)."""

    figures: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class PageTable:
    """A table. folded: the title under which it is hidden until it is opened."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str = ""


@dataclass(frozen=True)
class Picture:
    """drawings: label -> a function that draws it, for a page. file: the picture beside the report, for Markdown."""

    label: str
    drawings: Mapping[str, Callable[[], Figure]]
    file: str


@dataclass(frozen=True)
class Code:
    """Text in a monospaced font, unchanged. start: its given beginning."""

    text: str
    start: str = ""


@dataclass(frozen=True)
class Said:
    """A turn of a conversation. note: a remark on it."""

    role: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Dialogue:
    """A conversation, turn by turn. folded: the title under which it is hidden until it is opened."""

    turns: Sequence[Said]
    folded: str = ""


Part = Paragraph | Cards | PageTable | Picture | Code | Dialogue


@dataclass(frozen=True)
class PageSection:
    """A title and its parts. A section without parts is not shown."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Document:
    """head: parts above the first section."""

    title: str
    head: Sequence[Part]
    sections: Sequence[PageSection]
