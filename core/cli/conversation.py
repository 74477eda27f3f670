"""One conversation of the data on a terminal, with what is learnt in it marked, and coloured where there are colours."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import click

WIDEST = 400  # characters of a row; more are cut out of its middle


def conversation_lines(account: dict[str, Any], *, colour: bool) -> Iterator[str]:
    """A conversation as rows of what is read and what is learnt, in turn, and the number of targets. Nothing for other data."""
    found, data = account["conversation"], account["data"]
    if not found:
        return
    yield from ("", "a conversation")
    more = f", the first {found['shown']:,} of them here" * (found["shown"] < found["tokens"])
    yield f"  {found['tokens']:,} tokens{more}; the loss is on {found['targets']:,} of them"
    for learnt, run in itertools.groupby(found["pieces"], key=lambda piece: piece["learnt"]):
        text = cut(printable("".join([piece["text"] for piece in run])))
        row = f"  {'learnt' if learnt else 'read':<8}{text}"
        yield click.style(row, fg="green" if learnt else None, dim=not learnt) if colour else row
    for side in ("train", "val"):
        targets, tokens = found[f"{side}_targets"], data[f"{side}_tokens"]
        yield f"  {side + ' targets':<22}{targets:,} of {tokens:,} tokens ({targets / tokens:.1%})"


def printable(text: str) -> str:
    """Text on one line, with characters that steer a terminal written as Python writes them."""
    return "".join([letter if letter.isprintable() else repr(letter)[1:-1] for letter in text])


def cut(text: str) -> str:
    """At most WIDEST characters."""
    return text if len(text) <= WIDEST else f"{text[: WIDEST // 2]} ... {text[-WIDEST // 2 :]}"
