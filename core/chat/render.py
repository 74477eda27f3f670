"""Conversations to ids and back. Training, evaluation and chat all come through here, so a turn has the same ids everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from core.chat.conversation import (
    ASSISTANT,
    BOS,
    END,
    OPENS,
    TOOL,
    USER,
    Conversation,
    Message,
    Piece,
    check_conversation,
    pieces_of,
)
from core.chat.marks import GAP, NO_SYSTEM, find_mark, in_format, marked
from core.encoders.base import Encoder, Ids
from core.encoders.special import has_special, marks_of
from core.errors import UserError


@dataclass(frozen=True, eq=False)
class Rendered:
    """A conversation as ids (N,), uint32, and whether the loss is on each, learnt (N,), bool."""

    ids: Ids
    learnt: npt.NDArray[np.bool_]


class WithIds(str):
    """A prompt as text for people to read, which knows its ids: the text alone would not become special tokens."""

    ids: tuple[int, ...]


class BegunText(WithIds):
    """A text, whose ids begin with the token that begins documents."""

    @classmethod
    def of(cls, ids: Sequence[int], encoder: Encoder) -> BegunText:
        """From ids (N,)."""
        made = cls(encoder.decode(ids))
        made.ids = tuple(ids)
        return made


class PromptText(WithIds):
    """A rendered prompt of a conversation, with its marks in the text."""

    @classmethod
    def of(cls, ids: Sequence[int], encoder: Encoder) -> PromptText:
        """From ids (N,)."""
        made = cls("".join([piece.text for piece in spelled(ids, [False] * len(ids), encoder)]))
        made.ids = tuple(ids)
        return made


def begun_text(text: str, begin: int | None, encoder: Encoder) -> str:
    """A prompt as documents begin in training: behind the id `begin`, where there is one. One that knows its ids stays.

    Raises UserError for text that cannot be encoded.
    """
    if begin is None or isinstance(text, WithIds):
        return text
    ids = [begin, *(int(token) for token in encoder.encode(text))]
    return PromptText.of(ids, encoder) if has_special(encoder) else BegunText.of(ids, encoder)


class AnswerText(str):
    """The assistant's last turn as text, which knows all of an answer that calls tools: ids (N,), without the last <|end|>,
    and learnt (N,), whether the loss is on each. The calls and their results stand before the last turn."""

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]

    @classmethod
    def of(cls, text: str, ids: Sequence[int], learnt: Sequence[bool]) -> AnswerText:
        """From the text of the last turn, and what stands behind the <|assistant|> that opens the answer, with its <|end|>."""
        made = cls(text)
        made.ids, made.learnt = tuple(ids[:-1]), tuple(learnt[:-1])
        return made


def answer_begins(ids: Ids, encoder: Encoder) -> int:
    """Where the answer to the user's last turn begins, in a conversation (N,) that the assistant ends: behind <|assistant|>."""
    marks = marked(ids.tolist(), encoder)
    asked = max(mark.begin for mark in marks if mark.name == USER)
    return min(mark.end for mark in marks if mark.name == ASSISTANT and mark.begin > asked)


def render(conversation: Conversation, encoder: Encoder) -> Rendered:
    """The ids of a whole conversation, as training sees them.

    Raises UserError for a conversation that is not valid, for text that cannot be encoded, and for an encoder without
    special tokens.
    """
    check_conversation(conversation)
    pieces = in_format(pieces_of(conversation), encoder)
    parts = encode_pieces(pieces, encoder)
    learnt = np.repeat([piece.learnt for piece in pieces], [len(part) for part in parts])
    return Rendered(np.concatenate(parts), learnt)


def render_prompt(conversation: Conversation, encoder: Encoder) -> Ids:
    """The ids (N,) after which the assistant writes: a history, then <|assistant|>. They are a prefix of what training sees.

    The history ends with a turn of the user, or with a tool's result. Raises UserError as `render`.
    """
    check_conversation(conversation, asks=True)
    opening = Piece(ASSISTANT, learnt=False, special=True)
    return np.concatenate(encode_pieces(in_format([*pieces_of(conversation), opening], encoder), encoder))


def encode_pieces(pieces: Sequence[Piece], encoder: Encoder) -> list[Ids]:
    """The ids of each piece. Text never becomes a special token. Raises UserError as `render`."""
    texts = iter(encoder.encode_batch([piece.text for piece in pieces if not piece.special]))
    if not any(piece.special for piece in pieces):
        return list(texts)
    marks = marks_of(encoder)
    if missing := {piece.text for piece in pieces if piece.special} - marks.keys():
        raise no_mark(min(missing))
    return [np.array(marks[piece.text], np.uint32) if piece.special else next(texts) for piece in pieces]


def no_mark(name: str) -> UserError:
    """The error for a turn that a model's own format does not have."""
    return UserError(
        f"the chat format of this model has nothing for {name}",
        place="prepare.special_tokens",
        remedy="Leave such turns out. A system message can stand at the beginning of the user's first turn.",
    )


def reply_of(ids: Sequence[int], encoder: Encoder) -> Message:
    """What the assistant wrote, as a turn: generated ids up to <|end|>, with the call if there is one."""
    marks = marks_of(encoder)
    written = [int(token) for token in ids]
    written = written[: find_mark(written, marks[END])]
    at = find_mark(written, marks[TOOL])
    call = " ".join(encoder.decode(written[at + len(marks[TOOL]) :]).split())
    return Message("assistant", encoder.decode(written[:at]), call)


def turns_of(ids: Sequence[int], encoder: Encoder) -> tuple[Message, ...]:
    """The turns of a rendered conversation, or of its beginning: what `render` made of them. A turn without text is left out."""
    roles = {opens: role for role, opens in OPENS.items()}
    found: list[Message] = []
    part = ""  # the mark that the text belongs to: it ends with <|end|>
    for text, _, special in spelled(ids, [False] * len(ids), encoder):
        if special:
            part = text
            found += [Message(roles[text], "")] if text in roles else []
        elif part == TOOL and found:
            found.append(replace(found.pop(), call=text))
        elif part in roles:
            found.append(replace(found.pop(), content=text))
    return tuple(turn for turn in found if turn.content or turn.call)


def trimmed(conversation: Conversation, encoder: Encoder, at_most: int) -> Conversation:
    """A conversation of at most `at_most` ids: the oldest turns leave, whole, each turn of the user with all that follows it.

    The system message stays. Raises UserError, with the length, if the last turns alone are longer, and as `render`.
    """
    check_conversation(conversation)
    last = conversation
    for kept in without_oldest(conversation):
        if not any(message.role == "assistant" for message in kept.messages):
            break  # nothing would be left to learn
        tokens = len(render(kept, encoder).ids)
        if tokens <= at_most:
            return conversation if len(kept.messages) == len(conversation.messages) else kept
        last = kept
    begin = next(message.content for message in last.messages if message.role == "user")
    raise UserError(
        f"the last turns of a conversation have {tokens:,} tokens, more than {at_most:,}: {begin[:60]!r}",
        remedy="Leave it out, or make its turns shorter.",
    )


def without_oldest(conversation: Conversation) -> Iterator[Conversation]:
    """A conversation without its oldest turns: first all of it, then from the second turn of the user on, and so on."""
    messages = conversation.messages
    head = messages[:1] if messages[0].role == "system" else ()
    for begin in [number for number, message in enumerate(messages) if message.role == "user"]:
        yield replace(conversation, messages=(*head, *messages[begin:]))


def shortened(conversation: Conversation, encoder: Encoder, at_most: int) -> tuple[Conversation, int]:
    """A history whose prompt has at most `at_most` ids, and the number of turns that were left out for it.

    The oldest turns leave, whole, each turn of the user with all that follows from it. The system message and the last
    turn of the user stay, even if they are too long. Raises UserError as `render_prompt`.
    """
    check_conversation(conversation, asks=True)
    sizes = [turn_size(message, encoder) for message in conversation.messages]
    around = marks_size((BOS, NO_SYSTEM, ASSISTANT), encoder)
    for kept in without_oldest(conversation):
        head = sizes[:1] if kept.messages[0].role == "system" else []
        if around + sum(head) + sum(sizes[len(sizes) - len(kept.messages) + len(head) :]) <= at_most:
            break
    return kept, len(conversation.messages) - len(kept.messages)


def turn_size(message: Message, encoder: Encoder) -> int:
    """The tokens of a turn, with its marks and what stands behind it."""
    pieces = pieces_of(Conversation((message,)))[1:]
    return sum(map(len, encode_pieces(pieces, encoder))) + marks_size((GAP,), encoder)


def marks_size(names: Sequence[str], encoder: Encoder) -> int:
    """The tokens of some marks; of those that the format does not have, none."""
    marks = marks_of(encoder)
    return sum(len(marks.get(name, ())) for name in names)


def spelled(ids: Sequence[int], learnt: Sequence[bool], encoder: Encoder) -> list[Piece]:
    """Ids (N,) as runs for people to read, each special or not, and learnt or not. Marks stand by their names."""
    tokens, marks = [int(token) for token in ids], marked(ids, encoder)
    runs: list[Piece] = []
    begin = 0
    for mark in [*marks, None]:
        end = len(tokens) if mark is None else mark.begin
        for is_learnt, run in groupby(zip(tokens[begin:end], learnt[begin:end], strict=True), lambda pair: pair[1]):
            runs.append(Piece(encoder.decode([token for token, _ in run]), bool(is_learnt)))
        if mark is not None:
            runs.append(Piece(mark.name, bool(learnt[mark.begin]), special=True))
            begin = mark.end
    return runs
