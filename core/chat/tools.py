"""Tools that a model calls while it writes: a call in, its result out, as text and as ids that are forced into the context.

The terminal, the chat page, the API, evaluation and rollouts all come through here. A tool takes a text and gives one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from core.chat.calculator import ERROR, calculate
from core.chat.conversation import ASSISTANT, END, Conversation, Message, Piece, pieces_of
from core.chat.marks import GAP, in_format
from core.chat.render import encode_pieces, marks_size, reply_of
from core.encoders.base import Encoder
from core.encoders.special import marks_of
from core.errors import UserError

Tool = Callable[[str], str]
Tools = Mapping[str, Tool]  # by their names
BUILT_IN: Tools = MappingProxyType({"calculator": calculate})
MOST_CALLS = 16  # in one answer; GSM8K's longest has 9
MOST_CHARACTERS = 500  # of a result
CUT = " ..."


def result_of(call: str, tools: Tools, encoder: Encoder) -> str:
    """What a call gives: text that the encoder can encode, MOST_CHARACTERS of it at most.

    call: "NAME ARGUMENT". A name that is no tool gives an error, as text, with the names that are. The tools themselves give
    their errors as text.
    """
    name, _, argument = call.partition(" ")
    tool = tools.get(name)
    found = f"{ERROR}no tool is called {name[:40]!r}; there is {', '.join(tools)}" if tool is None else tool(argument)
    return encodable(cut(found), encoder)


def cut(text: str) -> str:
    """A text of MOST_CHARACTERS at most."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - len(CUT)] + CUT


def encodable(text: str, encoder: Encoder) -> str:
    """A text without what the encoder cannot encode: whole, or its words, or of a word the characters that are known."""
    text = text.encode("utf-8", "replace").decode()  # halves of characters
    if can_encode(text, encoder):
        return text
    words = [found for word in text.split() if (found := known_part(word, encoder))]
    return next((found for found in (" ".join(words), "".join(words)) if can_encode(found, encoder)), "")


def known_part(word: str, encoder: Encoder) -> str:
    """A word, or the characters of it that can be encoded."""
    if can_encode(word, encoder):
        return word
    found = "".join(character for character in word if can_encode(character, encoder))
    return found if can_encode(found, encoder) else ""


def can_encode(text: str, encoder: Encoder) -> bool:
    """Whether an encoder has ids for a text."""
    try:
        encoder.encode(text)
    except UserError:
        return False
    return True


def responder(encoder: Encoder, tools: Tools) -> Callable[[Sequence[int]], list[int]]:
    """What to force into the context where a model has ended a turn, as `core.sampling.rollouts.roll_out` asks for it.

    The function gets all ids that stand behind the prompt, up to <|end|>. If the turn that has just ended calls a tool, it
    gives the ids of the result and of <|assistant|>, behind which the model goes on. Else, and after MOST_CALLS calls, none.
    Raises UserError for an encoder without special tokens.
    """
    marks = marks_of(encoder)
    end, opening_size = marks[END][0], marks_size((GAP, ASSISTANT), encoder)

    def respond(written: Sequence[int]) -> list[int]:
        ends = [place for place, token in enumerate(written) if token == end]
        # Every call before has two: that of its turn, and that of its result.
        calls, begin = len(ends) // 2, ends[-2] + 1 + opening_size if len(ends) > 1 else 0
        call = reply_of(written[begin:], encoder).call
        if not call or calls >= MOST_CALLS:
            return []
        result = Conversation((Message("tool", result_of(call, tools, encoder)),))
        opening = Piece(ASSISTANT, learnt=False, special=True)
        ended = Piece(END, learnt=True, special=True)  # the model has written it: what stands behind it is forced
        _, *forced = in_format([ended, *pieces_of(result)[1:], opening], encoder)
        return [int(token) for part in encode_pieces(forced, encoder) for token in part]

    return respond
