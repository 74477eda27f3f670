"""Numbers about a dataset that are fast to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.config import Config, Data
from core.data.batches import block_size, packing_of, uses_rows
from core.data.dataset import Dataset, Split
from core.data.split import GIVEN
from core.encoders.base import Encoder, changes

Array = npt.NDArray[Any]
LOOKED_AT, MOST_LOOKED_AT = 1_000_000, 1000  # tokens and documents in which a second begin token is looked for
MEASURED = 5_000_000  # documents of a side whose lengths are read, at most: a fifth of a second


@dataclass(frozen=True)
class Facts:
    """What `check` and the warnings know of a dataset.

    kind: text, examples or conversations. rows: whether rows start where documents do. longest: tokens of the longest
    training document; longer: how many are longer than block_size; None for running text. longest_prompt: tokens, of all sides.
    val_in_train, test_in_train: fraction of that side that also occurs in train; None: not searched, or no such side.
    sides_given: whether the data itself says what is on which side. parameters, seconds (of training, predicted): None if
    not known. epoch_tokens: tokens of the rows that hold each training document once, if they are packed; None: train_tokens.
    changed_text: what of a text the encoder does not give back as it was. begin, end: the special tokens that a pretrained
    tokenizer has around documents; "" without one. doubled_begin: whether a document begins with two of them, or spells one.
    """

    kind: str
    groups: Sequence[str]
    encoder: str
    vocab_size: int
    rows: bool
    train_tokens: int
    val_tokens: int
    train_documents: int | None = None
    val_documents: int | None = None
    train_prompts: int | None = None
    val_prompts: int | None = None
    longest: int | None = None
    longer: int | None = None
    longest_prompt: int = 0
    val_in_train: float | None = None
    test_in_train: float | None = None
    same: bool = False
    sides_given: bool = False
    parameters: int | None = None
    seconds: float | None = None
    epoch_tokens: int | None = None
    changed_text: Sequence[str] = ()
    begin: str = ""
    end: str = ""
    doubled_begin: bool = False

    def times(self, config: Config) -> float:
        """How many times a run of train.schedule.max_iters steps reads the training side."""
        seen = config.train.schedule.max_iters * config.train.data.tokens_per_step
        return seen / max(self.train_tokens if self.epoch_tokens is None else self.epoch_tokens, 1)

    @property
    def has_accuracy(self) -> bool:
        """Whether exact match is measured: of Examples, and of conversations with a group."""
        return self.kind == "examples" or (self.kind == "conversations" and bool(self.groups))


def facts_of(dataset: Dataset, data: Data) -> Facts:
    """Facts without those that need every token to be read. The prompts in train are counted by dataset.json."""
    train, val = dataset.train, dataset.val
    lengths = None if train.starts is None else document_lengths(train)
    split, prompts = dataset.info.get("split", {}), None if val.texts else count(val.prompts)
    is_packed = data.packing == "documents" and uses_rows(train, data)
    overlap, test_prompts = split.get("overlap"), dataset.test and count(dataset.test.prompts)
    return Facts(
        kind=str(dataset.info["kind"]),
        groups=dataset.groups,
        encoder=dataset.encoder.kind,
        vocab_size=dataset.encoder.vocab_size,
        rows=uses_rows(train, data),
        train_tokens=train.tokens,
        val_tokens=val.tokens,
        train_documents=count(train.starts),
        val_documents=count(val.starts),
        train_prompts=None if train.texts else count(train.prompts),
        val_prompts=prompts,
        longest=None if lengths is None else int(lengths.max(initial=0)),
        longer=None if lengths is None else int((lengths > block_size(data) + 1).sum()),
        longest_prompt=dataset.longest_prompt,
        val_in_train=overlap / prompts if prompts and overlap is not None else None,
        test_in_train=split["test_overlap"] / test_prompts if test_prompts and "test_overlap" in split else None,
        sides_given=split.get("kind") in GIVEN,
        epoch_tokens=packing_of(train, data).rows * block_size(data) if is_packed else None,
        changed_text=changes(dataset.encoder),
        begin=name_of(dataset.begin, dataset.encoder),
        end=name_of(dataset.end_token, dataset.encoder),
        doubled_begin=begins_twice(dataset),
    )


def name_of(token: int | None, encoder: Encoder) -> str:
    """The text of a special token of a pretrained tokenizer; "" for others."""
    special: dict[str, int] = getattr(encoder, "special", {})
    return next((name for name, number in special.items() if number == token), "")


def begins_twice(dataset: Dataset) -> bool:
    """Whether a document begins with its begin token twice, or spells it in its text. Looks at the first training documents."""
    begin, encoder = dataset.begin, dataset.encoder
    if begin is None:
        return False
    ids, name = dataset.train.ids[:LOOKED_AT], name_of(begin, encoder)
    for place in np.flatnonzero(ids == begin)[:MOST_LOOKED_AT].tolist():
        behind = ids[place + 1 : place + 1 + max(len(name.encode()), 1)].tolist()
        if behind[:1] == [begin] or (name and encoder.decode(behind).lstrip().startswith(name)):
            return True
    return False


def count(values: Array | None) -> int | None:
    return None if values is None else len(values)


def document_lengths(split: Split) -> Array:
    """Tokens of each of the first MEASURED documents."""
    assert split.starts is not None
    begins = split.starts[: MEASURED + 1].astype(np.int64)
    return np.diff(begins if len(begins) > MEASURED else np.append(begins, split.tokens))


def targets_of(split: Split, data: Data, at_most: int) -> Array:
    """Which of the first tokens of a side the loss is over, (N,) bool: the targets of `validation_rows`."""
    wanted = np.ones(min(split.tokens, at_most), bool)
    wanted[:1] = False
    if data.mask_prompt and split.mask is not None:
        wanted &= split.mask[:at_most] != 0
    if uses_rows(split, data):
        assert split.starts is not None
        begins = split.starts[: np.searchsorted(split.starts, len(wanted))]
        wanted[begins.astype(np.int64)] = False
    return wanted
