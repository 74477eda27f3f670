"""train.data.packing = "documents": every row starts at a document, nothing goes on in another row, each row has a target."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import write

from core import Example, open_experiment
from core.config import Data
from core.data.batches import NO_TARGET, batch
from core.data.dataset import BLOCK, Split, load_dataset
from core.data.packing import packed_rows
from core.lab.elsewhere import evaluate_prompts

Terrarium = Callable[..., Result]
STORIES = """def documents(rng, *, longest: int = 12):
    while True:
        yield " ".join(rng.choices(["ab", "ba", "cab"], k=rng.randint(1, longest)))
"""
BPE = TINY.replace("[prepare]\n", '[prepare]\nspecial_tokens = "chat"\n').replace(
    "batch_size = 4", 'batch_size = 4\npacking = "documents"'
)


def side_of(lengths: list[int], prompts: list[int] | None = None) -> Split:
    """Documents of these lengths. Ids are the place in the side, so that every token is known again. prompts: not learnt."""
    tokens = sum(lengths)
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.uint64)
    mask = None
    if prompts is not None:
        mask = np.ones(tokens, np.uint8)
        for start, prompt in zip(starts.tolist(), prompts, strict=True):
            mask[start : start + prompt] = 0
    return Split(Path("side.bin"), np.arange(tokens, dtype=np.uint32), mask=mask, starts=starts)


def data_of(size: int, order: str = "random", rows: int = 4) -> Data:
    return Data.model_validate(
        {"block_size": size, "batch_size": rows, "order": order, "layout": "rows", "packing": "documents"}
    )


def documents_in(ids: Any, split: Split) -> list[int]:
    """The documents of a row, in order; asserts that each begins at its start and is whole, or cropped at the row's end."""
    assert split.starts is not None
    starts = set(split.starts.tolist())
    found, place = [], 0
    ends = np.append(split.starts, split.tokens)
    while place < len(ids) and (ids[place] or not place or 0 in starts):
        if place and not ids[place:].any():
            break  # padding
        assert int(ids[place]) in starts
        number = int(np.searchsorted(split.starts, ids[place]))
        length = min(int(ends[number + 1] - ends[number]), len(ids) - place)
        assert ids[place : place + length].tolist() == list(range(int(ids[place]), int(ids[place]) + length))
        found.append(number)
        place += length
    return found


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(0, 89)), min_size=1, max_size=60),
    st.sampled_from([1, 2, 7, 64]),
    st.sampled_from(["random", "epochs"]),
    st.booleans(),
    st.sampled_from([1, 5, BLOCK]),
)
def test_every_row_is_whole_documents_and_has_a_target(
    shapes: list[tuple[int, int]], size: int, order: str, masked: bool, block: int
) -> None:
    lengths = [length for length, _ in shapes]
    prompts = [min(prompt, length) for length, prompt in shapes] if masked else None
    split, data = side_of(lengths, prompts), data_of(size, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.data.packing.BLOCK", block)  # tokens of the mask that are read at once
        packed = packed_rows(split, size, masked=True)
    learnable = [
        number for number, (length, prompt) in enumerate(shapes)
        if max(1, min(prompt, length) if masked else 1) < min(length, size + 1)
    ]  # fmt: skip
    assert sorted(packed.documents.tolist()) == learnable
    held = sum(min(lengths[number], size + 1) for number in learnable)
    assert packed.cropped == pytest.approx(1 - held / sum(lengths))
    if not packed.rows:
        return
    assert packed.padding == pytest.approx(1 - held / (packed.rows * (size + 1)))
    for step in range(3):
        inputs, targets = batch(split, data, 5, step)
        again = batch(split, data, 5, step)
        assert (inputs == again[0]).all() and (targets == again[1]).all()
        for row, wanted in zip(inputs[0], targets[0], strict=True):
            assert (wanted != NO_TARGET).any()
            assert row[0] in split.starts
            where = np.flatnonzero(wanted != NO_TARGET)
            assert (wanted[where] == row[where] + 1).all()  # a target follows its input in the same document


@pytest.mark.parametrize("size", [64, 256, 2048])
def test_best_fit_wastes_little(size: int) -> None:
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(4.2, 0.8, 3000).astype(int), 2, None).tolist()
    split = side_of(lengths)
    packed = packed_rows(split, size, masked=True)
    too_long = sum(max(length - size - 1, 0) for length in lengths) / sum(lengths)
    assert packed.cropped == pytest.approx(too_long) and packed.padding < 0.03
    rows = packed.numbers(np.arange(packed.rows))
    for row in rows[:50]:
        assert sum(min(lengths[number], size + 1) for number in row if number >= 0) <= size + 1


@pytest.mark.parametrize("size", [64, 256, 2048])
@pytest.mark.parametrize("order", ["random", "epochs"])
def test_no_row_is_without_a_target(size: int, order: str) -> None:
    """Documents from 1 token to far more than a row, with prompts from none to all of them."""
    rng = np.random.default_rng(size)
    lengths = np.concatenate(
        [rng.integers(1, 100, 400), rng.integers(100, 5 * size, 100), [1, 2, size, size + 1, size + 2]]
    )
    split = side_of(lengths.tolist(), (rng.integers(0, 2, len(lengths)) * rng.integers(0, lengths + 1)).tolist())
    data, packed = data_of(size, order, rows=8), packed_rows(split, size, masked=True)
    for step in range(-(-packed.rows // 8)):
        inputs, targets = batch(split, data, 1, step)
        assert (targets != NO_TARGET).any(axis=2).all() and np.isin(inputs[..., 0], split.starts).all()


def test_an_epoch_has_every_document_once() -> None:
    split = side_of([5, 9, 3, 12, 7, 4, 8, 2, 6, 11] * 3)
    packed = packed_rows(split, 15, masked=True)
    data = data_of(15, "epochs", rows=1)
    seen = [documents_in(batch(split, data, 3, step)[0][0, 0], split) for step in range(packed.rows)]
    assert sorted(number for row in seen for number in row) == list(range(30))
    later = [batch(split, data, 3, step)[0].tolist() for step in range(packed.rows, 2 * packed.rows)]
    first = [batch(split, data, 3, step)[0].tolist() for step in range(packed.rows)]
    assert sorted(later) == sorted(first) and later != first


def test_texts_with_special_tokens_are_documents(lab: Path, terrarium: Terrarium) -> None:
    folder = write(lab / "stories", STORIES, BPE)
    assert terrarium("train", "stories").exit_code == 0
    dataset = load_dataset(folder / "datasets" / "basic")
    ids, mask = dataset.train.document(0)
    special = dataset.encoder.special  # type: ignore[attr-defined]
    assert dataset.info["kind"] == "documents" and mask is not None and dataset.begin == special["<|bos|>"]
    assert (ids[0], ids[-1]) == (special["<|bos|>"], special["<|end|>"])
    assert mask.tolist() == [0] + [1] * (len(ids) - 1)
    found = json.loads((folder / "out" / "default" / "summary.json").read_text())
    assert 0 < found["cropped"] < 0.7 and 0 <= found["padding"] < 0.2
    checked = terrarium("check", "stories", "--no-timing")
    assert "rows of whole documents; " in checked.stdout and "of the tokens are cropped" in checked.stdout
    assert "different prompts" not in checked.stdout and "suspicious" in checked.stdout
    assert not re.search(r"of validation also occurs in training|prompts  ", checked.stdout)
    shares = json.loads(terrarium("check", "stories", "--no-timing", "--json").stdout)["packing"]
    assert (shares["cropped"], shares["padding"]) == (found["cropped"], found["padding"])
    drawn = terrarium("sample", "stories", "--num-samples", "1", "--json")
    assert drawn.exit_code == 0 and json.loads(drawn.stdout)["samples"][0]["text"]
    model = open_experiment("stories").run().load()
    assert model.begun("ab").ids == (special["<|bos|>"], *model.encoder.encode("ab").tolist())  # type: ignore[attr-defined]
    assert model.complete(["ab"], temperature=0)[0] == "".join(model.stream("ab", temperature=0))


def test_every_prompt_begins_as_documents_do(lab: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    """What look and evaluate ask, too."""
    folder = write(lab / "stories", STORIES, BPE)
    assert terrarium("train", "stories").exit_code == 0
    looked = json.loads(terrarium("look", "stories", "--prompt", "ab", "--json").stdout)
    assert looked["prompt"] == "<|bos|>ab"
    assert json.loads((folder / "out/default/look.json").read_text())["tokens"][0] == "<|bos|>"
    model, asked = open_experiment("stories").run().load(), list[Any]()
    monkeypatch.setattr(
        "core.lab.elsewhere.complete", lambda *given, **_: asked.extend(given[2]) or ["b"] * len(given[2])
    )
    assert evaluate_prompts(model, [Example("ab", "b"), Example("cab", "a")])[0]["accuracy"] == 0.5
    begin = model.trained.begin
    assert [list(prompt.ids) for prompt in asked] == [
        [begin, *model.encoder.encode(text).tolist()] for text in ("ab", "cab")
    ]


@pytest.mark.parametrize("order", ["random", "epochs"])
def test_examples_and_conversations_are_packed_too(spaces: Path, terrarium: Terrarium, order: str) -> None:
    more = ["-s", "train.data.packing=documents", "-s", f"train.data.order={order}"]
    assert terrarium("train", "spaces", *more).exit_code == 0
    chat = "from core import Conversation, Message\ndef documents(rng):\n    while True:\n        word = ''.join(rng.choices('abc', k=3))\n        yield Conversation([Message('user', word), Message('assistant', word[::-1])])\n"
    write(spaces.parent / "talk", chat, BPE)
    done = terrarium("train", "talk", "-s", f"train.data.order={order}")
    assert done.exit_code == 0, done.output
    summary = json.loads((spaces.parent / "talk" / "out" / "default" / "summary.json").read_text())
    assert summary["cropped"] == 0 and np.isfinite(summary["best_val_loss"])


def test_running_text_cannot_be_packed(text: Path, terrarium: Terrarium) -> None:
    done = terrarium("train", "text", "-s", "train.data.packing=documents")
    assert done.exit_code == 2 and "no documents to pack" in done.stderr and "special_tokens" in done.stderr


def test_prompts_that_fill_every_row_are_refused(lab: Path, terrarium: Terrarium) -> None:
    code = "from core import Example\ndef documents(rng):\n    while True:\n        yield Example('a' * rng.randint(40, 50), 'b\\n')\n"
    write(lab / "long", code, TINY.replace("batch_size = 4", 'batch_size = 4\npacking = "documents"'))
    done = terrarium("train", "long")
    assert done.exit_code == 2 and "no row of 16 tokens holds a target" in done.stderr


@pytest.mark.parametrize("order", ["random", "epochs"])
def test_a_killed_run_goes_on_exactly(lab: Path, terrarium: Terrarium, order: str) -> None:
    folder = write(lab / "stories", STORIES, BPE)
    settings = ["-s", f"train.data.order={order}", "-s", "train.schedule.lr_decay_iters=8"]
    assert terrarium("train", "stories", *settings, "-s", "train.schedule.max_iters=8").exit_code == 0
    assert terrarium("train", "stories", "--run", "two", *settings, "-s", "train.schedule.max_iters=4").exit_code == 0
    assert (
        terrarium(
            "train", "stories", "--run", "two", "--resume", *settings, "-s", "train.schedule.max_iters=8"
        ).exit_code
        == 0
    )
    weights = [(folder / "out" / run / "checkpoints/last/model.safetensors").read_bytes() for run in ("default", "two")]
    assert weights[0] == weights[1]
