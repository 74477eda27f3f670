"""The kinds of documents that documents() of a prepare.py may yield, and how each becomes text with and without loss."""

from __future__ import annotations

from typing import NamedTuple

from core.chat.conversation import BOS, END, Conversation, Piece, pieces_of, question_of


class Example(NamedTuple):
    """A prompt with its answer. group: a slice for reporting, such as "three letters"."""

    prompt: str
    completion: str
    group: str | None = None


Document = str | Example | Conversation

# Where the encoder has no special tokens, a conversation is written as text, with these names.
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


def segments(document: Document, *, chat: bool = False) -> list[Piece]:
    """A document in pieces, each with whether the loss is on it or it is only read.

    Pieces are encoded one by one, here and when sampling, so that a prompt has the same ids in both.
    chat: the encoder has special tokens, and conversations are written with them: see `core.chat.conversation`. A text is
    written between <|bos|> and <|end|>. Otherwise a conversation becomes "User: ...\\nAssistant: " (read) and "...\\n" (learnt) in turn.
    """
    if isinstance(document, Example):  # the most frequent ones by far: tuple.__new__ takes half the time of Piece()
        return [tuple.__new__(Piece, (document[0], False, False)), tuple.__new__(Piece, (document[1], True, False))]
    if isinstance(document, str):
        text = Piece(document, True)
        return [Piece(BOS, False, special=True), text, Piece(END, True, special=True)] if chat else [text]
    if chat:
        return pieces_of(document)
    pieces, read = [], ""
    for message in document.messages:
        if message.role == "assistant":
            pieces.append(Piece(f"{read}{SPEAKERS[message.role]}: ", learnt=False))
            pieces.append(Piece(f"{message.content}\n", learnt=True))
            read = ""
        else:
            read += f"{SPEAKERS[message.role]}: {message.content}\n"
    return [*pieces, Piece(read, learnt=False)] if read else pieces


def prompt_key(document: Document, *, chat: bool = False) -> str:
    """What decides a document's side: two documents with the same key ask the same question.

    It is the text before the first learnt piece. For running text, and for a conversation that begins with the assistant,
    it is the whole text. chat: of a conversation, the system message and the first turn of the user.
    """
    if isinstance(document, Example):
        return document[0]
    if chat and isinstance(document, Conversation):
        return question_of(document)
    first, *others = segments(document)
    asked = first.text != f"{SPEAKERS['assistant']}: "
    return first.text if asked else "".join([first.text, *(piece.text for piece in others)])


def length_of(document: Document, pieces: list[Piece]) -> int:
    """Characters of a document's text; special tokens have none."""
    if isinstance(document, Example):
        return len(document[0]) + len(document[1])
    return sum([len(text) for text, _, special in pieces if not special])
