"""Read documents from the rows of a table: JSON lines, CSV, TSV or Parquet, with names for its columns.

A row is an Example (columns prompt and completion, perhaps group), a Conversation (messages, perhaps group) or a text (text).
A column split says which side it is on. [prepare.columns] names the columns that are called otherwise.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.chat.conversation import Conversation, Message
from core.data.documents import Document, Example
from core.data.text import read_text
from core.errors import UserError, did_you_mean
from core.optional import installing

ENDINGS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
ROLES = ("prompt", "completion", "group", "text", "messages", "split")
NEEDED = (("prompt", "completion"), ("messages",), ("text",))  # the columns of each kind of document
SIDES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "test": "test",
}
Row = Mapping[str, Any]
Rows = Iterator[tuple[Row, str]]  # each with its place
OnBytes = Callable[[bytes], object]
ROWS_AT_ONCE = 1024  # of Parquet, so that memory does not grow with the file


def lines(path: Path, on_bytes: OnBytes) -> Iterator[str]:
    """The lines of a text file, each with its line break."""
    rest = ""
    for text in read_text(path, on_bytes):
        *whole, rest = (rest + text).split("\n")
        yield from (f"{line}\n" for line in whole)
    if rest:
        yield rest


def json_rows(path: Path, on_bytes: OnBytes) -> Rows:
    """The objects of a file with one JSON object per line. Blank lines are skipped."""
    for number, line in enumerate(lines(path, on_bytes), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", place=place, remedy="Each line is one JSON object.") from None
        if not isinstance(row, dict):
            raise UserError(
                f"{type(row).__name__} instead of an object", place=place, remedy='Each line is like {"text": "..."}.'
            )
        yield row, place


def csv_rows(path: Path, on_bytes: OnBytes, delimiter: str) -> Rows:
    """The rows below a header. A CSV whose header has semicolons or tabs and no comma, as Excel writes some, is read by those."""
    source = lines(path, on_bytes)
    first = next(source, "")
    if delimiter == "," and "," not in first:
        delimiter = next((other for other in ";\t" if other in first), ",")

    def with_first() -> Iterator[str]:
        yield first
        yield from source

    reader = csv.reader(with_first(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    ended = 0  # the line in which the last record ended
    try:
        for fields in reader:
            place, ended = f"{path}:{ended + 1}", reader.line_num
            if not fields:
                continue
            if header is None:
                header = [name.strip() for name in fields]
                if twice := [name for name, count in Counter(header).items() if count > 1]:
                    raise UserError(
                        f"two columns are called '{twice[0]}'", place=place, remedy="The first line names the columns."
                    )
                continue
            if len(fields) != len(header):
                raise UserError(
                    f"{len(fields)} fields, but the header has {len(header)}",
                    place=place,
                    remedy='Put a field that holds a separator in double quotes: "1, exactly".',
                )
            yield dict(zip(header, fields, strict=True)), place
    except csv.Error as error:
        raise UserError(
            f"not {path.suffix.lstrip('.').upper() or 'CSV'}: {error}",
            place=f"{path}:{ended + 1}",
            remedy="Quotes inside a quoted field are doubled, and each one is closed. A field has at most 131,072 characters; JSON lines may have more.",
        ) from None


def parquet_rows(path: Path, on_bytes: OnBytes) -> Rows:
    """The rows of a Parquet file. Raises UserError where pyarrow is not installed."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(
            "reading Parquet needs pyarrow, which is not installed",
            place='prepare.format = "parquet"',
            remedy=f"Install it: {installing('parquet')}",
        ) from None
    if on_bytes is not ignored:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                on_bytes(block)
    try:
        number = 0
        with (
            path.open("rb") as file,
            ParquetFile(file, buffer_size=1 << 20) as table,
        ):  # as a file of Python's: prepare notes those
            for batch in table.iter_batches(ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"{path}, row {number:,}"
    except (ArrowException, OSError) as error:
        raise UserError(f"not Parquet: {error}", place=str(path), remedy="Write it again.") from None


def ignored(block: bytes) -> None:
    """Nobody wants to know what was read."""


def rows_of(path: Path, kind: str, on_bytes: OnBytes = ignored) -> Rows:
    """The rows of a table of this format, each with its place, one after the other: a file may be larger than memory.

    Raises UserError where the file is damaged.
    """
    if kind == "jsonl":
        return json_rows(path, on_bytes)
    if kind == "parquet":
        return parquet_rows(path, on_bytes)
    return csv_rows(path, on_bytes, "\t" if kind == "tsv" else ",")


class RowReader:
    """Turns rows into documents, and counts what it leaves out.

    skipped: rows without text by column. unused: columns that are not read.
    """

    def __init__(self, columns: Mapping[str, str], place: str, separator: str = "") -> None:
        """columns: [prepare.columns]. place: of it, for errors. separator: text to put at the end of each prompt."""
        self.given, self.place, self.separator = columns, place, separator
        self.known: set[str] = set()
        self.endings: set[str] = set()
        for role, name in columns.items():
            if role not in ROLES or not isinstance(name, str):
                raise UserError(
                    f"unknown key 'prepare.columns.{role}'"
                    if role not in ROLES
                    else f"{role} = {name!r} is no column name",
                    place=place,
                    remedy=f"{did_you_mean(role, ROLES) if role not in ROLES else ''} The keys are {', '.join(ROLES)}.".strip(),
                )
        self.named: dict[str, str] | None = None
        self.skipped: Counter[str] = Counter()
        self.unused: list[str] = []

    def settle(self, names: list[str]) -> dict[str, str]:
        """The column of each role, for a table with these columns. Raises UserError where there is nothing to learn."""
        for role, name in self.given.items():
            if name not in names:
                raise UserError(
                    f"no column is called '{name}', which prepare.columns.{role} names",
                    place=self.place,
                    remedy=f"{did_you_mean(name, names)} The columns are {', '.join(names)}.",
                )
        plain = {name.strip().lower(): name for name in reversed(names)}  # Prompt is a column called prompt, too
        named = {
            role: self.given.get(role, plain.get(role, "")) for role in ROLES if role in self.given or role in plain
        }
        kinds = [kind for kind in NEEDED if all(role in named for role in kind)]
        kinds.sort(key=lambda kind: -sum(role in self.given for role in kind))  # what is named counts more
        if not kinds:
            raise UserError(
                f"no column is called prompt and completion, messages, or text: they are {', '.join(names)}",
                place=self.place,
                remedy="Name them, such as `prepare.columns.prompt=NAME` and `prepare.columns.completion=NAME`, "
                "or `prepare.columns.text=NAME`.",
            )
        others = ["split", *(["group"] if "text" not in kinds[0] else [])]
        chosen = {role: named[role] for role in (*kinds[0], *others) if role in named}
        self.unused, self.known = [name for name in names if name not in chosen.values()], set(names)
        return chosen

    def see_others(self, row: Row, place: str) -> None:
        """Note columns that the first row did not have. Raises UserError for one that would have been read."""
        for name in row:
            if name not in self.known and (name in self.given.values() or name in ROLES):
                raise UserError(
                    f"has '{name}', which the first row does not have",
                    place=place,
                    remedy="Give it to every row, also where it is null, so that the first one shows what is to be read.",
                )
            if name not in self.known:
                self.known.add(name)
                self.unused.append(name)

    def read(self, row: Row, place: str) -> tuple[Document, str] | None:
        """A row's document and side, "" where no column says it; None if the row has no text, which is counted."""
        if self.named is None:
            self.named = self.settle(list(row))
        if not row.keys() <= self.known:
            self.see_others(row, place)
        for role, name in self.named.items():
            if name not in row:
                raise UserError(f"there is no '{name}'", place=place, remedy="Every row must have the same columns.")
            if role != "group" and (row[name] in (None, "", []) or row[name] != row[name]):  # NaN is not itself
                self.skipped[name] += 1
                return None
        side = self.side(row, place)
        if "messages" in self.named:
            group = row[self.named["group"]] if "group" in self.named else None
            graded = text_of(group, self.named["group"], place) if group is not None and group == group else ""
            return replace(conversation(row[self.named["messages"]], place), group=graded or None), side
        texts = {
            role: text_of(row[name], name, place)
            for role, name in self.named.items()
            if row[name] is not None and row[name] == row[name]
        }
        if "text" in texts:
            return ended(texts["text"]), side
        prompt = texts["prompt"] + self.separator
        if len(self.endings) < 2:
            self.endings.add(prompt[-1])
        return Example(prompt, ended(texts["completion"]), texts.get("group") or None), side

    def side(self, row: Row, place: str) -> str:
        """The side that the row's column names, or ""."""
        assert self.named is not None
        if "split" not in self.named:
            return ""
        value = row[self.named["split"]]
        side = SIDES.get(str(value).strip().lower())
        if side is None:
            raise UserError(
                f"{self.named['split']} is {value!r}, which is no side",
                place=place,
                remedy="Write train, val or test. A column of another meaning may have another name.",
            )
        return side

    def told(self) -> list[str]:
        """Sentences about what was left out."""
        left = [f"{count:,} rows without {name} are left out" for name, count in self.skipped.items()]
        if self.unused:
            left.append(f"columns that are not read: {', '.join(self.unused)}")
        if len(self.endings) > 1:
            left.append(
                "the prompts end in different characters, so nothing shows where an answer begins. To put something there, "
                'set prepare.separator, such as " = "'
            )
        return left


def ended(text: str) -> str:
    """The text with a line break at its end."""
    return text if text.endswith("\n") else f"{text}\n"


def text_of(value: Any, name: str, place: str) -> str:
    """A cell as text: numbers as JSON writes them. Raises UserError for anything else."""
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{name} has a NUL character: {value!r}"[:200], place=place, remedy="Leave it out.")
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return json.dumps(value)
    raise UserError(
        f"{name} is {type(value).__name__}, not text: {value!r}"[:200], place=place, remedy="Write it as text."
    )


def conversation(value: Any, place: str) -> Conversation:
    """A list of {"role": ..., "content": ...}, or its JSON. Raises UserError for anything else."""
    try:
        turns = json.loads(value) if isinstance(value, str) else value
        return Conversation([Message(str(turn["role"]), turn["content"], turn.get("call", "")) for turn in turns])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"no list of messages: {type(error).__name__}: {error}",
            place=place,
            remedy='Write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].',
        ) from None
