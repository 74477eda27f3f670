"""The trainer's parts: counting, clipping, checkpoints that are damaged, and what a resume refuses."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from core.errors import RunFailed, UserError
from core.evaluation.loss import bits_per_byte, mean_loss
from core.tracking.metrics import MetricsFile, read_rows
from core.training import checkpoints
from core.training.machine import Machine
from core.training.step import clip_gradient

Terrarium = Callable[..., Result]


def some_checkpoint(parent: Path, step: int) -> Path:
    tensors = {"a": torch.full((3,), float(step)), "b": torch.arange(4)}
    return checkpoints.save(parent, "last", tensors, {"0.m": torch.ones(2)}, {"step": step})


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    some_checkpoint(tmp_path, 1)
    some_checkpoint(tmp_path, 2)
    checkpoint = checkpoints.load(tmp_path, "last")
    assert checkpoint.state["step"] == 2
    assert torch.equal(checkpoint.model["a"], torch.full((3,), 2.0))
    assert checkpoint.model["b"].dtype == torch.int64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "last.previous"]


def break_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("part", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", [break_in_half, flip_a_bit, Path.unlink])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, part: str, harm: Callable[[Path], None]
) -> None:
    some_checkpoint(tmp_path, 1)
    harm(some_checkpoint(tmp_path, 2) / part)
    with pytest.warns(UserWarning, match=rf"{part}.*Using .*last\.previous \(step 1\) instead"):
        assert checkpoints.load(tmp_path, "last").state["step"] == 1
    shutil.rmtree(tmp_path / "last.previous")
    with pytest.raises(UserError) as caught:
        checkpoints.load(tmp_path, "last")
    assert part in str(caught.value)
    assert "Train the run again with `fresh=True`." in str(caught.value)


def test_a_kill_between_the_renames_leaves_the_one_before(tmp_path: Path) -> None:
    some_checkpoint(tmp_path, 1)
    (tmp_path / "last").rename(tmp_path / "last.previous")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.load(tmp_path, "last").state["step"] == 1


def test_no_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        checkpoints.load(tmp_path, "best")
    assert "there is no checkpoint 'best'" in str(caught.value)


def test_weights_that_do_not_fit_are_told() -> None:
    with pytest.raises(UserError) as caught:
        checkpoints.put_weights(torch.nn.Linear(2, 3), {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, "a/run")
    assert "a/run: the weights do not fit the model: weight" in str(caught.value)


def test_an_optimizer_comes_back_as_it_was(tmp_path: Path) -> None:
    def one() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    model, optimizer = one()
    step(model, optimizer)
    other, resumed = one()
    tensors, plain = checkpoints.flatten(optimizer)
    checkpoints.save(tmp_path, "last", checkpoints.weights(model), tensors, {"step": 1, "optimizer": plain})
    stored = checkpoints.load(tmp_path, "last")
    checkpoints.put_weights(other, stored.model, "")
    checkpoints.unflatten(resumed, stored.optimizer, stored.state["optimizer"])
    step(model, optimizer)
    step(other, resumed)
    assert torch.equal(model.weight, other.weight)


def test_clipping_measures_before_it_clips() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0]])
    assert float(clip_gradient(model, 0.0)) == 3.0
    assert float(model.weight.grad) == 3.0
    assert float(clip_gradient(model, 1.0)) == 3.0
    assert float(model.weight.grad) == pytest.approx(1.0, abs=1e-5)


def test_metrics_survive_a_line_that_was_cut_short(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, ["val_accuracy"], keep_until=0)
    metrics.append({"step": 1, "train_loss": 0.5})
    metrics.append({"step": 2, "val_accuracy": 1.0})
    metrics.close()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,128,0.")
    assert read_rows(path) == [{"step": 1, "train_loss": 0.5}, {"step": 2, "val_accuracy": 1.0}]
    resumed = MetricsFile(tmp_path, ["val_accuracy"], keep_until=1)
    resumed.close()
    assert read_rows(path) == [{"step": 1, "train_loss": 0.5}]
    assert json.loads((tmp_path / "metrics.json").read_text()) == [{"step": 1, "train_loss": 0.5}]


def test_another_vocabulary_is_told_with_the_folder_that_a_tilde_means(
    spaces: Path, terrarium: Terrarium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert terrarium("prepare", "spaces").exit_code == 0
    shutil.copytree(spaces / "datasets" / "basic", tmp_path / "mine")
    assert terrarium("train", "spaces", "--run", "far", "-s", "prepare.dataset_dir=~/mine").exit_code == 0
    assert terrarium("new", "other", "--from", "spaces").exit_code == 0
    changed = ("-s", "prepare.params.alphabet=xyz", "-s", "train.model.init_from=spaces/far")
    refused = terrarium("train", "other", *changed)
    assert refused.exit_code == 2
    assert f"prepare.encoder_from={tmp_path / 'mine'}" in refused.stderr


def test_finetuning_needs_the_same_vocabulary(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    assert terrarium("new", "other", "--from", "spaces").exit_code == 0
    alphabet = ("-s", "prepare.params.alphabet=xyz", "-s", "train.model.init_from=spaces/default")
    refused = terrarium("train", "other", *alphabet)
    assert refused.exit_code == 2
    assert (
        "train.model.init_from: spaces/default was trained with another vocabulary than this dataset has"
        in refused.stderr
    )
    assert "prepare.encoder_from=" in refused.stderr
    unknown = terrarium("train", "other", *alphabet, "-s", "prepare.encoder_from=../spaces/datasets/basic")
    assert unknown.exit_code == 2
    assert "'x'" in unknown.stderr or "'y'" in unknown.stderr or "'z'" in unknown.stderr
    fitting = ("-s", "prepare.params.alphabet=ab", "-s", "prepare.encoder_from=../spaces/datasets/basic")
    rates = ("learning_rate", "embedding_lr", "head_lr")
    still = [part for key in rates for part in ("-s", f"train.optim.{key}=1e-9")]
    tuned = terrarium("train", "other", *fitting, "-s", "train.model.init_from=spaces/default", *still)
    assert tuned.exit_code == 0, tuned.output
    before, after = (
        checkpoints.load(spaces.parent / name / "out" / "default" / "checkpoints", which).model
        for name, which in (("spaces", "best"), ("other", "last"))
    )
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)


def test_a_validation_without_targets_is_told() -> None:
    rows = [(np.zeros((1, 2), np.int64), np.full((1, 2), -1))]
    with pytest.raises(UserError, match="the validation batches that are read have no targets"):
        mean_loss(torch.nn.Embedding(3, 3), rows, Machine(torch.device("cpu"), torch.float32))


def test_the_mean_is_over_targets_and_bits_are_per_byte() -> None:
    model = torch.nn.Embedding(4, 4)
    torch.nn.init.zeros_(model.weight)
    rows = [
        (np.zeros((2, 2), np.int64), np.array([[1, -1], [-1, -1]])),
        (np.zeros((1, 2), np.int64), np.array([[3, 0]])),
    ]
    loss = mean_loss(model, rows, Machine(torch.device("cpu"), torch.float32))
    assert loss == pytest.approx(math.log(4))
    assert bits_per_byte(loss, targets=3, text_bytes=6) == pytest.approx(1.0)


def test_a_checkpoint_without_memory_to_write_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors would abort the process where an allocation fails."""
    some_checkpoint(tmp_path, 1)

    def none(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoints.np, "empty", none)
    with pytest.raises(
        RunFailed, match=r"not enough memory to write it: .* are needed\.\n  The checkpoint before is whole\."
    ):
        some_checkpoint(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoints.load(tmp_path, "last").state["step"] == 1
    assert not list(tmp_path.glob(".tmp-*"))
