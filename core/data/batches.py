"""Draw batches from one side of a dataset: inputs and targets, as int64 arrays. Nothing is kept between two calls.

Legend: G micro-batches of a step, B rows, T tokens (block_size), N tokens of the side.
A target is the id that follows its input, or NO_TARGET.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core.config import Data
from core.data.dataset import BLOCK, Dataset, Split
from core.data.epochs import longest_document, packed_in_epochs, pieces_of, rows_in_epochs, rows_of_documents
from core.data.packing import Packed, packed_rows
from core.errors import UserError

Array = npt.NDArray[np.int64]
Layout = Literal["stream", "rows"]
NO_TARGET = -1
MOST_DRAWS = 1000  # of a batch, until it has a target


def layout_of(dataset: Dataset, data: Data) -> Layout:
    """The layout that "auto" stands for. Checks the dataset before a run starts.

    Raises UserError where there are no documents to start rows with, and where a side is too short for the layout or
    has no target.
    """
    has_documents = dataset.train.starts is not None
    layout: Layout = ("rows" if has_documents else "stream") if data.layout == "auto" else data.layout
    if layout == "rows" and not has_documents:
        raise UserError(
            "this dataset is running text, which has no documents to start rows with",
            place='train.data.layout = "rows"',
            remedy='Set train.data.layout = "stream", or let documents() yield Examples.',
        )
    if layout == "stream":
        for split in (dataset.train, dataset.val):
            refuse_short(split, data)
    if dataset.train.whole:
        refuse_cuts(dataset.train, data, layout)
    if data.packing == "documents":
        refuse_unpackable(dataset.train, data, layout)
    whole = layout == "rows" and (data.order == "epochs" or dataset.train.whole)
    reach = block_size(data) if layout == "rows" and not whole else None
    if not has_target(dataset.train, data, reach, whole_documents=whole):
        raise no_targets(dataset.train, data, in_rows=reach is not None)
    if not has_target(dataset.val, data, None, whole_documents=layout == "rows"):
        raise no_targets(dataset.val, data)
    return layout


def has_target(split: Split, data: Data, reach: int | None, *, whole_documents: bool = False) -> bool:
    """Whether any token of a side can be a target.

    reach: its largest distance in tokens from its document's start, as in random training rows; None: any.
    whole_documents: a document's first token is not a target, as in validation rows and in epochs.
    """
    mask = split.mask if data.mask_prompt else None
    in_rows = split.starts is not None and (reach is not None or whole_documents)
    starts = split.starts.astype(np.int64) if in_rows and split.starts is not None else np.zeros(1, np.int64)
    for begin in range(0, split.tokens, BLOCK):  # usually the first block has one
        end = min(begin + BLOCK, split.tokens)
        places = np.arange(begin, end) if mask is None else begin + np.flatnonzero(mask[begin:end])
        distances = places - starts[np.searchsorted(starts, places, side="right" if whole_documents else "left") - 1]
        if ((distances > 0) & (distances <= (split.tokens if reach is None else reach))).any():
            return True
    return False


def refuse_short(split: Split, data: Data) -> None:
    """Raise UserError if a side is shorter than one window of block_size inputs and their targets."""
    size = block_size(data)
    if split.tokens < size + 1:
        raise UserError(
            f"{split.tokens:,} tokens are too few for train.data.block_size = {size}, which needs {size + 1:,}",
            place=str(split.path),
            remedy=f"Lower train.data.block_size to {max(split.tokens - 1, 1)} or less, "
            "or raise prepare.val_fraction or prepare.size.",
        )


def refuse_cuts(split: Split, data: Data, layout: Layout) -> None:
    """Raise UserError if conversations would be cut: by windows of a stream, or because one is longer than a row."""
    if layout == "stream":
        raise UserError(
            "windows of a stream would cut conversations anywhere",
            place='train.data.layout = "stream"',
            remedy='Leave it out: rows then hold whole conversations. Or prepare the data with prepare.special_tokens = "none".',
        )
    size, longest = block_size(data), longest_document(split)
    if longest > size + 1:
        raise UserError(
            f"the longest conversation has {longest:,} tokens, and a row of train.data.block_size = {size:,} has room for "
            f"{size + 1:,}: conversations are never cut",
            place=str(split.path),
            remedy=f"Raise train.data.block_size to {longest - 1:,}, or set prepare.max_tokens = {size + 1:,}: the oldest turns "
            "of longer conversations are then left out.",
        )


def block_size(data: Data) -> int:
    """Tokens of a row. The config is resolved, so there is one."""
    assert data.block_size is not None
    return data.block_size


def batch(split: Split, data: Data, seed: int, step: int) -> tuple[Array, Array]:
    """Inputs and targets of an optimizer step, each (G, B, T): a pure function of its arguments.

    stream: windows at random places, as in nanoGPT. rows: each starts where a random document starts, and the
    documents after it follow until T is full. Some rows may hold no target, but not all of them: they are then drawn
    again. Rows of conversations hold as many whole ones as fit, so each row has a target; the rest of a row is padding.
    With train.data.order = "epochs": see `core.data.epochs`; with packing = "documents": see `core.data.packing`. Raises
    UserError if the side is shorter than a window.
    """
    size, rows = block_size(data), data.grad_accum_steps * data.batch_size
    shape = (data.grad_accum_steps, data.batch_size, size)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step))))
    if data.packing == "documents":
        packed, first = packing_of(split, data), step * rows
        in_order = data.order == "epochs"
        chosen = packed_in_epochs(packed, seed, first, rows) if in_order else random.integers(packed.rows, size=rows)
        return as_batch(shape, *rows_of_documents(split, size, packed.numbers(chosen), masked=data.mask_prompt))
    if data.order == "epochs":
        in_rows, masked = uses_rows(split, data), data.mask_prompt
        return as_batch(shape, *rows_in_epochs(split, size, seed, step * rows, rows, in_rows=in_rows, masked=masked))
    for _ in range(MOST_DRAWS):
        if uses_rows(split, data):
            assert split.starts is not None
            begins = split.starts[random.integers(len(split.starts), size=rows)].astype(np.int64)
        else:
            refuse_short(split, data)
            begins = random.integers(split.tokens - size, size=rows)
        ends = whole_ends(split, begins, size) if split.whole else np.minimum(begins + size + 1, split.tokens)
        inputs, targets = gather(split, begins, ends, data)
        if (targets != NO_TARGET).any():
            break
    return inputs.reshape(shape), targets.reshape(shape)


def as_batch(shape: tuple[int, int, int], ids: Array, learnt: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Inputs and targets (G, B, T) from ids (G B, T + 1) and which of them may be targets."""
    targets = np.where(learnt[:, 1:], ids[:, 1:], NO_TARGET)
    return np.ascontiguousarray(ids[:, :-1]).reshape(shape), targets.reshape(shape)


def packing_of(split: Split, data: Data) -> Packed:
    """The rows of a side with train.data.packing = "documents"."""
    return packed_rows(split, block_size(data), masked=data.mask_prompt)


def refuse_unpackable(split: Split, data: Data, layout: Layout) -> None:
    """Raise UserError if there are no documents to pack, or none with a target that fits a row."""
    if layout == "stream":
        raise UserError(
            "this dataset is running text, which has no documents to pack, or train.data.layout says to read it so",
            place='train.data.packing = "documents"',
            remedy='Leave packing out. Or set prepare.special_tokens = "chat": documents of text are then kept apart.',
        )
    if not packing_of(split, data).rows:
        raise no_targets(split, data, in_rows=True)


def whole_ends(split: Split, begins: Array, size: int) -> Array:
    """Where rows of at most size + 1 tokens end that begin with a document and hold whole ones only, (R,).

    Documents are at most size + 1 tokens long: `layout_of` refuses others.
    """
    assert split.starts is not None
    limits = begins + size + 1
    last = np.searchsorted(split.starts, limits.astype(split.starts.dtype), side="right") - 1
    return np.where(limits >= split.tokens, split.tokens, split.starts[last].astype(np.int64))


def epochs_read(split: Split, data: Data, steps: int) -> float:
    """How many times the first `steps` batches read a side, with train.data.order = "epochs"."""
    if data.packing == "documents":
        rows = packing_of(split, data).rows
    else:
        rows = pieces_of(split, block_size(data), in_rows=uses_rows(split, data)).rows
    return steps * data.grad_accum_steps * data.batch_size / rows


def uses_rows(split: Split, data: Data) -> bool:
    return data.layout == "rows" or (data.layout == "auto" and split.starts is not None)


def no_targets(split: Split, data: Data, *, in_rows: bool = False) -> UserError:
    """The error for a side without a target. in_rows: it may have some, but too far from a document's start for a row."""
    masked = data.mask_prompt and split.mask is not None
    if in_rows and split.mask is not None and split.mask.any() and masked:
        return UserError(
            f"no row of {block_size(data)} tokens holds a target: the prompts are longer than that",
            place=str(split.path),
            remedy="Raise train.data.block_size, or set train.data.mask_prompt = false.",
        )
    return UserError(
        f"none of {split.tokens:,} tokens is a target, so there is nothing to learn or to measure",
        place=str(split.path),
        remedy="Set train.data.mask_prompt = false, or give the documents completions."
        if masked
        else "Raise prepare.size or prepare.val_fraction.",
    )


def gather(split: Split, begins: Array, ends: Array, data: Data) -> tuple[Array, Array]:
    """Inputs and targets (rows, T) of tokens begin..end of each row, at most T + 1. Padding after them is not a target."""
    offsets = np.arange(block_size(data) + 1)
    places = begins[:, None] + offsets  # (rows, T + 1)
    beyond = places >= ends[:, None]
    padded = bool(beyond.any())
    if padded:
        places = np.minimum(places, split.tokens - 1)
    ids = split.ids[places].astype(np.int64)
    inputs, targets = ids[:, :-1], ids[:, 1:].copy()
    if data.mask_prompt and split.mask is not None:
        targets[split.mask[places[:, 1:]] == 0] = NO_TARGET
    if padded:
        targets[beyond[:, 1:]] = NO_TARGET
        inputs = np.where(beyond[:, :-1], 0, inputs)
    return np.ascontiguousarray(inputs), targets


def validation_rows(split: Split, data: Data, at_most: int = 0) -> Iterator[tuple[Array, Array]]:
    """Inputs and targets (B, T) in which every target of a side occurs once, always in the same order.

    stream: consecutive windows; every token but the first is a target. rows: as many whole documents as fit
    into each; a document's first token is not a target. The last batch may have fewer rows.
    at_most: batches, evenly spaced; 0 for all.
    """
    in_rows = uses_rows(split, data)
    if not in_rows:
        refuse_short(split, data)
    begins, ends = packed(split, block_size(data)) if in_rows else windows(split.tokens, block_size(data))
    firsts = range(0, len(begins), data.batch_size)
    chosen = np.arange(len(firsts))
    if 0 < at_most < len(firsts):
        chosen = np.linspace(0, len(firsts) - 1, at_most).round().astype(np.int64)
    for number in chosen:
        rows = slice(firsts[number], firsts[number] + data.batch_size)
        inputs, targets = gather(split, begins[rows], ends[rows], data)
        if in_rows:
            drop_first_tokens(split, begins[rows], ends[rows], targets)
        yield inputs, targets


def windows(tokens: int, size: int) -> tuple[Array, Array]:
    """Begin and end of consecutive windows of `size` inputs. The target after a window's last input begins the next."""
    begins = np.arange(0, tokens - 1, size)
    return begins, np.minimum(begins + size + 1, tokens)


def packed(split: Split, size: int) -> tuple[Array, Array]:
    """Begin and end of rows of at most size + 1 tokens: whole documents in order, and longer ones cut into windows."""
    assert split.starts is not None
    bounds = np.append(split.starts.astype(np.int64), split.tokens)
    rows: list[tuple[int, int]] = []
    first = 0
    while first < len(bounds) - 1:
        begin = int(bounds[first])
        behind = int(np.searchsorted(bounds, begin + size + 1, side="right")) - 1
        if behind > first:
            rows.append((begin, int(bounds[behind])))
            first = behind
            continue
        first += 1
        end = int(bounds[first])
        while end - begin > 1:
            rows.append((begin, min(begin + size + 1, end)))
            begin += size
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def drop_first_tokens(split: Split, begins: Array, ends: Array, targets: npt.NDArray[Any]) -> None:
    """Remove the first tokens of documents from the targets of some rows, in place."""
    assert split.starts is not None
    for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        inside = slice(*np.searchsorted(split.starts, (begin + 1, end)))
        targets[row, split.starts[inside].astype(np.int64) - begin - 1] = NO_TARGET
