"""Files that a prepare.py asks for by address: downloaded once, kept and checked; and lists of addresses with numbers in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from core.data.source import Source
from core.data.tables import ENDINGS, Row, rows_of
from core.download import fetch
from core.errors import UserError

NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")  # as a shell has it
CHECKED = re.compile(r"sha256=[0-9a-f]{64}")
LOCAL = ("127.0.0.1", "localhost", "::1")  # what a machine serves to itself needs no encryption


def fetched(source: Source, address: str) -> Path:
    """The path of a file that documents() asks for.

    address: https://..., which is downloaded into prepare.raw_dir unless it is there, and checked each time. It may end in
    #sha256=..., the file's checksum; without one, that of the first download counts from then on. Or a file, relative to the
    experiment's folder. Raises UserError where there is no such file, or another than the checksum says.
    """
    if "://" not in address:
        return local_file(source, address)
    url, _, mark = address.partition("#")
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL):
        raise UserError("is not an https address", place=address, remedy="Give https://... or a file.")
    if mark and not CHECKED.fullmatch(mark):
        raise UserError(
            f"#{mark} is no checksum",
            place=address,
            remedy="Write #sha256= and 64 hexadecimal digits, or leave it out.",
        )
    target = source.raw_dir / place_of(url)
    if file := next((folder for folder in target.parents if folder.is_file()), None):
        raise UserError(
            f"cannot be kept at {target}: {file} is a file",
            place=address,
            remedy="Move that file, or set prepare.raw_dir.",
        )
    fetch(url, target, mark.removeprefix("sha256="), target.name, source.listener)
    return target


def local_file(source: Source, name: str) -> Path:
    """The path of a file that is not downloaded. Raises UserError if there is none."""
    path = source.experiment.path(name)
    if not path.is_file() and Path(name).is_file():  # typed in a shell, relative to the current folder
        path = Path(name).absolute()
    if not path.is_file():
        raise UserError("there is no such file", place=str(path), remedy="Give https://... or a file.")
    return path


def place_of(address: str) -> Path:
    """Where a download is kept, relative to prepare.raw_dir: the host, then the path there.

    So no two addresses share a file: where a character had to be replaced, a part of the address's checksum is in the name.
    """
    parts = urlsplit(address)
    names = unquote(parts.path).strip("/").split("/")
    plain = [re.sub(r"^\.+|[^\w.=+-]", "_", name) or "_" for name in names]
    if parts.query or plain != names:
        name = PurePosixPath(plain[-1])
        plain[-1] = f"{name.stem}-{hashlib.sha256(address.encode()).hexdigest()[:12]}{name.suffix}"
    return Path(parts.netloc.replace(":", "_"), *plain)


def numbered(pattern: str) -> list[str]:
    """The addresses or files of a pattern: with {000..169} in it, one for each number, written with as many digits.

    Raises UserError for numbers that go down.
    """
    found = NUMBERS.search(pattern)
    if found is None:
        return [pattern]
    first, last = found[1], found[2]
    if int(last) < int(first):
        raise UserError(f"{found[0]} holds no numbers", place=pattern, remedy="Write the smaller number first.")
    digits = len(first) if first.startswith("0") or len(first) == len(last) else 0
    names = (f"{number:0{digits}}" for number in range(int(first), int(last) + 1))
    return [each for name in names for each in numbered(pattern[: found.start()] + name + pattern[found.end() :])]


def table_rows(path: Path) -> Iterator[Row]:
    """The rows of a file of JSON lines, CSV, TSV or Parquet, one after the other: it may be larger than memory.

    Raises UserError for another ending, and where the file is damaged.
    """
    kind = ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise UserError("is no table", place=str(path), remedy=f"Its name must end in {', '.join(ENDINGS)}.")
    for row, _ in rows_of(path, kind):
        yield row
