"""What documents() of a prepare.py may yield, and how each becomes text with and without loss."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A question with an answer. group: a slice for reporting, such as "three letters"."""

    prompt: str
    completion: str
    group: str | None = None


class Message(NamedTuple):
    """One turn of a conversation. role: "system", "user" or "assistant"."""

    role: str
    content: str


class Conversation(NamedTuple):
    """Turns in order; the assistant's are what is learnt."""

    messages: list[Message]


Document = str | Example | Conversation

SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


def segments(document: Document) -> list[tuple[str, bool]]:
    """The text of a document in pieces, each with whether it is to be learnt (True) or only read.

    Pieces are encoded one by one, here as when sampling, so that a prompt has the same ids in both.
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
    """What two documents share if they are copies of one question: all text before the first that is learnt.

    For running text, and where nothing stands before the first answer of a conversation, it is the whole text.
    """
    first, *others = segments(document)
    asked = isinstance(document, Example) or first[0] != f"{SPEAKERS['assistant']}: "
    return first[0] if asked else "".join([first[0], *(text for text, _ in others)])
