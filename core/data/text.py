"""Read text in blocks and cut it into pieces without cutting a token."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from core.errors import UserError

Item = TypeVar("Item")
READ = 1 << 18  # bytes; with 1 << 22, malloc keeps up to 300 MB
PIECE = 1 << 17  # characters: small enough that two cores share a block, large enough that calls cost nothing
LOOK_AHEAD = 10_000  # characters in which a line should end
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
GROUP = 16  # pieces that are encoded together


def read_text(path: Path, on_bytes: Callable[[bytes], object] = lambda block: None) -> Iterator[str]:
    """The text of a file in blocks, with line ends as \\n (as open() and nanoGPT read them) and without a byte order mark.

    on_bytes gets every block of bytes first. Raises UserError with the byte offset if the file is not UTF-8, or if it
    holds NUL characters, which are no text.
    """
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    rest, begin, final = b"", 0, False
    with path.open("rb") as file:
        while not final:
            block = file.read(READ)
            on_bytes(block)
            final, data = not block, rest + block
            if not begin and data.startswith(UTF_16_MARKS):
                raise not_utf8(path, "it is UTF-16, by its first two bytes", "UTF-16")
            try:
                text, used = codecs.utf_8_decode(data, "strict", final)
            except UnicodeDecodeError as error:
                found = f"{error.reason} at byte {begin + error.start:,} (0x{data[error.start]:02x})"
                raise not_utf8(path, found, "ISO-8859-1") from None
            if "\0" in text:
                at = begin + data.index(0)
                raise not_utf8(
                    path,
                    f"a NUL character at byte {at:,}. UTF-16 without a byte order mark looks like this",
                    "UTF-16LE" if at % 2 else "UTF-16BE",  # the high byte of an ASCII character is zero
                )
            if not begin:
                text = text.removeprefix("\ufeff")
            rest, begin = data[used:], begin + used
            yield line_ends.decode(text, final=final)


def not_utf8(path: Path, found: str, likely: str) -> UserError:
    """The error for a file that is no UTF-8 text. likely: the encoding that it probably has, as iconv calls it."""
    return UserError(
        f"not UTF-8 text: {found}",
        place=str(path),
        remedy=f"Save it as UTF-8, for example: iconv -f {likely} -t UTF-8 OLD > NEW",
    )


def pieces(texts: Iterable[str], size: int = PIECE) -> Iterator[str]:
    """The same text in pieces of about `size` characters, cut where tokens of words and of BPE end too."""
    waiting: list[str] = []
    length = 0
    for text in texts:
        waiting.append(text)
        length += len(text)
        if length < 2 * size:
            continue
        whole = "".join(waiting)
        begin = 0
        while len(whole) - begin >= 2 * size:
            cut = safe_cut(whole, begin + size, begin + 2 * size)
            yield whole[begin:cut]
            begin = cut
        waiting = [whole[begin:]]
        length = len(whole) - begin
    if length:
        yield "".join(waiting)


def safe_cut(text: str, low: int, high: int) -> int:
    """A position in low..high to cut at: after a line break between two visible characters, else before a space
    between two, else high. The first is where every encoder here ends a token too."""
    for mark, behind in (("\n", 1), (" ", 0)):
        found = high - 1
        for _ in range(1000):  # more would be slow in text that is all blank
            found = text.rfind(mark, low, found)
            if found < low:
                break
            if not text[found - 1].isspace() and not text[found + 1].isspace():
                return found + behind
    return high


def first_and_rest(texts: Iterable[str], cut: int, *, exact: bool) -> tuple[Iterator[str], Iterator[str]]:
    """The first `cut` characters, and the rest. The first must be read to its end before the rest is read.

    exact: cut there. Otherwise cut where the line ends that contains the cut, or at least the word.
    """
    source = iter(texts)
    left_over: list[str] = []

    def first() -> Iterator[str]:
        remaining = cut
        for text in source:
            if len(text) < remaining:
                remaining -= len(text)
                yield text
                continue
            ahead = text[remaining:]
            if not exact:
                for more in source:
                    ahead += more
                    if len(ahead) >= LOOK_AHEAD:
                        break
            inside = not exact and not text[remaining - 1].isspace()
            shift = word_end(text[:remaining], ahead[:LOOK_AHEAD]) if inside else 0
            whole = text[:remaining] + ahead
            left_over.append(whole[remaining + shift :])
            yield whole[: remaining + shift]
            return

    def rest() -> Iterator[str]:
        yield from left_over
        yield from source

    return first(), rest()


def word_end(before: str, behind: str) -> int:
    """How far to move a cut between two texts so that it cuts no word: to the next line, a blank after it, or one before it.

    0 where there is none of them.
    """
    line = behind.find("\n") + 1
    if 0 < line < len(behind):
        return line
    if blank := re.search(r"\s", behind):
        return blank.start()
    blanks = re.match(r".*\s", before, re.DOTALL)
    return blanks.end() - len(before) if blanks else 0


def grouped(items: Iterable[Item], size: int = GROUP) -> Iterator[list[Item]]:
    """Lists of `size` items; the last may be shorter."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group
