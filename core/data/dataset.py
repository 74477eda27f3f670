"""Open a dataset folder: its arrays and encoder, each file checked against dataset.json."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core import files
from core.chat.conversation import BOS
from core.chat.render import AnswerText, BegunText, PromptText, answer_begins
from core.data.documents import Example
from core.data.info import AGAIN, HELD_OUT, SIDES, TEST, describe, read_info
from core.encoders.base import Encoder, identity
from core.encoders.special import has_special, marks_of, rebuilt
from core.errors import UserError
from core.plugins.manager import Plugins
from core.plugins.manager import plugins as everyone

Array = npt.NDArray[Any]
Side = Literal["train", "val", "test", "held_out"]
BLOCK = 1 << 20  # tokens of a file that are compared with the vocabulary at once


@dataclass(frozen=True, eq=False)
class Split:
    """One side, read from disk as needed. Legend: N tokens, D documents, P different prompts.

    ids: (N,) uint16 or uint32. Examples and conversations have mask: (N,) uint8, 1 where the loss is on a token,
    of text only where documents have a begin token, which is no target; and starts: (D,) uint64; prompts: (P,) uint64, the first document with each prompt; group: (D,) uint16.
    whole: a row holds whole documents only, as it does of conversations with special tokens. texts: the documents are
    texts between special tokens, which have no prompts.
    """

    path: Path
    ids: Array
    mask: Array | None = None
    starts: Array | None = None
    prompts: Array | None = None
    group: Array | None = None
    whole: bool = False
    texts: bool = False

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def document(self, number: int) -> tuple[Array, Array | None]:
        """Ids and mask of one document. Only for sides with documents."""
        assert self.starts is not None
        begin = int(self.starts[number])
        end = int(self.starts[number + 1]) if number + 1 < len(self.starts) else self.tokens
        return self.ids[begin:end], None if self.mask is None else self.mask[begin:end]


@dataclass(frozen=True, eq=False)
class Dataset:
    """What training, sampling and evaluation read. owned: prepare made it, and may replace it. test: None if it has none.

    held_out: the Examples of prepare.py's held_out(), which are on no other side; None without it.
    """

    folder: Path
    encoder: Encoder
    info: dict[str, Any]
    owned: bool
    train: Split
    val: Split
    test: Split | None = None
    held_out: Split | None = None

    def __repr__(self) -> str:
        return f"Dataset({str(self.folder)!r}, {self.train.tokens:,} training tokens, {self.val.tokens:,} validation tokens)"

    @property
    def fingerprint(self) -> str:
        """A hash of what it was made from. For the user's own folder, a hash of its files."""
        return str(self.info["fingerprint"])

    @functools.cached_property
    def data_hash(self) -> str:
        """A hash of its tokens, masks and encoder: what a model is trained on, whatever code and settings made it.

        The Examples of held_out() are left out: a run need not start again because more is asked of it.
        """
        made = self.info.get("files", {})
        names = [f"{side}{part}.bin" for side in (*SIDES, TEST) for part in ("", ".mask", ".idx")]
        found = {name: made[name]["sha256"] for name in names if name in made}
        content = json.dumps([found or self.fingerprint, identity(self.encoder)])
        return hashlib.sha256(content.encode()).hexdigest()

    def is_of(self, stored: Mapping[str, Any]) -> bool:
        """Whether a run or checkpoint with these records was trained on this data. Older ones know only the fingerprint."""
        if known := stored.get("data_hash"):
            return bool(known == self.data_hash)
        return bool(stored.get("dataset_fingerprint") == self.fingerprint)

    @property
    def reported_side(self) -> Literal["test", "val"]:
        """The side whose figures are reported: the test side if there is one."""
        return "val" if self.test is None else "test"

    def text_hash(self, side: Side) -> str | None:
        """A hash of a side's text, whatever the encoder; None if it is not known."""
        found: str | None = self.info.get("texts", {}).get(side)
        return found

    @property
    def has_examples(self) -> bool:
        """Whether there are prompts with one right answer: Examples, or conversations with a group."""
        return str(self.info["kind"]) == "examples" or (self.train.whole and bool(self.groups))

    @property
    def groups(self) -> list[str]:
        """Names of the slices for reporting."""
        return list(self.info.get("groups", []))

    @property
    def stop(self) -> str:
        """The character that ends every completion, or "" where an end token does, or nothing."""
        return str(self.info.get("stop", ""))

    @property
    def begin(self) -> int | None:
        """The id that every document begins with: of <|bos|>, or of a pretrained tokenizer's own. None without one."""
        if self.train.whole or self.info["kind"] == "documents":
            return next(iter(marks_of(self.encoder)[BOS]), None)
        begin: int | None = self.info.get("begin")
        return begin

    @property
    def end_token(self) -> int | None:
        """The id that ends each completion, where no text does."""
        end: int | None = self.info.get("end_token")
        return end

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of all sides. 0 for running text."""
        return max(int(self.info.get(side, {}).get("longest_prompt", 0)) for side in (*SIDES, TEST))

    @property
    def longest_completion(self) -> int:
        """Tokens of the longest completion of all sides, with its end. 0 for running text."""
        return max(int(self.info.get(side, {}).get("longest_completion", 0)) for side in (*SIDES, TEST))

    def longest_answer(self, side: Side) -> int:
        """Tokens of the longest completion that prompts of a side may ask for: of held_out() often longer than of the others."""
        own = int(self.info.get(side, {}).get("longest_completion", 0))
        return max(self.longest_completion, own)

    def side(self, name: Side) -> Split:
        """One side. Raises UserError if the dataset does not have it."""
        split: Split | None = getattr(self, name)
        if split is None and name == HELD_OUT:
            raise UserError(
                "this dataset has no Examples of held_out()",
                place=str(self.folder),
                remedy="Write `def held_out(): yield Example(...)` beside documents(), and prepare it again.",
            )
        if split is None:
            raise UserError(
                "this dataset has no test side",
                place=str(self.folder),
                remedy="Set prepare.test_fraction, and prepare it again.",
            )
        return split

    def target_size(self, side: Side, *, masked: bool) -> tuple[int, int | None]:
        """Tokens of a side that the loss is over, and UTF-8 bytes of their text; None if that is not known.

        masked: count only what is learnt. For a folder without dataset.json the bytes are decoded, from the first
        2**20 tokens at most, and scaled up.
        """
        counts, split = self.info[side], self.side(side)
        part = "target_" if masked and split.mask is not None else ""
        if f"{part}bytes" in counts:
            return int(counts[f"{part}tokens"]), int(counts[f"{part}bytes"])
        if side not in self.decoded_bytes:
            self.decoded_bytes[side] = self.decode_bytes(split)
        return split.tokens, self.decoded_bytes[side]

    @functools.cached_property
    def decoded_bytes(self) -> dict[Side, int | None]:
        """UTF-8 bytes of the text of the sides that were decoded."""
        return {}

    def decode_bytes(self, split: Split) -> int | None:
        """UTF-8 bytes of a side's text, by decoding its first tokens. None where ids have no text, or GPT-2's merges are missing."""
        some, text_bytes = split.ids[: 1 << 20], 0
        if self.encoder.kind == "ids":
            return None
        for begin in range(0, len(some), 65_536):
            try:
                text_bytes += len(self.encoder.decode(some[begin : begin + 65_536].tolist()).encode())
            except UserError:
                return None
        return round(text_bytes * split.tokens / max(len(some), 1))

    def examples(self, side: Side, at_most: int) -> list[Example]:
        """Examples with different prompts, evenly spaced over a side, the same every time. Empty if the data has none.

        at_most: 0 for all. If a prompt has several completions, the first one is used. Of a conversation with a group, the
        prompt ends where the answer to the user's last turn begins, and the completion is the assistant's last turn. Where
        that answer calls tools, the completion is an AnswerText, which knows the calls.
        """
        return self.questions(side, at_most) if self.has_examples else []

    def questions(self, side: Side, at_most: int, *, graded: bool = True) -> list[Example]:
        """`examples` of documents. graded: of conversations only those with a group, which have one right answer."""
        split, numbers = self.side(side), self.asked(side, graded=graded)
        if 0 < at_most < len(numbers):
            numbers = numbers[np.linspace(0, len(numbers) - 1, at_most).round().astype(np.int64)]
        groups = list(self.info.get("held_out_groups", [])) if side == HELD_OUT else self.groups
        return [self.example(split, int(number), groups) for number in numbers]

    def asked(self, side: Side, *, graded: bool = True) -> npt.NDArray[np.int64]:
        """The numbers of a side's documents with different prompts, in order. Empty if it has none. graded: as for `questions`."""
        split = self.side(side)
        if split.starts is None:
            return np.zeros(0, np.int64)
        numbers = np.arange(len(split.starts)) if split.prompts is None else split.prompts.astype(np.int64)
        if split.whole and graded:
            assert split.group is not None
            numbers = numbers[split.group[numbers] > 0]
        return numbers

    def example(self, split: Split, number: int, groups: list[str] | None = None) -> Example:
        """A document as it was before encoding. groups: the names of the side's groups, if they are not `groups`."""
        names = self.groups if groups is None else groups
        ids, mask = split.document(number)
        assert mask is not None
        group = int(split.group[number]) if split.group is not None else 0
        decode = self.encoder.decode
        if split.whole:
            last = int(np.flatnonzero(mask == 0)[-1]) + 1  # where the assistant's last turn begins
            asked = answer_begins(ids, self.encoder) if last < len(ids) else last
            prompt, completion = PromptText.of(ids[:asked].tolist(), self.encoder), decode(ids[last:].tolist())
            if asked < last:
                completion = AnswerText.of(completion, ids[asked:].tolist(), mask[asked:].astype(bool).tolist())
            return Example(prompt, completion, names[group - 1] if group else None)
        asked = int(mask.argmax()) if mask.any() else len(ids)
        prompt_ids = ids[:asked].tolist()
        begun = self.begin is not None and prompt_ids[:1] == [self.begin]
        text = BegunText.of(prompt_ids, self.encoder) if begun and not split.texts else decode(prompt_ids)
        return Example(text, decode(ids[asked:].tolist()), names[group - 1] if group else None)


def load_dataset(folder: Path, plugins: Plugins | None = None) -> Dataset:
    """Open a dataset. Raises UserError where files are missing, cut off, or of another vocabulary."""
    if not (folder / "train.bin").exists():
        raise UserError("there is no dataset here", place=str(folder), remedy="Prepare it first.")
    owned = (folder / "dataset.json").exists()
    info = read_info(folder) if owned else describe(folder)
    encoder = build_encoder(info["encoder"], folder / ("dataset.json" if owned else "meta.pkl"), plugins)
    chat = has_special(encoder)
    sides = {side: open_split(folder, side, info, chat=chat) for side in (*SIDES, TEST) if side in info}
    if HELD_OUT in info:
        sides[HELD_OUT] = open_split(folder, HELD_OUT, info, info.get("held_out_groups", []), chat=chat)
    for split in sides.values():
        refuse_foreign_ids(split, encoder)
    return Dataset(folder, encoder, info, owned, **sides)


def build_encoder(described: dict[str, Any], path: Path, plugins: Plugins | None = None) -> Encoder:
    """The encoder that dataset.json or meta.pkl describes. Raises UserError with the file's path if it describes none."""
    state = {key: value for key, value in described.items() if key != "kind"}
    kind = (plugins or everyone()).get("encoders", described["kind"], str(path))
    try:
        encoder = rebuilt(kind, state)
    except UserError as error:
        raise UserError(error.message, place=error.place or str(path), remedy=error.remedy) from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"describes no {described['kind']} encoder: {type(error).__name__}: {error}"
        raise UserError(message, place=str(path), remedy=AGAIN) from None
    return encoder


def open_split(folder: Path, side: str, info: dict[str, Any], groups: list[str] | None = None, *, chat: bool) -> Split:
    """The arrays of one side. Raises UserError where a file is missing or does not have the recorded length.

    groups: the names of the side's groups, if they are not those of the other sides. chat: the encoder marks turns.
    """
    counts, names = info[side], info["groups"] if groups is None else groups
    documents = counts.get("documents")

    def array(suffix: str, dtype: str, length: int | None, *, needed: bool = True) -> Array | None:
        path = folder / f"{side}{suffix}.bin"
        if not path.exists():
            if needed:
                raise UserError(f"{path.name} is missing", place=str(folder), remedy=AGAIN)
            return None
        return read_array(path, dtype, length)

    ids = array("", info["dtype"], counts.get("tokens"))
    assert ids is not None
    if info["kind"] == "text":
        mask = array(".mask", "uint8", len(ids)) if info.get("begin") is not None else None
        return Split(folder / f"{side}.bin", ids, mask)
    return Split(
        folder / f"{side}.bin",
        ids,
        mask=array(".mask", "uint8", len(ids)),
        starts=array(".idx", "uint64", documents),
        prompts=array(".prompts", "uint64", counts.get("prompts"), needed="prompts" in counts),
        group=array(".group", "uint16", documents, needed=bool(names)),
        whole=info["kind"] == "conversations" and chat,
        texts=info["kind"] == "documents",
    )


def read_array(path: Path, dtype: str, length: int | None) -> Array:
    """A file as an array that is read as needed. Raises UserError unless it has `length` numbers (None: any)."""
    kind, size = np.dtype(dtype).newbyteorder("<"), path.stat().st_size
    expected = size // kind.itemsize if length is None else length
    if size != expected * kind.itemsize or not size:
        state = "empty" if not size else "cut off" if size < expected * kind.itemsize or length is None else "too long"
        detail = f" instead of {expected * kind.itemsize:,}"
        if length is None:
            detail = f", and {kind.name} takes {kind.itemsize} each"
        raise UserError(f"{state}: {size:,} bytes{detail}", place=str(path), remedy=AGAIN)
    return np.asarray(np.memmap(path, dtype=kind, mode="r"))


def refuse_foreign_ids(split: Split, encoder: Encoder) -> None:
    """Raise UserError if ids are outside the vocabulary. Of a file of more than 64 blocks, 64 evenly spaced ones are read."""
    blocks = -(-split.tokens // BLOCK)
    for number in np.unique(np.linspace(0, blocks - 1, min(blocks, 64)).round().astype(np.int64)):
        # Not through the map: its pages would count as memory of this process.
        offset = int(number) * BLOCK * split.ids.itemsize
        largest = int(np.fromfile(split.path, split.ids.dtype, BLOCK, offset=offset).max())
        if largest >= encoder.vocab_size:
            raise UserError(
                f"holds the id {largest}, but the {encoder.kind} vocabulary ends at {encoder.vocab_size - 1}",
                place=str(split.path),
                remedy="The file was made with another vocabulary than the one beside it. "
                + (AGAIN if (split.path.parent / "dataset.json").exists() else "Write a meta.pkl with its vocab_size."),
            )


def verify(folder: Path) -> None:
    """Read every file of a dataset that prepare made. Raises UserError if one has changed."""
    for name, entry in read_info(folder).get("files", {}).items():
        path = folder / name
        if not path.is_file():
            raise UserError("missing", place=str(path), remedy=AGAIN)
        if files.sha256(path) != entry["sha256"]:
            raise UserError("has changed since it was made", place=str(path), remedy=AGAIN)
