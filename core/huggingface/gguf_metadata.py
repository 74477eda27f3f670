"""Read the metadata of a GGUF file: key -> number, text, bool or list. Its tensors are not read.

A file begins with "GGUF", its version, the numbers of tensors and of keys, then the keys, each with a type and a value; all
little-endian. Source: ggml-org/ggml, docs/gguf.md, version 3 (version 2 is read alike).
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# The type's number -> how struct calls it. 8 is text, 9 a list, 7 a bool.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
MOST_KEYS, MOST_ITEMS, MOST_BYTES = 100_000, 1 << 24, 1 << 28  # more than any real file has


class Reader:
    """Reads values one after the other, and takes the checksum of what it reads."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left, self.digest = file, size, hashlib.sha256()

    def bytes(self, count: int) -> bytes:
        """The next bytes. Raises ValueError if there are not so many."""
        if count > min(self.left, MOST_BYTES):
            raise ValueError(f"{count:,} bytes are to follow, and {self.left:,} are left")
        data = self.file.read(count)
        self.left -= count
        self.digest.update(data)
        return data

    def number(self, form: str) -> Any:
        """A number, as struct calls it."""
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(form)))[0]

    def text(self) -> str:
        """A text, with its length before it."""
        return self.bytes(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A value of a type. Raises ValueError for an unknown one."""
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            return self.list(self.number("I"), self.number("Q"))
        if kind not in NUMBERS:
            raise ValueError(f"a value has the unknown type {kind}")
        return self.number(NUMBERS[kind])

    def list(self, kind: int, count: int) -> list[Any]:
        """So many values of one type. Lists in lists are no part of any file that is in use."""
        if kind == LIST or count > MOST_ITEMS:
            raise ValueError(f"a list of {count:,} values of the type {kind}")
        if kind in NUMBERS:
            form = f"<{count}{NUMBERS[kind]}"
            return list(struct.unpack(form, self.bytes(struct.calcsize(form))))
        return [self.value(kind) for _ in range(count)]


def read_metadata(path: Path) -> dict[str, Any]:
    """Key -> value of a GGUF file. Raises UserError for a file that is none, or is damaged."""
    return read(path)[0]


def metadata_hash(path: Path) -> str:
    """SHA-256, hexadecimal, of the metadata: of megabytes where the file has gigabytes. Raises UserError as `read_metadata`."""
    return read(path)[1]


def read(path: Path) -> tuple[dict[str, Any], str]:
    """Key -> value, and the SHA-256 of what was read. Raises UserError as `read_metadata`."""
    with path.open("rb") as file:
        reader = Reader(file, path.stat().st_size)
        try:
            if reader.bytes(4) != MAGIC:
                raise ValueError("it does not begin with GGUF")
            version, _, keys = reader.number("I"), reader.number("Q"), reader.number("Q")
            if version not in VERSIONS or keys > MOST_KEYS:
                raise ValueError(f"version {version} with {keys:,} keys")
            found = {reader.text(): reader.value(reader.number("I")) for _ in range(keys)}
        except ValueError as error:
            raise UserError(
                f"no GGUF file that can be read: {error}",
                place=str(path),
                remedy="Download it again, or name another one.",
            ) from None
        return found, reader.digest.hexdigest()
