"""What prepare.py may bring besides documents: keys of a model and an optimizer, evaluate, answer and loss."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from core import open_experiment
from core.config import ObjectiveConfig
from core.data.params import keywords
from core.errors import UserError
from core.lab.own import Batch, objective_of, own_function
from core.plugins.manager import plugins

Terrarium = Callable[..., Result]

OPTIMIZER = """

import torch


class Plain(torch.optim.SGD):
    def __init__(self, model, config, *, momentum_of_mine: float = 0.0):
        super().__init__(model.parameters(), lr=config.learning_rate, momentum=momentum_of_mine)


def register_optimizers(register):
    register("plain", Plain)
"""
EVALUATE = """

def evaluate(run, model, encoder):
    import torch

    return {"draw": torch.rand(()), "never": float("nan"), "size/all": sum(p.numel() for p in model.parameters())}
"""
LOSS = """

def loss(model, batch):
    from torch.nn.functional import cross_entropy

    logits = model(batch.inputs)
    return SCALE * cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-1)
"""


def add(folder: Path, code: str) -> None:
    path = folder / "prepare.py"
    path.write_text(path.read_text() + code)


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def learnt(run: Path) -> list[tuple[str, str]]:
    return [(row["val_loss"], row["param_norm"]) for row in rows_of(run)]


def test_keys_of_an_own_optimizer(spaces: Path, terrarium: Terrarium) -> None:
    add(spaces, OPTIMIZER)
    own = ("-s", "train.optim.name=plain", "-s", "train.optim.params.momentum_of_mine=0.5")
    assert terrarium("train", "spaces", *own).exit_code == 0
    assert "[train.optim.params]\nmomentum_of_mine = 0.5\n" in (spaces / "out/default/config.toml").read_text()
    state = json.loads((spaces / "out/default/checkpoints/last/state.json").read_text())
    assert state["optimizer"]["groups"][0]["momentum"] == 0.5
    again = terrarium("train", "spaces", *own[:2])
    assert again.exit_code == 2 and "train.optim.params.momentum_of_mine: 0.5 -> None" in again.stderr


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("momentum=1", "unknown key 'train.optim.params.momentum'\n  Did you mean 'momentum_of_mine'? The keys are"),
        ("momentum_of_mine=much", 'momentum_of_mine = "much": input should be a valid number\n  Plain() declares'),
    ],
)
def test_wrong_keys_of_an_own_optimizer(spaces: Path, terrarium: Terrarium, key: str, told: str) -> None:
    add(spaces, OPTIMIZER)
    result = terrarium("train", "spaces", "-s", "train.optim.name=plain", "-s", f"train.optim.params.{key}")
    assert result.exit_code == 2
    assert told in result.stderr
    assert not (spaces / "datasets").exists()  # it is told before anything is made


def test_built_in_models_have_keys_of_their_own(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces", "-s", "train.model.params.deepness=3")
    assert result.exit_code == 2
    assert "unknown key 'train.model.params.deepness'" in result.stderr
    assert "The keys are the parameters after * of GPT()." in result.stderr
    lstm = ("-s", "train.model.kind=lstm", "-s", "train.model.params.single_bias=3")
    assert "LSTM() declares single_bias: bool." in terrarium("train", "spaces", *lstm).stderr
    result = terrarium("train", "spaces", "-s", "train.model.deepness=3")
    assert "A key of your own function goes under [train.model.params]." in result.stderr


def test_a_key_without_a_default_must_be_given() -> None:
    def build_model(config: Any, vocab_size: int, *, depth: int) -> None: ...

    assert keywords(build_model, {"depth": 3}, "train.model.params") == {"depth": 3}
    with pytest.raises(
        UserError, match=r"train.model.params.depth is missing, and build_model\(\) has no default for it"
    ):
        keywords(build_model, {}, "train.model.params")


def test_evaluate_is_measured_while_training_and_changes_nothing(spaces: Path, terrarium: Terrarium) -> None:
    dropout = ("-s", "train.model.dropout=0.1", "-q")
    assert terrarium("train", "spaces", "--run", "without", *dropout).exit_code == 0
    add(spaces, EVALUATE)
    assert terrarium("train", "spaces", "--run", "with", *dropout).exit_code == 0
    out = spaces / "out"
    assert learnt(out / "with") == learnt(out / "without")
    rows = rows_of(out / "with")
    measured = [row for row in rows if row["val_loss"]]
    assert [bool(row["draw"]) for row in rows] == [bool(row["val_loss"]) for row in rows]
    assert "never" not in rows[0]
    summary = json.loads((out / "with" / "summary.json").read_text())
    best = next(row for row in measured if int(row["step"]) == summary["best_step"])
    assert summary["metrics"] == {"draw": float(best["draw"]), "size/all": summary["parameters"]}
    assert "Own metrics" in (out / "with" / "report.html").read_text()
    assert json.loads((out / "without" / "summary.json").read_text())["metrics"] is None


def test_evaluate_every_so_often(spaces: Path, terrarium: Terrarium) -> None:
    add(spaces, EVALUATE)
    keys = ("train.schedule.max_iters=7", "train.runtime.eval_interval=1", "evaluate.every=3")
    assert terrarium("train", "spaces", "-q", *(part for key in keys for part in ("-s", key))).exit_code == 0
    assert [row["step"] for row in rows_of(spaces / "out/default") if row["draw"]] == ["3", "6"]


def test_a_resumed_run_keeps_the_columns_of_evaluate(spaces: Path, terrarium: Terrarium) -> None:
    add(spaces, EVALUATE)
    short = ("-q", "-s", "train.runtime.eval_interval=2", "-s")
    assert terrarium("train", "spaces", *short, "train.schedule.max_iters=2").exit_code == 0
    assert terrarium("train", "spaces", *short, "train.schedule.max_iters=4", "--resume").exit_code == 0
    assert [(row["step"], row["draw"] != "") for row in rows_of(spaces / "out/default")] == [("2", True), ("4", True)]


def test_evaluate_may_not_measure_what_is_measured(spaces: Path, terrarium: Terrarium) -> None:
    add(spaces, "\n\ndef evaluate(run, model, encoder):\n    return {'val_loss': 0.0}\n")
    result = terrarium("train", "spaces", "-q")
    assert result.exit_code == 2
    assert "evaluate returned val_loss, which is measured already\n  Give it another name." in result.stderr


def test_the_mean_cross_entropy_as_an_own_loss_is_the_built_in_objective(spaces: Path, terrarium: Terrarium) -> None:
    """Bit for bit with one micro-batch would be luck: mean times count is rounded once more than the sum."""
    assert terrarium("train", "spaces", "--run", "built-in", "-q").exit_code == 0
    add(spaces, LOSS.replace("SCALE", "1.0"))
    assert terrarium("train", "spaces", "--run", "own", "-q", "-s", "train.data.grad_accum_steps=1").exit_code == 0
    last = [float(rows_of(spaces / "out" / run)[-1]["val_loss"]) for run in ("built-in", "own")]
    assert last[0] == pytest.approx(last[1], rel=1e-3)


def test_an_own_loss_is_what_is_minimised(spaces: Path, terrarium: Terrarium) -> None:
    add(spaces, LOSS.replace("SCALE", "0.0"))
    assert terrarium("train", "spaces", "-q", "-s", "train.optim.weight_decay=0.0").exit_code == 0
    rows = rows_of(spaces / "out/default")
    assert {row["train_loss"] for row in rows} == {"0.0"}
    assert all(float(row["val_loss"]) > 1 for row in rows if row["val_loss"])  # the cross-entropy, as ever


def test_an_own_loss_weighs_micro_batches_by_their_targets() -> None:
    class Code:
        @staticmethod
        def loss(model: Any, batch: Batch) -> torch.Tensor:
            return batch.inputs[batch.targets >= 0].mean()

    code: Any = Code
    objective = objective_of(ObjectiveConfig(), replace(plugins(), code=code))
    targets = torch.tensor([[-1, 5, 5]])
    assert objective(lambda x: x, torch.tensor([[9.0, 1.0, 2.0]]), targets) == 3.0  # 1.5 for each of two targets


@pytest.mark.parametrize(("returned", "told"), [("1.0", "float"), ("model(batch.inputs)", "a tensor of shape (")])
def test_an_own_loss_returns_one_number(spaces: Path, terrarium: Terrarium, returned: str, told: str) -> None:
    add(spaces, f"\n\ndef loss(model, batch):\n    return {returned}\n")
    result = terrarium("train", "spaces", "-q")
    assert result.exit_code == 2
    assert f"loss returned {told}" in result.stderr and "Return the mean loss of the batch" in result.stderr


def test_a_helper_with_the_name_of_a_function_of_ours_is_left_alone() -> None:
    class Code:
        def loss(a, b): ...  # noqa: N805

        answer = 42

    with pytest.warns(UserWarning, match=r"function loss, which is not used: only `def loss\(model, batch\)` is\."):
        assert own_function(Code, "loss") is None  # type: ignore[arg-type]
    assert own_function(Code, "answer") is None  # type: ignore[arg-type]


def test_answer_says_what_counts(spaces: Path) -> None:
    experiment = open_experiment("spaces")
    run = experiment.train()
    strict = run.load().evaluate()
    add(spaces, "\n\ndef answer(text):\n    return text[-1:]\n")
    model = open_experiment("spaces").run().load()
    assert model.evaluate()["val_accuracy"] >= strict["val_accuracy"]
    assert model.mistakes == [
        answer for answer in model.closing[1]["val"] if answer.text[-1:] != answer.example.completion[-1:]
    ]
