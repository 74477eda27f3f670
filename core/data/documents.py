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
