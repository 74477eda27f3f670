"""evaluate.group_loss: the loss of each group's completions while a run trains."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from core import open_experiment
from core.evaluation.group_loss import group_losses

Terrarium = Callable[..., Result]
LETTERS = """from core import Example


def documents(rng):
    while True:
        letters = rng.choices("abc", k=rng.randint(1, 4))
        yield Example("".join(letters) + ": ", " ".join(letters) + "\\n", group=f"{len(letters)} letters")
"""


@pytest.fixture
def spaces(spaces: Path) -> Path:
    """With a group for each number of letters."""
    (spaces / "prepare.py").write_text(LETTERS)
    return spaces


def test_it_is_the_mean_over_the_tokens_of_a_groups_completions(spaces: Path) -> None:
    model = open_experiment("spaces").train().load()
    examples = model.dataset.examples("val", 0)
    found = group_losses(model.module, model.dataset, examples, model.trained.machine, "val")
    assert set(found) == {f"val_loss/{example.group}" for example in examples} and len(found) > 1
    for name, loss in found.items():
        nats = []
        for example in examples:
            if f"val_loss/{example.group}" == name:
                prompt = model.encoder.encode(example.prompt).tolist()
                ids = torch.tensor([[*prompt, *model.encoder.encode(example.completion).tolist()]])
                with torch.no_grad():
                    logits = model.module(ids[:, :-1]).log_softmax(-1)
                nats += [-logits[0, at - 1, ids[0, at]].item() for at in range(len(prompt), ids.shape[1])]
        assert loss == pytest.approx(math.fsum(nats) / len(nats), abs=1e-5)


def test_evaluation_has_the_bits_per_byte_of_each_group(spaces: Path, terrarium: Terrarium) -> None:
    model = open_experiment("spaces", {"prepare.test_fraction": 0.2}).train().load()
    found = json.loads(terrarium("evaluate", "spaces", "--json").stdout)
    for side, prefix in (("val", ""), ("test", "test_")):
        examples = model.dataset.examples(side, 0)
        losses = group_losses(model.module, model.dataset, examples, model.trained.machine, side)
        assert {f"{prefix}bits_per_byte/{example.group}" for example in examples} == {
            name for name in found if name.startswith(f"{prefix}bits_per_byte/")
        }
        for group in {example.group for example in examples}:
            completions = [example.completion for example in examples if example.group == group]
            tokens = sum(len(model.encoder.encode(text)) for text in completions)
            text_bytes = sum(len(text.encode()) for text in completions)
            expected = losses[f"{side}_loss/{group}"] * tokens / text_bytes / math.log(2)
            assert found[f"{prefix}bits_per_byte/{group}"] == pytest.approx(expected, rel=1e-5)
    assert "  bits_per_byte/2 letters" in terrarium("evaluate", "spaces").stdout


def test_of_a_long_row_the_end_counts(spaces: Path) -> None:
    model = open_experiment("spaces", {"train.model.block_size": 4, "train.data.block_size": 4}).train().load()
    examples = model.dataset.examples("val", 3)
    losses = group_losses(model.module, model.dataset, examples, model.trained.machine, "val").values()
    assert all(map(math.isfinite, losses))


def test_they_are_columns_of_a_run_that_asks_for_them(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", "-q", "-s", "evaluate.group_loss=true").exit_code == 0
    assert terrarium("train", "spaces", "-q", "--run", "without").exit_code == 0
    with (spaces / "out/default/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (spaces / "out/without/metrics.csv").open() as file:
        without = list(csv.DictReader(file))
    names = [name for name in rows[0] if "_loss/" in name]
    assert {name.partition("/")[0] for name in names} == {"val_loss", "train_loss"}
    assert all(bool(row[name]) == bool(row["val_loss"]) for row in rows for name in names)
    assert [row["val_loss"] for row in rows] == [row["val_loss"] for row in without]  # measuring changes no training
    assert not any("_loss/" in name for name in without[0])
    assert json.loads((spaces / "out/default/summary.json").read_text())["metrics"] is None  # they are no own metrics
