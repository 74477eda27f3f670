"""check: what it says of the data, of what needs no network, of the cost, and of settings that look like a mistake."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import nested
from hypothesis import given
from hypothesis import strategies as st

from core.config import Config, Train, replaced
from core.data.batches import validation_rows
from core.data.dataset import Split, load_dataset
from core.data.meta_pkl import write_meta
from core.defaults import resolve
from core.evaluation import overlap as module
from core.evaluation.facts import Facts, facts_of, targets_of
from core.evaluation.overlap import overlaps, same_content
from core.evaluation.traps import traps
from core.lab.prediction import steps_of, validation_batches
from core.roles import flat

Terrarium = Callable[..., Result]
FACTS = Facts(
    groups=["short"],
    kind="examples", encoder="char", vocab_size=30, rows=True, train_tokens=1_000_000, val_tokens=100_000,
    train_documents=50_000, val_documents=5_000, train_prompts=1_000, val_prompts=100, longest=20, longer=0,
    val_in_train=0.0, parameters=400_000,
)  # fmt: skip
TEXT = dataclasses.replace(
    FACTS, kind="text", rows=False, train_documents=None, val_documents=None, train_prompts=None, val_prompts=None, longest=None, longer=None,
)  # fmt: skip


def account(terrarium: Terrarium, *arguments: str) -> dict[str, Any]:
    result = terrarium("check", *arguments, "--json", "--no-timing")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def warned(found: dict[str, Any]) -> set[str]:
    return {warning["key"] for warning in found["warnings"]}


def test_check_says_what_the_data_is(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("check", "spaces", "--no-timing")
    assert result.exit_code == 0, result.output
    for part in (
        r"documents +\d+ to train on, \d+ held out \(examples\)", r"different prompts +\d+ to train on, \d+ held out",
        r"longest document +\d+ tokens; block_size = 16", r"prompts +0 of \d+ also occur in train \(0.0%\)",
        r"uniform +1\.\d{4}  \(\d\.\d{3}\)", r"bigram +\d\.\d{4}", "suspicious settings\n  1. ", r"\d+ validation prompts?: one answer moves the accuracy by \d+%",
    ):  # fmt: skip
        assert re.search(part, result.output), part
    assert "cost of the run" not in result.output
    assert not (spaces / "out").exists()


def test_the_account_agrees_with_the_dataset(spaces: Path, terrarium: Terrarium) -> None:
    found = account(terrarium, "spaces")
    info = json.loads((spaces / "datasets" / "basic" / "dataset.json").read_text())
    data = found["data"]
    assert (data["train_tokens"], data["val_prompts"]) == (info["train"]["tokens"], info["val"]["prompts"])
    assert data["longest"] == info["train"]["longest_prompt"] + info["train"]["longest_completion"]
    assert [(part["side"], part["what"]) for part in found["overlap"]] == [
        (side, what) for side in ("val", "test") for what in ("prompts", "documents")
    ]
    assert found["prediction"] is None and found["optimal_loss"] is None
    assert found["baselines"]["nats"]["uniform"] == pytest.approx(np.log(info["vocab_size"]))


def test_a_test_side_that_stands_in_train_is_told(spaces: Path, terrarium: Terrarium) -> None:
    lines = [f"the line number {number} of a text\n" for number in range(100)]
    (spaces / "prepare.py").write_text(f"def documents():\n    yield from {lines[:90]} + {lines[:10]}\n")
    shown = terrarium("check", "spaces", "--no-timing", "prepare.size=100000", "prepare.test_fraction=0.1").stdout
    assert "91% of the test side also occurs in training, so its loss rewards memorising" in shown
    assert re.search(r"test in training\n.*\n  lines +10 of 11 also occur in train \(90.9%\)", shown), shown
    assert "of validation also occurs" not in shown


@pytest.mark.parametrize(
    "settings", [["train.data.layout=rows"], ["train.data.layout=stream"], ["train.data.mask_prompt=false"]]
)
def test_baselines_are_over_the_targets_of_val_loss(spaces: Path, terrarium: Terrarium, settings: list[str]) -> None:
    from core.toml import load_config

    assert terrarium("prepare", "spaces").exit_code == 0
    dataset = load_dataset(spaces / "datasets" / "basic")
    config, _ = load_config(spaces, overrides=settings)
    data = config.train.data
    counted = sum(int((targets >= 0).sum()) for _, targets in validation_rows(dataset.val, data))
    assert int(targets_of(dataset.val, data, dataset.val.tokens).sum()) == counted
    batches = sum(1 for _ in validation_rows(dataset.val, data))
    assert validation_batches(dataset, config.train) == batches > 2
    fewer = replaced(config, {"train.runtime.eval_iters": 2})
    assert validation_batches(dataset, fewer.train) == 2


def test_the_cost_of_the_run(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.lab.check.TIMED_SECONDS", 0.1)
    result = terrarium("check", "spaces", "--json", "-s", "train.schedule.max_iters=1000")
    assert result.exit_code == 0, result.output
    cost = json.loads(result.stdout)["prediction"]
    assert cost["steps"] == 1000 and cost["seconds"] > cost["steps"] * cost["ms_per_step"] / 1000
    assert cost["memory_bytes"] > 10_000_000
    assert 0 < sum(cost["shares"].values()) < 1
    assert "cost of the run" in result.stderr and "for 1,000 steps; share of it: evaluations" in result.stderr
    assert not (spaces / "out").exists()
    budget = terrarium("check", "spaces", "--json", "-s", "train.runtime.max_minutes=2")
    cost = json.loads(budget.stdout)["prediction"]
    assert cost["seconds"] == 120 and cost["steps"] > 100


def test_a_run_that_ends_earlier_takes_that_time_at_most(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.lab.check.TIMED_SECONDS", 0.01)
    result = terrarium("check", "spaces", "train.runtime.stop_when=val_accuracy >= 1")
    assert " steps, at most: it ends earlier at val_accuracy >= 1; share of it: " in result.stdout
    assert "at most: it ends" not in terrarium("check", "spaces").stdout


def test_steps_of_a_budget_in_time() -> None:
    config = Train()
    assert steps_of(config, 0.5) == config.schedule.max_iters
    assert steps_of(replaced(config, {"runtime.max_minutes": 1.0}), 0.5) == 120


def test_optimal_loss_is_shown(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("check", "spaces", "--no-timing", "-s", "evaluate.optimal_loss=0.25")
    assert re.search(r"optimal +0\.2500  from evaluate.optimal_loss", result.output)
    refused = terrarium("check", "spaces", "-s", "evaluate.optimal_loss=-1")
    assert refused.exit_code == 2 and "evaluate.optimal_loss = -1" in refused.output


def test_text_that_repeats_itself_is_warned_of(text: Path, terrarium: Terrarium) -> None:
    found = account(terrarium, "text")
    assert found["overlap"][0]["what"] == "windows of 50 tokens" and found["overlap"][0]["share"] == 1
    assert {"prepare.split", "prepare.val_fraction"} <= warned(found)
    shown = terrarium("check", "text", "--no-timing").output
    assert "running text, one stream" in shown and "100% of validation also occurs in training" in shown


def test_both_sides_the_same(text: Path, terrarium: Terrarium) -> None:
    folder = text / "datasets" / "own"
    folder.mkdir()
    ids = np.random.default_rng(0).integers(0, 65, 4_000).astype("<u2")
    for side in ("train", "val"):
        ids.tofile(folder / f"{side}.bin")
    write_meta(folder / "meta.pkl", [chr(33 + number) for number in range(65)])
    found = account(terrarium, "text", "-s", "prepare.dataset_dir=datasets/own")
    assert found["data"]["same"]
    assert "validation and training are the same text" in found["warnings"][0]["message"]


def test_a_warning_names_file_and_line(spaces: Path, terrarium: Terrarium) -> None:
    config = spaces / "config.toml"
    config.write_text(config.read_text().replace("batch_size = 4\n", "batch_size = 4\ngrad_accum_steps = 32\n"))
    number = config.read_text().splitlines().index("grad_accum_steps = 32") + 1
    [warning] = [entry for entry in account(terrarium, "spaces")["warnings"] if "grad_accum" in entry["key"]]
    assert warning["place"] == f"{config}:{number}"
    started = terrarium("train", "spaces")
    assert f"check: {config}:{number}: grad_accum_steps = 32 for a model of" in started.output
    assert "check: " not in terrarium("train", "spaces", "--run", "again", "--quiet").output


def test_train_does_not_repeat_itself(spaces: Path, terrarium: Terrarium) -> None:
    first = terrarium("train", "spaces")
    assert "validation prompt" in first.output
    assert "check: " not in terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=8").output


def test_check_of_what_is_not_there(lab: Path, terrarium: Terrarium) -> None:
    result = terrarium("check", "nothing")
    assert result.exit_code == 2 and "nothing" in result.output


def trap(key: str, facts: Facts = FACTS, **settings: Any) -> str:
    """The message of the trap of a key, "" if there is none; settings: dotted keys with _ for dots, such as schedule__max_iters."""
    config = resolve(Config.model_validate(nested(settings, "__")))
    given_keys = {name.replace("__", ".") for name in settings}
    return next((found.message for found in traps(config, given_keys, facts) if found.key == key), "")


@pytest.mark.parametrize(
    ("condition", "facts", "reason"),
    [
        ("val_accuracy >= 1", FACTS, ""),
        ("val_accuracy/short < 0.5", FACTS, ""),
        ("val_loss < 1.5", TEXT, ""),
        ("val_accuracy > 99", FACTS, "an accuracy is from 0 to 1"),
        ("val_accuracy > 1", FACTS, "an accuracy is from 0 to 1"),
        ("val_loss < 0", FACTS, "val_loss is never negative"),
        ("val_accuracy/long > 0.5", FACTS, "there is no group 'long'. Groups: short"),
        ("train_accuracy > 0.5", TEXT, "there is no accuracy with text"),
    ],
)
def test_a_condition_that_never_holds(condition: str, facts: Facts, reason: str) -> None:
    expected = f'stop_when = "{condition}" never holds: {reason}' if reason else ""
    assert trap("train.runtime.stop_when", facts, train__runtime__stop_when=condition) == expected


@pytest.mark.parametrize("facts", [FACTS, TEXT])
def test_defaults_are_no_trap(facts: Facts) -> None:
    config = resolve(Config.model_validate({"train": {"model": {"n_layer": 2}, "schedule": {"max_iters": 2000}}}))
    assert traps(config, set(), facts) == []


def changed(**changes: Any) -> Facts:
    return dataclasses.replace(FACTS, **changes)


def plain(**changes: Any) -> Facts:
    return dataclasses.replace(TEXT, **changes)


@pytest.mark.parametrize(
    ("key", "facts", "settings", "near", "message"),
    [
        # near: settings or facts that are just no trap
        ("train.data.grad_accum_steps", FACTS, {"train__data__grad_accum_steps": 8}, {"train__data__grad_accum_steps": 7},
         "grad_accum_steps = 8 for a model of 400,000 parameters: one step takes the time of 8, and so small a model learns more from more steps"),
        ("train.data.grad_accum_steps", FACTS, {"train__data__grad_accum_steps": 40}, changed(parameters=10_000_000), "grad_accum_steps = 40 for a model of 400,000 parameters"),
        ("train.schedule.lr_decay_iters", FACTS, {"train__schedule__lr_decay_iters": 5000}, {"train__schedule__lr_decay_iters": 1200},
         "lr_decay_iters = 5,000, but max_iters = 1,000: the learning rate never reaches its minimum"),
        ("train.schedule.lr_decay_iters", FACTS, {"train__schedule__lr_decay_iters": 500}, {"train__schedule__lr_decay_iters": 800},
         "lr_decay_iters = 500, but max_iters = 1,000: the last 500 steps are at the minimum learning rate"),
        ("train.schedule.lr_decay_iters", FACTS, {"train__schedule__lr_decay_iters": 5000},
         {"train__schedule__lr_decay_iters": 5000, "train__runtime__max_minutes": 3}, "lr_decay_iters = 5,000"),
        ("train.schedule.lr_decay_iters", FACTS, {"train__schedule__lr_decay_iters": 500},
         {"train__schedule__lr_decay_iters": 500, "train__runtime__stop_when": "val_loss < 1"}, "lr_decay_iters = 500"),
        ("train.data.block_size", FACTS, {"train__data__block_size": 256}, {"train__data__block_size": 160},
         "block_size = 256 is 13 times the longest document (20 tokens)"),
        ("train.data.block_size", changed(longest=100, longer=7), {}, changed(longest=100, longer=7, rows=False),
         "block_size = 64: 7 of 50,000 training documents are longer (up to 100 tokens)"),
        ("train.model.block_size", changed(longest_prompt=65), {}, changed(longest_prompt=64),
         "block_size = 64: the longest prompt has 65 tokens, and the model sees only the end of such prompts"),
        ("prepare.val_fraction", changed(same=True), {}, FACTS, "validation and training are the same text"),
        ("prepare.split", changed(val_in_train=0.51), {}, changed(val_in_train=0.5), "51% of validation also occurs in training"),
        ("prepare.val_fraction", changed(val_prompts=19), {}, changed(val_prompts=20), "19 validation prompts: one answer moves the accuracy by 5%"),
        ("prepare.val_fraction", plain(val_tokens=999), {}, plain(val_tokens=1000), "999 validation tokens: the loss over so few is noisy"),
        ("prepare.vocab_size", plain(encoder="bpe", vocab_size=1000, train_tokens=9_999), {}, plain(encoder="bpe", vocab_size=1000, train_tokens=10_000),
         "a vocabulary of 1,000 for 9,999 training tokens: most ids occur too rarely to be learnt"),
        ("prepare.encoder", plain(encoder="gpt2", vocab_size=50257, train_tokens=300_000), {}, plain(encoder="char", vocab_size=50257, train_tokens=300_000), "a vocabulary of 50,257"),
        ("train.data.mask_prompt", TEXT, {"train__data__mask_prompt": True}, FACTS, "mask_prompt is set, but running text has no prompts"),
        ("sample.sample.temperature", FACTS, {"sample__sample__temperature": 0.8}, TEXT, "temperature = 0.8 draws answers at random"),
        ("train.runtime.eval_interval", FACTS, {"train__runtime__eval_interval": 1001}, {"train__runtime__eval_interval": 1000},
         "eval_interval = 1,001 is more than max_iters = 1,000: validation loss is measured only at the end"),
        ("train.runtime.checkpoint_interval", FACTS, {"train__runtime__checkpoint_interval": 5000, "train__schedule__max_iters": 2000},
         {"train__runtime__checkpoint_interval": 5000, "train__schedule__max_iters": 1999}, "checkpoint_interval = 5,000 is more than max_iters = 2,000: a crash would lose the whole run"),
        ("train.runtime.checkpoint_interval", changed(seconds=601), {"train__runtime__checkpoint_interval": 5000}, changed(seconds=600), "checkpoint_interval = 5,000"),
        ("train.schedule.max_iters", changed(train_tokens=20_000), {}, changed(train_tokens=30_720), "max_iters = 1,000 reads the training side 77 times"),
        ("train.model.dropout", changed(train_tokens=3_072_000), {"train__model__dropout": 0.2}, changed(train_tokens=1_000_000), "dropout = 0.2 helps against memorising, but this run reads only 50% of the training side once"),
    ],
)  # fmt: skip
def test_a_trap_and_what_is_just_none(
    key: str, facts: Facts, settings: dict[str, Any], near: Any, message: str
) -> None:
    assert message in trap(key, facts, **settings)
    if isinstance(near, Facts):
        assert trap(key, near, **settings) == ""
    else:
        assert trap(key, facts, **near) == ""


KEYS = set(flat(resolve(Config()).model_dump())) | {
    "train.data.mask_prompt",
    "sample.sample.temperature",
    "train.schedule.lr_decay_iters",
}


def test_packed_documents_are_cropped_and_an_epoch_is_what_rows_hold() -> None:
    long = changed(longest=300, longer=7)
    for order in ("random", "epochs"):
        packed = {"train__data__packing": "documents", "train__data__order": order}
        assert "the rest of these is never read" in trap("train.data.block_size", long, **packed)
    assert "they are read in parts" in trap("train.data.block_size", long, train__data__order="epochs")
    steps = {"train__schedule__max_iters": 10_000}  # of 1,536 tokens: 15 times a million
    assert trap("train.schedule.max_iters", FACTS, **steps) == ""
    assert "154 times" in trap("train.schedule.max_iters", changed(epoch_tokens=100_000), **steps)


def test_every_trap_names_a_key_and_a_remedy() -> None:
    values = {
        "train": {
            "data": {"grad_accum_steps": 9, "block_size": 256, "mask_prompt": True},
            "model": {"dropout": 0.1, "block_size": 256},
            "schedule": {"lr_decay_iters": 9000, "max_iters": 3000},
            "runtime": {"eval_interval": 3001, "checkpoint_interval": 3001},
        },
        "sample": {"sample": {"temperature": 0.8}},
    }
    config, chosen = resolve(Config.model_validate(values)), set(flat(values))
    found = [
        one
        for facts in (FACTS, TEXT, changed(same=True, val_prompts=3), changed(val_in_train=0.9, train_tokens=50))
        for one in traps(config, chosen, facts)
    ]
    assert len({one.key for one in found}) >= 9
    for one in found:
        assert one.key in KEYS
        assert len(one.remedy) > 15 and one.remedy.endswith(".") and not one.message.endswith(".")


documents = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=12)


def side(texts: list[list[int]], asked: int) -> Split:
    """Documents of which at most `asked` ids are the prompt."""
    ids = np.array([token for text in texts for token in text], np.uint16)
    mask = np.array([int(place >= asked) for text in texts for place in range(len(text))], np.uint8)
    starts = np.cumsum([0, *map(len, texts[:-1])]).astype(np.uint64)
    return Split(Path("side.bin"), ids, mask, starts)


@given(documents, documents, st.integers(1, 3))
def test_overlap_of_documents_is_that_of_sets(train: list[list[int]], val: list[list[int]], asked: int) -> None:
    prompts, whole = overlaps(side(train, asked), side(val, asked), 3)
    known = {tuple(text[:asked]) for text in train}
    wanted = {tuple(text[:asked]) for text in val}
    assert (prompts.parts, prompts.in_train) == (len(wanted), len(wanted & known))
    assert (whole.parts, whole.in_train) == (len(val), sum(text in train for text in val))


@given(st.lists(st.integers(0, 2), min_size=5, max_size=80), st.lists(st.integers(0, 2), min_size=3, max_size=40))
def test_overlap_of_text_is_that_of_windows(train: list[int], val: list[int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "WINDOW", 3)
        monkeypatch.setattr(module, "BLOCK", 8)
        [found] = overlaps(*(Split(Path("side.bin"), np.array(ids, np.uint16)) for ids in (train, val)), 3)
        monkeypatch.setattr(module, "WINDOWS", 4)
        [some] = overlaps(*(Split(Path("side.bin"), np.array(ids, np.uint16)) for ids in (train, val)), 3)
    windows = [val[i : i + 3] for i in range(0, len(val) - 2, 3)]
    known = [train[i : i + 3] for i in range(len(train) - 2)]
    assert (found.parts, found.in_train) == (len(windows), sum(window in known for window in windows))
    assert some.parts == min(4, len(windows)) and some.in_train <= found.in_train


def test_same_content() -> None:
    one, other = (Split(Path("side.bin"), np.array(ids, np.uint16)) for ids in ([1, 2, 3], [1, 2, 4]))
    assert same_content(one, one) and not same_content(one, other)


def test_facts_take_no_time(spaces: Path, terrarium: Terrarium) -> None:
    """The short form is part of the time to the first step: it reads where documents begin, not what is in them."""
    assert terrarium("prepare", "spaces").exit_code == 0
    dataset = load_dataset(spaces / "datasets" / "basic")
    unread = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, ids=Unread(dataset.train.tokens)))
    config = resolve(Config())
    assert facts_of(unread, config.train.data) == facts_of(dataset, config.train.data)


class Unread:
    """Ids that must not be looked at."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length
