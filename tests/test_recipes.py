"""Both models with every optimizer and schedule: they train, and a run in pieces ends as the unbroken one."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Terrarium = Callable[..., Result]
MODELS = ("gpt", pytest.param("lstm", marks=pytest.mark.slow))
OPTIMIZERS = ("muon", "adamw", "adam", "sgd")
SCHEDULES = ("linear", "cosine", "constant", "wsd", "step", "plateau")
PARTS = ("model.safetensors", "optimizer.safetensors")


def options(**keys: Any) -> list[str]:
    """Settings for the command line; __ stands for a dot."""
    values = {"train.runtime.attention": "explicit", "train.runtime.threads": 1}
    values |= {f"train.{key.replace('__', '.')}": value for key, value in keys.items()}
    return [part for key, value in values.items() for part in ("-s", f"{key}={json.dumps(value)}")]


def rows_of(spaces: Path, run: str = "default") -> list[dict[str, str]]:
    with (spaces / "out" / run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def in_pieces(spaces: Path, terrarium: Terrarium, *given: str) -> None:
    """Train 12 steps at once and in three tries, and compare the weights, the optimizers and the metrics."""
    steady = [*options(schedule__lr_decay_iters=12, schedule__warmup_iters=2, model__dropout=0.1), *given]
    result = terrarium("train", "spaces", *steady, "-s", "train.schedule.max_iters=12")
    assert result.exit_code == 0, result.output
    for steps in (3, 9, 12):
        more = ["--resume"] if steps > 3 else []
        result = terrarium(
            "train", "spaces", "--run", "pieces", *steady, "-s", f"train.schedule.max_iters={steps}", *more
        )
        assert result.exit_code == 0, result.output
    ends = [spaces / "out" / run / "checkpoints" / "last" for run in ("default", "pieces")]
    for part in PARTS:
        assert (ends[0] / part).read_bytes() == (ends[1] / part).read_bytes()
    states = [json.loads((end / "state.json").read_text())["progress"] for end in ends]
    assert states[0]["plateau"] == states[1]["plateau"]
    for column in ("val_loss", "learning_rate"):
        whole, pieces = (
            {row["step"]: row[column] for row in rows_of(spaces, run) if row["val_loss"]}
            for run in ("default", "pieces")
        )
        assert whole.items() <= pieces.items()  # which have the closing evaluations of their tries, too


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_trains_and_resumes(spaces: Path, terrarium: Terrarium, kind: str, name: str) -> None:
    in_pieces(spaces, terrarium, *options(model__kind=kind, optim__name=name, model__n_layer=2))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("decay", SCHEDULES)
def test_each_schedule_trains_and_resumes(spaces: Path, terrarium: Terrarium, kind: str, decay: str) -> None:
    given = options(model__kind=kind, optim__name="adamw", schedule__decay=decay, schedule__patience=0)
    in_pieces(spaces, terrarium, *given)


def test_plateau_lowers_the_rate_when_the_loss_has_stopped_falling(spaces: Path, terrarium: Terrarium) -> None:
    """At a rate of nearly nothing the loss stands still, so the rate falls at every second evaluation. The closing evaluations
    of the pieces, at steps 3 and 9, do not count."""
    still = options(
        optim__name="adamw", optim__learning_rate=1e-9, schedule__decay="plateau", schedule__patience=1,
        schedule__factor=0.5, schedule__warmup_iters=0, runtime__eval_interval=2, runtime__log_interval=2,
    )  # fmt: skip
    in_pieces(spaces, terrarium, *still)
    # evaluations at 2 (the first), 4 and 6 (in vain, so it falls), 8 and 10 (again); a row tells the rate of its step
    assert [float(row["learning_rate"]) for row in rows_of(spaces)] == pytest.approx(
        [1e-9, 1e-9, 1e-9, 5e-10, 5e-10, 2.5e-10]
    )


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", ["muon", *(pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS[1:])])
def test_a_weight_decay_of_one(spaces: Path, terrarium: Terrarium, kind: str, name: str) -> None:
    """As studies of grokking have it: the model trains, and its weights get smaller than without."""
    given = options(model__kind=kind, optim__name=name, schedule__max_iters=40, model__tie_weights=False)
    rate = {"muon": 0.02, "sgd": 0.1}.get(name, 0.01)
    norms = {}
    for decay in (0.0, 1.0):
        keys = options(optim__weight_decay=decay, optim__learning_rate=rate, schedule__warmup_iters=0)
        result = terrarium("train", "spaces", "--run", f"decay-{decay:g}", *given, *keys)
        assert result.exit_code == 0, result.output
        rows = rows_of(spaces, f"decay-{decay:g}")
        assert all(math.isfinite(float(row["train_loss"])) for row in rows)
        assert float(rows[-1]["val_loss" if rows[-1]["val_loss"] else "train_loss"]) <= float(rows[0]["train_loss"])
        norms[decay] = float(rows[-1]["param_norm"])
    # Muon leaves embeddings to Adam, at a large rate and without decay: they outweigh the matrices.
    assert name == "muon" or norms[1.0] < norms[0.0]


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_older_plugin_of_that_name_goes_before_the_built_in_one(
    spaces: Path, terrarium: Terrarium, name: str
) -> None:
    code = f'''

def register_optimizers(register):
    import torch

    def own(model, config):
        print("mine")
        return torch.optim.SGD(model.parameters(), lr=0.01)

    register("{name}", own)
'''
    with (spaces / "prepare.py").open("a") as file:
        file.write(code)
    result = terrarium("train", "spaces", *options(optim__name=name))
    assert result.exit_code == 0, result.output
    assert "mine" in result.stdout


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_with_params_is_trained_sampled_and_evaluated(spaces: Path, terrarium: Terrarium, kind: str) -> None:
    params = {
        "gpt": {"post_norm": True, "ff_bias": False, "head_bias": True},
        "lstm": {"hidden": 24, "single_bias": True, "head_bias": True},
    }[kind]
    keys = {f"model__params__{key}": value for key, value in params.items()}
    given = options(model__kind=kind, model__preset="gpt2", model__bias=True, model__tie_weights=False, **keys)
    in_pieces(spaces, terrarium, *given)
    for command in ("evaluate", "sample"):
        result = terrarium(command, "spaces")
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ({"schedule__decay": "step", "runtime__max_minutes": 1.0}, "train.schedule.interval", "needs an interval where max_minutes ends the run"),
        ({"schedule__decay": "wsd", "schedule__min_lr": 0.0}, "train.schedule.min_lr", "falls exponentially, and so never to 0"),
        ({"model__kind": "lstm", "model__params__hidden": 0}, "train.model.params.hidden", "a layer needs at least one channel"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_message(
    spaces: Path, terrarium: Terrarium, keys: dict[str, Any], place: str, message: str
) -> None:
    result = terrarium("train", "spaces", *options(**keys))
    assert result.exit_code == 2
    assert place in result.stderr and message in result.stderr
    assert not (spaces / "out" / "default").exists()
