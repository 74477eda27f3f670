"""What a report says, apart from its form: written once, and shown as a web page (page.py) and in Markdown (markdown.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """Of a table. kind: a class of page.STYLE; share: 0 to 1, drawn as a bar; link: a relative path."""

    text: str
    kind: str = ""
    share: float | None = None
    link: str = ""


@dataclass(frozen=True)
class Paragraph:
    """kind: "", "soft", "lead" (what the run is to find out) or "notice" (something is wrong)."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Cards:
    """Figures that matter: (value, name, remark)."""

    figures: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Grid:
    """A table; folded: under this title, to be opened."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str = ""


@dataclass(frozen=True)
class Picture:
    """drawings: label -> what draws it, for a page; file: the picture beside the report, for Markdown."""

    label: str
    drawings: Mapping[str, Callable[[], Figure]]
    file: str


@dataclass(frozen=True)
class Code:
    """Text as it stands. start: what it began with, which was given."""

    text: str
    start: str = ""


Part = Paragraph | Cards | Grid | Picture | Code


@dataclass(frozen=True)
class Section:
    """A title and what stands under it; one without parts is not shown."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Document:
    """head: parts above the first section."""

    title: str
    head: Sequence[Part]
    sections: Sequence[Section]
