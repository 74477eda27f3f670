"""Keep documents in a temporary file: read once from documents(), which may be endless, and read back in any order."""

from __future__ import annotations

import marshal
import mmap
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from core import durable
from core.chat.conversation import Conversation, Message, check_conversation
from core.data.documents import SPEAKERS, Document, Example, length_of, prompt_key, segments
from core.data.split import Keys, Numbers, key_of
from core.errors import UserError

KINDS = {str: "text", Example: "examples", Conversation: "conversations"}


class Spool:
    """Checked documents of one kind, and what the split and the encoder need to know about each.

    kind: text, examples or conversations. ending: the character that ends every learnt text and occurs nowhere
    else in one, or "". groups: numbers by name, in the order of their first document. left_out: documents that were not
    added, because the keys of their prompts are in `refused`; left_out_characters: of them. chat: conversations are written
    with special tokens.
    """

    def __init__(
        self, path: Path, seed: int, what: str, refused: Collection[int] = frozenset(), *, chat: bool = False
    ) -> None:
        self.path, self.seed, self.what, self.refused, self.chat = path, seed, what, refused, chat
        self.left_out = self.left_out_characters = 0
        self.file = durable.create(path)
        self.kind = ""
        self.ending: str | None = None
        self.groups: dict[str | None, int] = {}
        self.characters = 0
        self.offsets, self.lengths, self.prompt_keys = array("Q", [0]), array("Q"), array("Q")
        self.recent: dict[Example, tuple[bytes, int, int]] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, document: object, place: str = "") -> None:
        """Add one document. Raises UserError if it is not a document, is empty, or is of another kind than those before."""
        # Small experiments repeat themselves: an Example that was seen before is not checked again.
        try:
            entry = self.recent.get(document) if type(document) is Example else None
        except TypeError:  # not hashable: `checked` says what is wrong with it
            entry = None
        if entry is None:
            checked = self.checked(document, place or f"document {len(self) + 1:,} of {self.what}")
            entry = self.look_at(checked)
            if type(document) is Example:
                if len(self.recent) >= 100_000:
                    self.recent.clear()
                self.recent[document] = entry
        record, length, key = entry
        if key in self.refused:
            self.left_out += 1
            self.left_out_characters += length
            return
        self.file.write(record)
        self.offsets.append(self.offsets[-1] + len(record))
        self.lengths.append(length)
        self.prompt_keys.append(key)
        self.characters += length

    def look_at(self, document: Document) -> tuple[bytes, int, int]:
        """A document's record, its length in characters and its prompt's key. Records its ending and group."""
        pieces = segments(document, chat=self.chat)
        length, key = length_of(document, pieces), key_of(prompt_key(document, chat=self.chat), self.seed)
        if key in self.refused:
            return b"", length, key
        is_chat = self.chat and isinstance(document, Conversation)
        if is_chat:
            self.ending = ""  # <|end|> ends what the assistant says
        for text, learnt, _ in pieces:
            if learnt and self.ending != "":
                self.see_ending(text)
        group = (
            document.group
            if isinstance(document, Example) or (is_chat and isinstance(document, Conversation))
            else None
        )
        if group is not None:
            self.groups.setdefault(group, len(self.groups) + 1)
            if len(self.groups) > 65_535:  # a group's number is a uint16 on disk
                raise UserError("more than 65,535 groups", place=self.what, remedy="A group is a slice for reporting.")
        return marshal.dumps(plain(document)), length, key

    def see_ending(self, learnt: str) -> None:
        """Keep the common last character while it ends every learnt text and occurs nowhere else in it."""
        last = learnt[-1:]
        if self.ending is None:
            self.ending = last
        if last != self.ending or learnt.find(last) != len(learnt) - 1:
            self.ending = ""

    def checked(self, document: object, place: str) -> Document:
        """The document, if it is one. Raises UserError otherwise."""
        if not isinstance(document, (str, Example, Conversation)):
            raise UserError(
                f"{type(document).__name__} is not a document: {excerpt(document)}",
                place=place,
                remedy="Yield str, Example(prompt, completion) or Conversation(messages), from core.",
            )
        kind = next(name for cls, name in KINDS.items() if isinstance(document, cls))
        self.kind = self.kind or kind
        if kind != self.kind:
            raise UserError(
                f"{type(document).__name__} after {self.kind}", place=place, remedy="All documents must be of one kind."
            )
        if isinstance(document, Conversation):
            check_turns(document, place, chat=self.chat)
        elif isinstance(document, Example):
            for name, text in zip(Example._fields, document, strict=True):
                if not isinstance(text, str) and not (name == "group" and text is None):
                    raise UserError(f"{name} is {type(text).__name__}, not str: {excerpt(text)}", place=place)
        if isinstance(document, Example):
            whole = document[0] + document[1]
        else:
            whole = "".join([text for text, _, _ in segments(document, chat=self.chat)])
        if not whole:
            raise UserError(f"empty {type(document).__name__}", place=place, remedy="Leave out documents without text.")
        if isinstance(document, Example) and not document.prompt:  # an empty completion is fine: an end token follows
            raise UserError("empty prompt", place=place, remedy="Start it with something, such as a line break.")
        try:
            whole.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"invalid text: U+{ord(whole[error.start]):04X} is half a character and cannot be written as UTF-8",
                place=place,
                remedy="Read files with encoding='utf-8', without errors='surrogateescape'.",
            ) from None
        return document

    def close(self) -> None:
        """Finish writing. After that the documents can be read."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        durable.unlink(self.path)

    def keys(self) -> Keys:
        """A hash of each document's prompt."""
        return np.asarray(self.prompt_keys, dtype=np.uint64)

    def sizes(self) -> Numbers:
        """Characters of each document."""
        return np.asarray(self.lengths, dtype=np.int64)

    def read(self, numbers: Iterable[int] | None = None) -> Iterator[Document]:
        """Documents by number, or all of them."""
        rebuild: Callable[[Any], Document] = str
        if self.kind == "examples":
            rebuild = Example._make
        elif self.kind == "conversations":
            rebuild = lambda kept: Conversation([Message(*turn) for turn in kept[0]], kept[1])  # noqa: E731
        offsets = self.offsets
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for number in range(len(self)) if numbers is None else numbers:
                yield rebuild(marshal.loads(content[offsets[number] : offsets[number + 1]]))

    def texts(self, numbers: Numbers | None = None) -> Iterator[str]:
        """Running text, document by document."""
        return (f"{document}" for document in self.read(None if numbers is None else numbers.tolist()))


def plain(document: Document) -> Any:
    """A document as tuples of exactly str: marshal does not accept subclasses."""
    if isinstance(document, Conversation):
        turns = tuple([(str(turn.role), str(turn.content), str(turn.call)) for turn in document.messages])
        return turns, None if document.group is None else str(document.group)
    if isinstance(document, Example):
        return tuple([text if text is None else str(text) for text in document])
    return str(document)


def check_turns(conversation: Conversation, place: str, *, chat: bool) -> None:
    """Raise UserError if a conversation is not one. chat: it is written with special tokens, which know of tools."""
    if not isinstance(conversation.messages, (list, tuple)):
        raise UserError(
            f"messages is {type(conversation.messages).__name__}: {excerpt(conversation.messages)}",
            place=place,
            remedy='Give a list: Conversation([Message("user", "text"), Message("assistant", "text")]).',
        )
    if not isinstance(conversation.group, (str, type(None))):
        raise UserError(
            f"group is {type(conversation.group).__name__}, not str: {excerpt(conversation.group)}", place=place
        )
    for message in conversation.messages:
        if not isinstance(message, Message) or not all(
            isinstance(text, str) for text in (message.content, message.call)
        ):
            raise UserError(
                f"not a message: {excerpt(message)}", place=place, remedy='Write Message("user", "text"), from core.'
            )
    if chat:
        try:
            check_conversation(conversation)
        except UserError as error:
            raise UserError(error.message, place=place, remedy=error.remedy) from None
        if conversation.group is not None and conversation.messages[-1].role != "assistant":
            raise UserError(
                "a conversation with a group does not end with a turn of the assistant",
                place=place,
                remedy="With a group, the last turn is the right answer. End with it, or leave the group out.",
            )
        return
    for message in conversation.messages:
        if message.role == "tool" or message.call:
            raise UserError(
                "tools need special tokens, and this encoder has none",
                place=place,
                remedy='Set prepare.special_tokens = "chat".',
            )
        if message.role not in SPEAKERS:
            raise UserError(f"unknown role {message.role!r}", place=place, remedy=f"Roles: {', '.join(SPEAKERS)}.")


def excerpt(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
