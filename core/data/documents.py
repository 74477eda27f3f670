"""The kinds of documents that documents() of a prepare.py may yield, and how each becomes text with and without loss."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A prompt with its answer. group: a slice for reporting, such as "three letters"."""

    prompt: str
    completion: str
    group: str | None = None


class Message(NamedTuple):
    """One turn of a conversation. role: "system", "user" or "assistant"."""

    role: str
    content: str


class Conversation(NamedTuple):
    """Turns in order. The loss is on the assistant's turns."""

    messages: list[Message]


Document = str | Example | Conversation

SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


def segments(document: Document) -> list[tuple[str, bool]]:
    """The text of a document in pieces, each with whether the loss is on it (True) or it is only read.

    Pieces are encoded one by one, here and when sampling, so that a prompt has the same ids in both.
    A conversation becomes "User: ...\\nAssistant: " (read) and "...\\n" (learnt) in turn.
    """
    if isinstance(document, str):
        return [(document, True)]
    if isinstance(document, Example):
        return [(document.prompt, False), (document.completion, True)]
    pieces, read = [], ""
    for role, content in document.messages:
        if role == "assistant":
            pieces += [(f"{read}{SPEAKERS[role]}: ", False), (f"{content}\n", True)]
            read = ""
        else:
            read += f"{SPEAKERS[role]}: {content}\n"
    return [*pieces, (read, False)] if read else pieces


def prompt_key(document: Document) -> str:
    """The text before the first learnt piece: two documents with the same key ask the same question.

    For running text, and for a conversation that begins with the assistant, it is the whole text.
    """
    first, *others = segments(document)
    asked = isinstance(document, Example) or first[0] != f"{SPEAKERS['assistant']}: "
    return first[0] if asked else "".join([first[0], *(text for text, _ in others)])
