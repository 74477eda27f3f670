"""Batches: pure functions of seed and step, and a validation pass that meets every target once."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Data
from core.data.batches import NO_TARGET, batch, layout_of, validation_rows
from core.data.dataset import Dataset, Split
from core.errors import UserError

# ids are drawn without repetition, so that a target tells where in the file it stands
documents_strategy = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 12)), min_size=1, max_size=25)


def side(documents: list[tuple[int, int]]) -> Split:
    """A side with documents of so many prompt and completion tokens; token n has the id n."""
    lengths = [prompt + completion for prompt, completion in documents]
    mask = np.concatenate([np.repeat([0, 1], document) for document in documents]).astype(np.uint8)
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.uint64)
    return Split(Path("val.bin"), np.arange(sum(lengths), dtype=np.uint16), mask, starts)


def text(tokens: int) -> Split:
    return Split(Path("val.bin"), np.arange(tokens, dtype=np.uint16))


def settings(**values: Any) -> Data:
    return Data(**({"batch_size": 3, "block_size": 8} | values))


def dataset(train: Split, val: Split) -> Dataset:
    return cast(Dataset, SimpleNamespace(train=train, val=val))


@given(documents_strategy, st.integers(2, 20), st.booleans(), st.sampled_from(["rows", "auto"]))
def test_validation_in_rows_meets_every_target_once(
    documents: list[tuple[int, int]], size: int, mask_prompt: bool, layout: str
) -> None:
    split = side(documents)
    found: list[int] = []
    for inputs, targets in validation_rows(split, settings(block_size=size, layout=layout, mask_prompt=mask_prompt)):
        assert inputs.shape == targets.shape
        assert inputs.shape[1] == size
        assert inputs.dtype == targets.dtype == np.int64
        assert (targets[targets >= 0] == inputs[targets >= 0] + 1).all()  # a target follows its input in the file
        found += targets[targets >= 0].tolist()
    assert split.mask is not None
    assert split.starts is not None
    learnt = set(np.flatnonzero(split.mask)) if mask_prompt else set(range(split.tokens))
    assert sorted(found) == sorted(learnt - set(split.starts.tolist()))


@given(st.integers(2, 200), st.integers(1, 30), st.integers(1, 5))
def test_validation_in_a_stream_meets_every_token_but_the_first_once(tokens: int, size: int, rows: int) -> None:
    if tokens < size + 1:
        return
    found: list[int] = []
    for inputs, targets in validation_rows(text(tokens), settings(block_size=size, batch_size=rows)):
        assert inputs.shape[0] <= rows
        assert (targets[targets >= 0] == inputs[targets >= 0] + 1).all()
        found += targets[targets >= 0].tolist()
    assert found == list(range(1, tokens))


@given(documents_strategy, st.booleans())
def test_validation_in_a_stream_of_documents_honours_the_mask(
    documents: list[tuple[int, int]], mask_prompt: bool
) -> None:
    split = side(documents)
    if split.tokens < 9:
        return
    data = settings(layout="stream", mask_prompt=mask_prompt)
    found = [target for _, targets in validation_rows(split, data) for target in targets[targets >= 0].tolist()]
    assert split.mask is not None
    assert found == [token for token in range(1, split.tokens) if split.mask[token] or not mask_prompt]


def test_a_row_holds_whole_documents_as_long_as_they_fit() -> None:
    split = side([(2, 2), (1, 3), (3, 3), (10, 12), (1, 1)])
    rows = [
        row[row_targets >= -1].tolist()
        for row, row_targets in validation_rows(split, settings(batch_size=1, mask_prompt=False))
    ]
    assert [row[0] for row in rows] == [0, 8, 14, 22, 30, 36]  # 4 + 4 tokens; 6; 22 in three windows; 2


def test_at_most_so_many_batches_evenly_spaced_and_always_the_same() -> None:
    data = settings(batch_size=1)
    everything = [inputs for inputs, _ in validation_rows(text(801), data)]
    some = [inputs for inputs, _ in validation_rows(text(801), data, 5)]
    assert len(everything) == 100
    assert [int(inputs[0, 0]) // 8 for inputs in some] == [0, 25, 50, 74, 99]
    assert len(list(validation_rows(text(801), data, 1000))) == 100


@given(documents_strategy, st.integers(1, 20), st.booleans(), st.integers(0, 2**40), st.integers(0, 10**9))
def test_training_rows_begin_with_a_document(
    documents: list[tuple[int, int]], size: int, mask_prompt: bool, seed: int, step: int
) -> None:
    split = side(documents)
    data = settings(block_size=size, layout="rows", mask_prompt=mask_prompt, grad_accum_steps=2)
    inputs, targets = batch(split, data, seed, step)
    assert inputs.shape == targets.shape == (2, 3, size)
    assert split.mask is not None
    assert split.starts is not None
    for row, row_targets in zip(inputs.reshape(-1, size), targets.reshape(-1, size), strict=True):
        begin = int(row[0])
        assert begin in split.starts
        for place, target in enumerate(row_targets.tolist(), begin + 1):
            learnt = place < split.tokens and (split.mask[place] or not mask_prompt)
            assert target == (place if learnt else NO_TARGET)
            assert row[place - begin - 1] == (place - 1 if place - 1 < split.tokens else 0)


def test_training_windows_are_nanogpts() -> None:
    inputs, targets = batch(text(1000), settings(batch_size=500), 1, 2)
    assert (targets == inputs + 1).all()
    assert (inputs[0] == inputs[0][:, :1] + np.arange(8)).all()
    begins = inputs[0][:, 0]
    assert begins.min() >= 0
    assert begins.max() <= 1000 - 8 - 1
    assert len(set(begins.tolist())) > 300
    edge, _ = batch(text(9), settings(), 0, 0)
    assert (edge[0] == np.arange(8)).all()


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    data, split = settings(), text(500)
    first = batch(split, data, 1, 7)
    batch(split, data, 5, 3)
    assert all((one == two).all() for one, two in zip(first, batch(split, data, 1, 7), strict=True))
    others = [batch(split, data, 1, 8), batch(split, data, 2, 7)]
    assert not any((first[0] == other[0]).all() for other in others)
    # These very numbers: another numpy or machine must not change a run's data order unseen.
    assert batch(text(50_000), settings(block_size=1), 1337, 0)[0].ravel().tolist() == PINNED


PINNED = [8372, 1509, 38815]


def test_micro_batches_divide_one_global_batch() -> None:
    split = text(500)
    whole = batch(split, settings(batch_size=12, grad_accum_steps=1), 1, 7)[0]
    parts = batch(split, settings(batch_size=3, grad_accum_steps=4), 1, 7)[0]
    assert (whole.reshape(12, 8) == parts.reshape(12, 8)).all()


def test_auto_is_rows_for_documents_and_stream_for_text() -> None:
    documents = side([(2, 3)] * 5)
    assert layout_of(dataset(documents, documents), settings()) == "rows"
    assert layout_of(dataset(documents, documents), settings(layout="stream")) == "stream"
    assert layout_of(dataset(text(50), text(50)), settings()) == "stream"


@given(documents_strategy, st.integers(1, 20), st.booleans(), st.sampled_from(["rows", "stream"]), st.booleans())
def test_a_side_without_any_target_is_refused_before_the_run(
    documents: list[tuple[int, int]], size: int, mask_prompt: bool, layout: str, validation: bool
) -> None:
    some, fine = side(documents), side([(2, 3)] * 25)
    if layout == "stream" and some.tokens <= size:
        return
    data = settings(block_size=size, layout=layout, mask_prompt=mask_prompt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.data.batches.BLOCK", 7)
        refused = False
        try:
            layout_of(dataset(fine, some) if validation else dataset(some, fine), data)
        except UserError as error:
            refused = True
            if error.message.startswith("no row of"):
                assert layout == "rows" and mask_prompt
            if size >= 3:  # less than that, `fine` is not fine
                assert error.place == "val.bin"
    if size < 3:
        return
    drawn = (batch(some, data, 0, step) for step in range(40))
    batches = validation_rows(some, data) if validation else drawn
    assert refused == all(targets.max(initial=NO_TARGET) == NO_TARGET for _, targets in batches)


def without_answers(documents: int) -> Split:
    split = side([(2, 3)] * documents)
    return Split(split.path, split.ids, np.zeros(split.tokens, np.uint8), split.starts)


def test_what_has_nothing_to_learn_is_told_with_a_remedy() -> None:
    far, fine = side([(30, 3)] * 5), side([(2, 3)] * 25)
    with pytest.raises(UserError, match="no row of 8 tokens holds a target: the prompts are longer than that") as error:
        layout_of(dataset(far, fine), settings(mask_prompt=True))
    assert error.value.remedy == "Raise train.data.block_size, or set train.data.mask_prompt = false."
    assert layout_of(dataset(far, far), settings(mask_prompt=True, layout="stream")) == "stream"
    for layout in ("rows", "stream"):
        for both in ((without_answers(9), fine), (fine, without_answers(9))):
            with pytest.raises(
                UserError, match="none of 45 tokens is a target, so there is nothing to learn or to measure"
            ) as error:
                layout_of(dataset(*both), settings(mask_prompt=True, layout=layout))
            assert error.value.remedy == "Set train.data.mask_prompt = false, or give the documents completions."
            assert layout_of(dataset(*both), settings(mask_prompt=False, layout=layout)) == layout
    single = side([(0, 1)])
    with pytest.raises(UserError, match="none of 1 tokens is a target") as error:
        layout_of(dataset(fine, single), settings(mask_prompt=False))
    assert error.value.remedy == "Raise prepare.size or prepare.val_fraction."


def test_a_batch_without_targets_is_drawn_again() -> None:
    split = side([*[(30, 3)] * 40, (2, 3)])
    data = settings(mask_prompt=True, batch_size=1)
    assert all((batch(split, data, 0, step)[1] != NO_TARGET).any() for step in range(100))
    assert layout_of(dataset(split, split), data) == "rows"


def test_rows_of_running_text_are_refused() -> None:
    with pytest.raises(
        UserError, match="this dataset is running text, which has no documents to start rows with"
    ) as error:
        layout_of(dataset(text(50), text(50)), settings(layout="rows"))
    assert 'train.data.layout = "stream"' in error.value.remedy


@pytest.mark.parametrize("use", ["layout", "batch", "validation"])
def test_a_side_shorter_than_a_window_is_refused(use: str) -> None:
    short = Split(Path("datasets/basic/val.bin"), np.arange(8, dtype=np.uint16))
    with pytest.raises(UserError) as error:
        if use == "layout":
            layout_of(dataset(text(50), short), settings())
        elif use == "batch":
            batch(short, settings(), 0, 0)
        else:
            next(validation_rows(short, settings()))
    assert error.value.message == "8 tokens are too few for train.data.block_size = 8, which needs 9"
    assert error.value.place == str(Path("datasets/basic/val.bin"))
    assert (
        error.value.remedy == "Lower train.data.block_size to 7 or less, or raise prepare.val_fraction or prepare.size."
    )


@pytest.mark.parametrize("layout", ["stream", "rows"])
def test_a_batch_costs_less_than_a_millisecond(layout: str) -> None:
    split = side([(5, 6)] * 5000)
    data = settings(batch_size=64, block_size=256, layout=layout)
    batch(split, data, 0, 0)
    times = []
    for step in range(50):
        begin = time.perf_counter()
        batch(split, data, 0, step)
        times.append(time.perf_counter() - begin)
    assert min(times) < 1e-3
