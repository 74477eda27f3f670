"""Conversations: turns with roles, what makes one valid, and how each turn is written in special tokens and text.

A conversation is written as <|bos|> and its turns. A turn is the special token of its role, its content and <|end|>:

    <|bos|><|system|>Be brief.<|end|><|user|>What is 3*4?<|end|>
    <|assistant|>Let me see. <|tool|>calculator 3*4<|end|><|result|>12<|end|><|assistant|>It is 12.<|end|>

The loss is on what the assistant writes: content, <|tool|>, call and <|end|>. It never is on <|assistant|>, which opens
the turn for it, nor on results, which the tool writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.errors import UserError, did_you_mean

BOS, SYSTEM, USER, ASSISTANT = "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>"
TOOL, RESULT, END = "<|tool|>", "<|result|>", "<|end|>"
SPECIAL = (BOS, SYSTEM, USER, ASSISTANT, TOOL, RESULT, END)  # in the order of their ids
OPENS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": RESULT}  # the token that opens a role's turn
FIRST: tuple[str, ...] = ("system", "user")
AFTER: dict[str, tuple[str, ...]] = {
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "tool": ("assistant",),
}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. role: "system", "user", "assistant", or "tool" for the result of a call.

    call: the tool call that ends a turn of the assistant, "NAME ARGUMENT", such as "calculator 3*4"; "" without one.
    """

    role: str
    content: str
    call: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns in order, perhaps with a system message first. The loss is on what the assistant writes.

    messages: also taken as a list. group: a slice for reporting. With a group, the assistant's last turn is the one right
    answer to what stands before it, and exact match is measured.
    """

    messages: Sequence[Message]
    group: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.messages, list):
            object.__setattr__(self, "messages", tuple(self.messages))  # so that equal conversations have one hash


class Piece(NamedTuple):
    """A part of a document that is encoded on its own. learnt: the loss is on it. special: text is a special token's name."""

    text: str
    learnt: bool
    special: bool = False


def pieces_of(conversation: Conversation) -> list[Piece]:
    """The pieces of a conversation in order, <|bos|> first."""
    pieces = [Piece(BOS, learnt=False, special=True)]
    for message in conversation.messages:
        learnt = message.role == "assistant"
        pieces.append(Piece(OPENS[message.role], learnt=False, special=True))
        if message.content:
            pieces.append(Piece(message.content, learnt))
        if message.call:
            pieces += [Piece(TOOL, learnt, special=True), Piece(message.call, learnt)]
        pieces.append(Piece(END, learnt, special=True))
    return pieces


def question_of(conversation: Conversation) -> str:
    """The system message and the first turn of the user, which decide the side of a split.

    Without a system message it is the user's text alone, so that an Example with this prompt stands on the same side.
    """
    texts = [message.content for message in conversation.messages[:2] if message.role in FIRST]
    return "\0".join(texts)


def check_conversation(conversation: Conversation, *, asks: bool = False) -> None:
    """Raise UserError, which names the turn, if a conversation is not valid.

    Order: perhaps one system message, then user and assistant in turn. After a turn of the assistant with a call comes a
    tool's result, then the assistant again. Only a tool's result may be empty, and the text before a call.
    asks: it must end where the assistant's turn begins; otherwise it must hold a turn of the assistant.
    """
    messages = conversation.messages
    before: Message | None = None
    for number, message in enumerate(messages, 1):
        check_message(message, f"turn {number}")
        check_order(message, before, number)
        before = message
    if before is None:
        raise UserError("the conversation is empty", remedy='Write at least Message("user", "text").')
    if asks and before.role not in ("user", "tool"):
        raise UserError(
            f"the conversation ends with a turn of the {before.role}, so there is nothing to answer",
            remedy="End it with a turn of the user, or with a tool's result.",
        )
    if not asks and not any(message.role == "assistant" for message in messages):
        raise UserError(
            "the assistant says nothing in this conversation, so there is nothing to learn",
            remedy='Add a Message("assistant", "text").',
        )


def check_message(message: Message, turn: str) -> None:
    """Raise UserError if a message is wrong in itself. turn: names it."""
    if message.role not in OPENS:
        raise UserError(
            f"{turn}: unknown role {message.role!r}",
            remedy=did_you_mean(message.role, list(OPENS)),
        )
    if message.call and message.role != "assistant":
        raise UserError(
            f"{turn}: the {message.role} calls a tool",
            remedy='Only the assistant calls tools; Message("tool", "text") is a call\'s result.',
        )
    if message.call != message.call.strip() or "\n" in message.call:
        raise UserError(
            f"{turn}: the call {message.call!r} is not one line without spaces around it",
            remedy='Write the name of the tool, a space and what it gets: call="calculator 3*4".',
        )
    if not message.content and not message.call and message.role != "tool":
        raise UserError(f"{turn}: the {message.role} says nothing", remedy="Leave the turn out, or give it text.")


def check_order(message: Message, before: Message | None, number: int) -> None:
    """Raise UserError if a turn may not follow the one before it."""
    if before is None:
        allowed, rule = FIRST, "a conversation begins with"
    elif before.call:
        allowed, rule = ("tool",), "after a call comes"
    else:
        allowed, rule = AFTER[before.role], f"after the {before.role} comes"
    if message.role not in allowed:
        raise UserError(
            f"turn {number} is of the {message.role}, but {rule} the {' or the '.join(allowed)}",
            remedy="Write at most one system message, then turns of the user and the assistant in turn. A call is followed by "
            "its result, and that by the assistant.",
        )
