"""train.data.order = "epochs": every document, or window, once per epoch; a pure function of seed and step; exact resumes."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from test_batches import dataset, documents_strategy, side, text, without_answers

from core.config import Data
from core.data.batches import NO_TARGET, batch, epochs_read, layout_of
from core.data.epochs import documents_of, permutation, pieces_in_rows, pieces_of
from core.errors import UserError

Terrarium = Callable[..., Result]
EPOCHS = ("-s", "train.data.order=epochs")


def data_of(size: int, rows: int = 1, **values: Any) -> Data:
    return Data(**({"batch_size": rows, "block_size": size, "order": "epochs"} | values))


def targets_of_epochs(split: Any, data: Data, seed: int, epochs: int) -> list[int]:
    """All targets of the first epochs, in order. Batches have one row, so that epochs end where steps do."""
    steps = epochs * pieces_of(split, data.block_size or 0, in_rows=split.starts is not None).rows
    found: list[int] = []
    for step in range(steps):
        inputs, targets = batch(split, data, seed, step)
        assert inputs.shape == targets.shape == (1, 1, data.block_size)
        assert inputs.dtype == targets.dtype == np.int64 and inputs.flags.c_contiguous
        assert (targets[targets >= 0] == inputs[targets >= 0] + 1).all()  # a target follows its input in the file
        found += targets[targets >= 0].tolist()
    return found


@given(documents_strategy, st.integers(1, 20), st.booleans(), st.integers(0, 2**63 - 1))
def test_every_token_of_every_document_is_learnt_once_per_epoch(
    documents: list[tuple[int, int]], size: int, mask_prompt: bool, seed: int
) -> None:
    split = side(documents)
    found = Counter(targets_of_epochs(split, data_of(size, mask_prompt=mask_prompt), seed, 3))
    assert split.mask is not None and split.starts is not None
    learnt = set(np.flatnonzero(split.mask).tolist()) if mask_prompt else set(range(split.tokens))
    assert found == dict.fromkeys(learnt - set(split.starts.tolist()), 3)


@given(documents_strategy, st.integers(12, 60), st.integers(0, 2**40))
def test_documents_are_whole_in_their_rows_and_each_is_read_once(
    documents: list[tuple[int, int]], size: int, seed: int
) -> None:
    split = side(documents)
    pieces = documents_of(split, max(size, 18))  # the longest document may have 18 tokens
    assert pieces.firsts is None and pieces.count == len(documents)
    for epoch in range(3):
        numbers = pieces_in_rows(pieces, seed, epoch * pieces.rows, pieces.rows)
        assert sorted(numbers[numbers >= 0].tolist()) == list(range(len(documents)))
        assert (numbers >= 0)[:-1].all()  # only an epoch's last row may hold fewer
        assert numbers[numbers >= 0].tolist() == permutation(seed, epoch, pieces.count).tolist()


@given(st.integers(2, 200), st.integers(1, 30), st.integers(0, 2**40))
def test_every_window_of_running_text_is_read_once_per_epoch(tokens: int, size: int, seed: int) -> None:
    if tokens < size + 1:
        return
    found = targets_of_epochs(text(tokens), data_of(size), seed, 2)
    assert Counter(found) == dict.fromkeys(range(1, tokens), 2)


@given(documents_strategy, st.integers(1, 20), st.integers(1, 9), st.integers(1, 3), st.integers(0, 10**9))
def test_batches_are_parts_of_one_endless_sequence_of_rows(
    documents: list[tuple[int, int]], size: int, rows: int, micro: int, step: int
) -> None:
    """A step may hold the rows of several epochs. It is a pure function: other calls in between change nothing."""
    split, data = side(documents), data_of(size, rows, grad_accum_steps=micro)
    inputs, targets = batch(split, data, 7, step)
    assert inputs.shape == (micro, rows, size)
    single = data_of(size)
    row = step * rows * micro
    for place, (one, one_targets) in enumerate(zip(inputs.reshape(-1, size), targets.reshape(-1, size), strict=True)):
        other, other_targets = batch(split, single, 7, row + place)
        assert one.tolist() == other[0, 0].tolist() and one_targets.tolist() == other_targets[0, 0].tolist()
    again = batch(split, data, 7, step)
    assert (inputs == again[0]).all() and (targets == again[1]).all()


def test_orders_differ_by_epoch_and_by_seed_and_stay_as_they_are() -> None:
    orders = [permutation(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4
    # These very numbers: another numpy must not change a run's data order unseen.
    assert permutation(1337, 3, 10).tolist() == PINNED


PINNED = [6, 5, 8, 2, 1, 3, 4, 0, 7, 9]


def test_a_row_holds_as_many_documents_as_always_fit() -> None:
    split = side([(2, 3)] * 20 + [(3, 3)])
    assert documents_of(split, 11).per_row == 2  # twelve tokens: twice the longest document
    assert documents_of(split, 10).per_row == 1
    assert documents_of(split, 11).rows == 11
    assert epochs_read(split, data_of(11, 4, grad_accum_steps=2), 11) == 8.0


def test_long_documents_are_cut_into_windows() -> None:
    split = side([(0, 10), (0, 3)])
    pieces = documents_of(split, 4)
    assert pieces.bounds(np.arange(4)) == (pytest.approx([0, 4, 8, 10]), pytest.approx([5, 9, 10, 13]))


def test_padding_is_no_target_and_prompts_only_if_they_are_learnt() -> None:
    split = side([(2, 2)])
    inputs, targets = batch(split, data_of(6, 1), 0, 0)
    assert inputs.tolist() == [[[0, 1, 2, 3, 0, 0]]]
    assert targets.tolist() == [[[NO_TARGET, 2, 3, NO_TARGET, NO_TARGET, NO_TARGET]]]
    _, targets = batch(split, data_of(6, 1, mask_prompt=False), 0, 0)
    assert targets.tolist() == [[[1, 2, 3, NO_TARGET, NO_TARGET, NO_TARGET]]]


def test_a_side_without_any_target_is_refused() -> None:
    far, fine = side([(30, 3)] * 5), side([(2, 3)] * 25)
    assert layout_of(dataset(far, fine), data_of(8)) == "rows"  # random rows never reach the completions
    with pytest.raises(UserError, match="none of 45 tokens is a target"):
        layout_of(dataset(without_answers(9), fine), data_of(8))


def test_a_million_documents_cost_little_per_step() -> None:
    split = side([(5, 6)] * 5000)
    split = type(split)(split.path, np.zeros(10**7, np.uint16), None, np.arange(0, 10**7, 10, dtype=np.uint64))
    data = data_of(255, 16)
    begin = time.process_time()
    batch(split, data, 0, 0)
    assert time.process_time() - begin < 2
    times = []
    for step in range(50):
        begin = time.perf_counter()
        batch(split, data, 0, step)
        times.append(time.perf_counter() - begin)
    assert min(times) < 2e-3
    assert permutation(0, 0, 10**6).nbytes == 4 * 10**6


# Runs


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("experiment", ["spaces", "text"])
def test_a_run_in_pieces_ends_as_the_unbroken_one(
    spaces: Path, text: Path, terrarium: Terrarium, experiment: str
) -> None:
    folder = {"spaces": spaces, "text": text}[experiment]
    steady = (*EPOCHS, "-s", "train.schedule.lr_decay_iters=12", "-s", "train.runtime.attention=explicit")
    assert terrarium("train", experiment, "-s", "train.schedule.max_iters=12", *steady).exit_code == 0
    for steps in (4, 8, 12):
        more = ("--resume",) if steps > 4 else ()
        result = terrarium(
            "train", experiment, "--run", "pieces", "-s", f"train.schedule.max_iters={steps}", *steady, *more
        )
        assert result.exit_code == 0, result.output
    whole, pieces = (
        (folder / "out" / run / "checkpoints" / "last" / "model.safetensors").read_bytes()
        for run in ("default", "pieces")
    )
    assert whole == pieces


def test_metrics_say_how_often_the_data_was_read(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", *EPOCHS).exit_code == 0
    made = json.loads((spaces / "datasets" / "basic" / "dataset.json").read_text())
    rows = rows_of(spaces / "out" / "default")
    values = [float(row["epoch"]) for row in rows]
    assert values == sorted(values) and values[0] > 0
    per_row = 17 // 7  # the longest document is "ab: a b\n", its rows have 17 tokens
    per_epoch = -(-made["train"]["documents"] // 2) if per_row == 2 else made["train"]["documents"]
    assert values[-1] == pytest.approx(6 * 4 / per_epoch, abs=1e-4)
    assert terrarium("train", "spaces", "--run", "random").exit_code == 0
    assert "epoch" not in rows_of(spaces / "out" / "random")[0]


def test_an_own_metric_may_be_called_epoch_where_there_are_none(spaces: Path, terrarium: Terrarium) -> None:
    with (spaces / "prepare.py").open("a") as file:
        file.write("\n\ndef evaluate(run, model, encoder):\n    return {'epoch': 3}\n")
    assert terrarium("train", "spaces").exit_code == 0
    result = terrarium("train", "spaces", "--run", "epochs", *EPOCHS)
    assert result.exit_code == 2
    assert "evaluate returned epoch, which is measured already" in result.stderr


def test_an_order_that_does_not_exist_is_told(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces", "-s", "train.data.order=sorted")
    assert result.exit_code == 2
    assert "train.data.order" in result.stderr and "'random' or 'epochs'" in result.stderr


def test_check_says_that_long_documents_are_read_in_parts(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("check", "spaces", "--no-timing", *EPOCHS, "-s", "train.data.block_size=3")
    assert result.exit_code == 0, result.output
    assert "they are read in parts, and a part does not see the one before it" in " ".join(result.stdout.split())
