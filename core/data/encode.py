"""Encode documents or text, and write the files of one side of a dataset.

    train.bin            token ids, little-endian uint16, or uint32 above 65,535 ids
    train.mask.bin       uint8 per token: 1 where the loss is on it
    train.idx.bin        uint64 per document: the token at which it starts
    train.prompts.bin    uint64 per different prompt: the first document that has it
    train.group.bin      uint16 per document: its group's number in dataset.json, from 1; 0: none

All but the first are written for Examples and Conversations only, the last only where there are groups. Running text has a
mask where documents begin with a token, which is read and not learnt.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from core import durable
from core.chat.conversation import Piece
from core.chat.marks import in_format
from core.chat.render import encode_pieces
from core.data.documents import Document, length_of, segments
from core.data.split import Keys
from core.data.text import GROUP, PIECE, grouped, pieces
from core.encoders.base import Encoder, Frame, Ids

Array = npt.NDArray[Any]
Pieces = list[Piece]
Item = TypeVar("Item")
Result = TypeVar("Result")
DOCUMENTS_AT_ONCE = 4096
NO_FRAME = Frame()


class Coding(Protocol):
    """Applies a function of an encoder to groups of text or documents, and gives back each with its result, in order.

    Groups and results are what `pickle` can copy, so the work may be done elsewhere. The function is one of this module.
    """

    def __call__(
        self, encoder: Encoder, work: Callable[[Encoder, Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result]]: ...


def encode_here(
    encoder: Encoder, work: Callable[[Encoder, Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """A Coding that works in this process."""
    return ((item, work(encoder, item)) for item in items)


def token_type(vocab_size: int) -> np.dtype[Any]:
    """The type of ids on disk."""
    return np.dtype("<u2" if vocab_size <= 65_535 else "<u4")


class BinFile:
    """A growing array on disk, with its length and checksum."""

    def __init__(self, path: Path, dtype: str | np.dtype[Any]) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self.file, self.digest, self.length = durable.create(path), hashlib.sha256(), 0

    def add(self, values: Array) -> None:
        data = np.ascontiguousarray(values, dtype=self.dtype)
        self.file.write(data.data)
        self.digest.update(data.data)
        self.length += len(data)


class Side:
    """Writes the files of one side, "train" or "val", into a folder.

    checksums: file name -> sha256. counts: tokens, documents, characters and bytes, of which targets
    (what the loss is on), and the longest prompt and completion in tokens.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        encoder: Encoder,
        on_characters: Callable[[int], None] = lambda count: None,
        coding: Coding = encode_here,
    ):
        self.folder, self.name, self.encoder, self.on_characters = folder, name, encoder, on_characters
        self.coding = coding
        self.checksums: dict[str, str] = {}
        self.text = hashlib.sha256()
        self.counts = dict.fromkeys(("tokens", "documents", "characters", "bytes", "target_tokens", "target_bytes"), 0)

    @contextlib.contextmanager
    def open(self, suffix: str, dtype: str | np.dtype[Any]) -> Iterator[BinFile]:
        """A file of this side. Its checksum is recorded when it is complete."""
        file = BinFile(self.folder / f"{self.name}{suffix}.bin", dtype)
        with contextlib.closing(file.file):
            yield file
        self.checksums[file.path.name] = file.digest.hexdigest()

    def write_text(
        self, texts: Iterable[str], frame: Frame = NO_FRAME, *, apart: bool = False, masked: bool = False
    ) -> None:
        """Encode running text of any length.

        frame: stands around all of it, or, with apart, around each text. masked: write a mask, in which begin is no target.
        """
        if masked or frame != NO_FRAME:
            self.write_framed([texts] if not apart else ([text] for text in texts), frame, masked=masked)
            return
        with self.open("", token_type(self.encoder.vocab_size)) as file:
            for group, encoded in self.coding(self.encoder, encode_texts, grouped(pieces(texts))):
                for ids in encoded:
                    file.add(ids)
                self.counts["characters"] += sum(map(len, group))
                for text in group:
                    data = text.encode()
                    self.counts["bytes"] += len(data)
                    self.text.update(data)
                self.on_characters(sum(map(len, group)))
        self.counts |= {"tokens": file.length, "target_tokens": file.length, "target_bytes": self.counts["bytes"]}

    def write_framed(self, documents: Iterable[Iterable[str]], frame: Frame, *, masked: bool) -> None:
        """Encode documents, each in parts of any number, with the frame around each. masked: as for `write_text`."""
        counts, targets = self.counts, 0
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.open("", token_type(self.encoder.vocab_size)))
            mask = stack.enter_context(self.open(".mask", "u1")) if masked else None
            for group, encoded in self.coding(self.encoder, encode_stretches, grouped(stretches(documents))):
                texts = [stretch.text for stretch in group]
                for stretch, ids in zip(group, encoded, strict=True):
                    before = [frame.begin] if stretch.is_first and frame.begin is not None else []
                    behind = [frame.end] if stretch.is_last and frame.end is not None else []
                    file.add(np.concatenate([np.array(before, np.uint32), ids, np.array(behind, np.uint32)]))
                    targets += len(ids) + len(behind)
                    if mask is not None:
                        mask.add(
                            np.concatenate([np.zeros(len(before), np.uint8), np.ones(len(ids) + len(behind), np.uint8)])
                        )
                for data in (text.encode() for text in texts):
                    counts["bytes"] += len(data)
                    self.text.update(data)
                counts["characters"] += sum(map(len, texts))
                self.on_characters(sum(map(len, texts)))
        counts |= {
            "tokens": file.length,
            "target_tokens": targets if masked else file.length,
            "target_bytes": counts["bytes"],
        }

    def write_documents(
        self,
        documents: Iterable[Document],
        keys: Keys,
        groups: Mapping[str | None, int],
        frame: Frame = NO_FRAME,
        *,
        chat: bool = False,
        fits: Sequence[bool] | None = None,
    ) -> None:
        """Encode Examples or Conversations, each piece on its own.

        keys: a 64-bit hash of each document's prompt. groups: name -> number. frame: ids that begin each document, and end each learnt
        piece.
        chat: conversations are written with special tokens. fits: which of the keys are of documents that come, complete
        when the last one has come; None: all.
        """
        longest = {"longest_prompt": 0, "longest_completion": 0}
        with (
            self.open("", token_type(self.encoder.vocab_size)) as ids,
            self.open(".mask", "u1") as mask,
            self.open(".idx", "<u8") as starts,
            self.open(".group", "<u2") as group,
        ):
            work = partial(encode_documents, frame=frame, turns=chat)
            for batch, block in self.coding(self.encoder, work, batches(documents, chat=chat)):
                pieces_of_each = batch.pieces
                starts.add(ids.length + block.starts)
                ids.add(block.ids)
                mask.add(block.mask)
                self.text.update(
                    "".join([f"{text}\0" for piece_list in pieces_of_each for text, _, _ in piece_list]).encode()
                )
                group.add(np.array([groups.get(name, 0) for name in batch.groups]))
                longest = {name: max(length, getattr(block, name)) for name, length in longest.items()}
                for name, count in block.counts.items():
                    self.counts[name] += count
                self.on_characters(block.counts["characters"])
        if not groups:
            durable.unlink(group.path)
            del self.checksums[group.path.name]
        if fits is not None:
            keys = keys[np.array(fits, np.bool_)]
        with self.open(".prompts", "<u8") as prompts:
            prompts.add(np.sort(np.unique(keys, return_index=True)[1]))
        self.counts |= {"prompts": prompts.length} | longest


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> list[Ids]:
    """Ids of each text."""
    return encoder.encode_batch(texts)


def encode_stretches(encoder: Encoder, group: Sequence[Stretch]) -> list[Ids]:
    """Ids of each stretch."""
    return encoder.encode_batch([stretch.text for stretch in group])


def encode_documents(encoder: Encoder, batch: DocumentBatch, *, frame: Frame, turns: bool) -> EncodedDocuments:
    """A batch of documents, encoded."""
    return EncodedDocuments(batch.pieces, encoder, frame, turns=turns)


class DocumentBatch(NamedTuple):
    """Some documents: the pieces of each, and the name of its group."""

    pieces: list[Pieces]
    groups: list[str | None]


class EncodedDocuments:
    """Some documents, encoded. Legend: N tokens, D documents, P pieces."""

    def __init__(self, piece_lists: list[Pieces], encoder: Encoder, frame: Frame, *, turns: bool = False) -> None:
        """turns: what counts as a completion is the last learnt stretch of a document, and all before it as its prompt."""
        if turns:
            piece_lists = [in_format(pieces, encoder) for pieces in piece_lists]
        flat = [piece for piece_list in piece_lists for piece in piece_list]
        different = list(dict.fromkeys(flat))  # short texts repeat: each is encoded once
        encoded: list[Ids] = encode_pieces(different, encoder)
        if frame.end is not None:
            closing = np.array([frame.end], dtype=np.uint32)
            encoded = [
                np.concatenate([ids, closing]) if piece.learnt else ids
                for ids, piece in zip(encoded, different, strict=True)
            ]
        of_piece = dict(zip(different, encoded, strict=True))
        parts = [of_piece[piece] for piece in flat]
        first_piece = np.cumsum([0, *(len(piece_list) for piece_list in piece_lists[:-1])])  # (D,)
        if frame.begin is not None:  # a first piece is never learnt
            opening = np.array([frame.begin], dtype=np.uint32)
            for number in first_piece.tolist():
                parts[number] = np.concatenate([opening, parts[number]])
        lengths = np.array([len(part) for part in parts])  # (P,)
        learnt = np.array([learnt for _, learnt, _ in flat])  # (P,)
        self.ids = np.concatenate(parts)  # (N,)
        self.mask = np.repeat(learnt, lengths)  # (N,)
        piece_starts = np.cumsum(lengths) - lengths  # (P,)
        self.starts = piece_starts[first_piece].astype(np.uint64)  # (D,)
        self.longest_prompt = int(lengths[first_piece][~learnt[first_piece]].max(initial=0))
        self.longest_completion = int(lengths[learnt].max(initial=0))
        if turns:
            edges = np.flatnonzero(np.diff(self.mask, prepend=False, append=False)).reshape(-1, 2)  # (turns, 2)
            document_ends = np.append(self.starts[1:].astype(np.int64), len(self.ids))
            last = np.searchsorted(edges[:, 0], document_ends) - 1  # (D,)
            self.longest_prompt = int((edges[last, 0] - self.starts.astype(np.int64)).max())
            self.longest_completion = int((edges[:, 1] - edges[:, 0]).max())
        sizes = {piece: (0, 0) if piece.special else (len(piece.text), utf8_length(piece.text)) for piece in different}
        self.counts = {
            "tokens": len(self.ids),
            "documents": len(piece_lists),
            "characters": sum([sizes[piece][0] for piece in flat]),
            "bytes": sum([sizes[piece][1] for piece in flat]),
            "target_tokens": int(self.mask.sum()),
            "target_bytes": sum([sizes[piece][1] for piece in flat if piece.learnt]),
        }


class Stretch(NamedTuple):
    """A part of a document that is encoded at once, and whether it is its first or last one."""

    text: str
    is_first: bool
    is_last: bool


def stretches(documents: Iterable[Iterable[str]]) -> Iterator[Stretch]:
    """Documents, each in any parts, in stretches of bounded length."""
    for document in documents:
        waiting, is_first = "", True
        for piece in pieces(document):
            if waiting:
                yield Stretch(waiting, is_first, is_last=False)
                is_first = False
            waiting = piece
        if waiting:
            yield Stretch(waiting, is_first, is_last=True)


def batches(documents: Iterable[Document], *, chat: bool = False) -> Iterator[DocumentBatch]:
    """Documents in batches that bound both Python's overhead and memory."""
    batch, characters = DocumentBatch([], []), 0
    for document in documents:
        batch.pieces.append(segments(document, chat=chat))
        batch.groups.append(getattr(document, "group", None))
        characters += length_of(document, batch.pieces[-1])
        if len(batch.pieces) >= DOCUMENTS_AT_ONCE or characters >= PIECE * GROUP:
            yield batch
            batch, characters = DocumentBatch([], []), 0
    if batch.pieces:
        yield batch


def utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
