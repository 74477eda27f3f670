"""How an encoder marks the turns of a conversation: pieces in its own format, and the marks found again in ids.

With our own special tokens each mark is one id. A pretrained model has a format of its own, in which a mark may be several
ids or none, and in which three more may stand, see below. `marks_of(encoder)` has them all, name -> ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from core.chat.conversation import ASSISTANT, BOS, END, OPENS, SYSTEM, TOOL, USER, Piece
from core.encoders.base import Encoder
from core.encoders.special import marks_of

GAP = "gap"  # between the <|end|> of a turn and what opens the next one
NO_SYSTEM = "no system"  # behind <|bos|> where there is no system message, such as a default one
SYSTEM_END = "system end"  # in place of <|end|> and <|user|>, where the system message stands inside the user's turn
# The marks that are found again in ids. Where the system message stands in the user's turn, that is a turn of the user.
READ = (BOS, USER, *(opens for opens in OPENS.values() if opens != USER), TOOL, END)
Marks = Mapping[str, tuple[int, ...]]


class Mark(NamedTuple):
    """A mark in ids (N,): ids[begin:end]."""

    begin: int
    end: int
    name: str


def in_format(pieces: Sequence[Piece], encoder: Encoder) -> list[Piece]:
    """The pieces of a conversation as an encoder's format has them. Ours has them as they are."""
    marks = marks_of(encoder)
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1].text if found and found[-1].special else ""
        opens = piece.special and piece.text in OPENS.values()
        if opens and last == BOS and piece.text != SYSTEM and NO_SYSTEM in marks:
            found.append(Piece(NO_SYSTEM, learnt=False, special=True))
        elif opens and last == END and piece.text == USER and SYSTEM_END in marks and is_system_turn(found):
            found[-1] = Piece(SYSTEM_END, learnt=False, special=True)
            continue
        elif opens and last == END and GAP in marks:
            found.append(Piece(GAP, learnt=False, special=True))
        found.append(piece)
    return found


def is_system_turn(pieces: Sequence[Piece]) -> bool:
    """Whether the last turn is the system message: its mark, its text and <|end|>."""
    return len(pieces) > 2 and pieces[-3].special and pieces[-3].text == SYSTEM


def marked(ids: Sequence[int], encoder: Encoder) -> list[Mark]:
    """The marks in ids (N,), in order; of two that begin alike the longer one. The ids between are text, or a GAP.

    Marks that are written in ordinary tokens count only where they can stand: one that opens a turn where a turn can begin,
    <|tool|> in a turn of the assistant. So nobody opens a turn by writing a text.
    """
    marks = marks_of(encoder)
    known = [(name, marks[name]) for name in READ if marks.get(name)]
    known.sort(key=lambda mark: -len(mark[1]))
    by_first: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for name, mark in known:
        by_first.setdefault(mark[0], []).append((name, mark))
    in_text = {name for name, mark in known if encoder.decode(mark[:1])}
    tokens = [int(token) for token in ids]
    found: list[Mark] = []
    place, turn_begins, opened = 0, 0, ASSISTANT
    while place < len(tokens):
        for name, mark in by_first.get(tokens[place], ()):
            end = place + len(mark)
            stands = opened == ASSISTANT if name == TOOL else place == turn_begins
            if tuple(tokens[place:end]) == mark and (stands or name not in in_text):
                found.append(Mark(place, end, name))
                opened = name if name in OPENS.values() else opened
                turn_begins = end + len(marks.get(GAP, ())) if name == END else end if name == BOS else turn_begins
                place = end
                break
        else:
            place += 1
    return found


def find_mark(ids: Sequence[int], mark: Sequence[int]) -> int:
    """Where a mark of at least one id begins in ids (N,); N if it is not there."""
    wanted = tuple(mark)
    for place, token in enumerate(ids):
        if token == wanted[0] and tuple(ids[place : place + len(wanted)]) == wanted:
            return place
    return len(ids)
