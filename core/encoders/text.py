"""Helpers for encoders: UTF-8, safe places to cut text, and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from core.errors import UserError

END = "<|end|>"  # the end token of char and words in listings; text never becomes its id
# Unicode's White_Space: what \s means in the regular expressions of tiktoken and tokenizers. Python's \s also
# has U+001C to U+001F.
WHITESPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
CUT = re.compile(f"(?<=[^{WHITESPACE}])(?=[{WHITESPACE}])")


def utf8(text: str) -> bytes:
    """UTF-8 of a text. Raises UserError for half a surrogate pair, which no UTF-8 file can hold."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise surrogate(text, error.start) from None


def code_points(text: str) -> bytes:
    """UTF-32 of a text, little-endian, 4 bytes per character. Raises UserError as `utf8` does."""
    try:
        return text.encode("utf-32-le")
    except UnicodeEncodeError as error:
        raise surrogate(text, error.start) from None


def surrogate(text: str, position: int) -> UserError:
    """The error for a lone surrogate: such text comes from a broken decoder, never from a valid file."""
    return UserError(
        f"{text[position]!r} at {line_and_column(text, position)} is half of a surrogate pair, not a character",
        remedy="Read the text again as UTF-8, with errors='replace' if it is damaged.",
    )


def unknown(what: str, text: str, position: int) -> UserError:
    """The error for a character or word that is not in a vocabulary. what: names it, such as "character 'z'"."""
    return UserError(
        f"{what} at {line_and_column(text, position)} is not in the vocabulary",
        remedy="Leave it out, or prepare the data again with text that contains it.",
    )


def made_elsewhere(kind: str) -> UserError:
    """The error for an encoder that comes with data of another program, and cannot be learnt from text."""
    return UserError(
        f'encoder = "{kind}" only reads data that another program encoded',
        place="prepare.encoder",
        remedy="Choose char, words, bytes, bpe or gpt2.",
    )


def wrong_state(kind: str, state: dict[str, Any]) -> UserError:
    """The error for a state of another kind of encoder, or one that was edited by hand."""
    return UserError(
        f"this is not the state of a '{kind}' encoder: it has {', '.join(map(repr, sorted(state))) or 'nothing'}",
        remedy="Prepare the data again.",
    )


def line_and_column(text: str, position: int) -> str:
    """The position of a character, counted from 1, as an editor shows it."""
    line_start = text.rfind("\n", 0, position) + 1
    return f"line {text.count(chr(10), 0, position) + 1}, column {position - line_start + 1}"


def spans(text: str, size: int) -> Iterator[str]:
    """Cut a text into pieces of at least `size` (1 or more) characters; the last one may be shorter.

    Cuts are before whitespace that follows something else, where tokens of `bpe` and `gpt2` end, so the pieces get
    the same ids as the whole. A text without whitespace stays whole.
    """
    start = 0
    while len(text) - start > size and (cut := CUT.search(text, start + size)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
