"""train.model.depth: shape, tokens, batch and steps by rules, shown with their arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli
from click.testing import Result
from preparing import write

from core.config import Config
from core.defaults import resolve
from core.dial import FITTED, matrix_parameters, rules_of, with_shape
from core.models.build import build_model, flops_per_token

Terrarium = Callable[..., Result]
DEPTH = """[prepare]
size = 20000
[train.model]
depth = 1
block_size = 32
[train.schedule]
tokens_per_parameter = 0.05
[train.runtime]
device = "cpu"
dtype = "float32"
trackers = []
"""
STORIES = """def documents(rng):
    while True:
        yield "".join(rng.choices("abcdef ", k=200))
"""


def config_of(**train: Any) -> Config:
    return resolve(Config.model_validate(with_shape({"train": train})))


@pytest.mark.parametrize("preset", ["modern", "gpt2", "llama"])
@pytest.mark.parametrize("more", [{}, {"n_kv_head": 1}])
def test_the_parameters_are_those_of_the_model(preset: str, more: dict[str, int]) -> None:
    config = config_of(model={"depth": 2, "preset": preset, "block_size": 32, **more}).train.model
    attention = 12 * config.n_embd * config.n_layer * 32
    matrices = (flops_per_token(build_model(config, 50), 32) - attention) // 6
    assert matrix_parameters(config, 50) == matrices


def test_the_arithmetic_at_the_depth_where_it_was_fitted() -> None:
    """Depth 12 has about 1.3 billion tokens in steps of 2^19, in 2,520 of them (nanochat's own figures)."""
    config = config_of(model={"depth": 12, "block_size": 2048})
    rules = {rule.key.rpartition(".")[2]: rule for rule in rules_of(config, set(), 32_768)}
    assert (rules["n_layer"].value, rules["n_embd"].value, rules["n_head"].value) == (12, 768, 12)
    assert rules["batch_size"].value * rules["grad_accum_steps"].value * 2048 == 2**19
    assert rules["max_iters"].value == pytest.approx(2520, rel=0.02)
    assert all(rule.given is None for rule in rules.values()) and "110," in rules["max_iters"].because


def test_what_is_given_counts() -> None:
    config = config_of(
        model={"depth": 4, "n_embd": 128, "block_size": 64}, data={"batch_size": 8}, schedule={"max_iters": 7}
    )
    given = {"train.model.depth", "train.model.n_embd", "train.data.batch_size", "train.schedule.max_iters"}
    rules = {rule.key: rule for rule in rules_of(config, given, 100)}
    assert config.train.model.n_embd == 128 and config.train.model.n_layer == 4
    assert rules["train.model.n_embd"].given == 128 and rules["train.model.n_embd"].value == 256
    assert rules["train.schedule.max_iters"].given == 7 and rules["train.data.batch_size"].given == 8
    assert "8 x 64" in rules["train.data.grad_accum_steps"].because


def test_the_smallest_and_without_it() -> None:
    config = config_of(model={"depth": 1, "block_size": 1}, schedule={"tokens_per_parameter": 1e-9})
    assert all(rule.value >= 1 for rule in rules_of(config, set(), 3))
    assert rules_of(config_of(model={}), set(), 3) == []
    timed = config_of(model={"depth": 1}, runtime={"max_minutes": 1.0})
    assert [rule.key.rpartition(".")[2] for rule in rules_of(timed, set(), 3)] == ["n_layer", "n_embd", "n_head"]


def test_a_run_and_its_check(lab: Path, terrarium: Terrarium) -> None:
    folder = write(lab / "stories", STORIES, DEPTH)
    checked = terrarium("check", "stories", "--no-timing")
    assert checked.exit_code == 0, checked.output
    for text in ("n_embd                64 = 64 x 1", "parameters in matrices = ", "tokens in a step, in rows of 32"):
        assert text in checked.stdout
    outside = f"depth = 1 is outside the depths of {FITTED[0]} to {FITTED[1]}"
    assert outside in checked.stdout
    trained = terrarium("train", "stories")
    assert trained.exit_code == 0 and outside in trained.output
    rules = {
        rule["key"]: rule["value"]
        for rule in json.loads(terrarium("check", "stories", "--no-timing", "--json").stdout)["dial"]
    }
    run = tomli.loads((folder / "out" / "default" / "config.toml").read_text())
    for key, value in rules.items():
        section, name = key.removeprefix("train.").split(".")
        assert run["train"][section][name] == value
    summary = json.loads((folder / "out" / "default" / "summary.json").read_text())
    assert summary["steps"] == rules["train.schedule.max_iters"]
    assert run["train"]["schedule"]["lr_decay_iters"] == summary["steps"]
    again = terrarium("train", "stories")
    assert again.exit_code == 0 and "is finished" in again.output
    assert terrarium("sample", "stories", "--max-new-tokens", "3").exit_code == 0


def test_much_reading_is_told(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES, DEPTH.replace("0.05", "12.0"))
    assert "times, and after about 16 times it learns" in terrarium("check", "stories", "--no-timing").stdout


def test_other_models_have_no_dial(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES, DEPTH.replace("depth = 1", 'depth = 1\nkind = "lstm"'))
    done = terrarium("train", "stories")
    assert done.exit_code == 2 and 'depth shapes models of kind gpt, and kind = "lstm"' in done.stderr


def test_a_later_stage_has_its_own_length(lab: Path, terrarium: Terrarium) -> None:
    stages = DEPTH + '[[stages]]\nname = "base"\n[[stages]]\nname = "more"\ntrain.schedule.max_iters = 3\n'
    folder = write(lab / "stories", STORIES, stages)
    assert terrarium("train", "stories").exit_code == 0
    steps = [
        json.loads((folder / "out/default" / name / "summary.json").read_text())["steps"] for name in ("base", "more")
    ]
    assert steps[1] == 3 and steps[0] != 3


def test_depth_is_checked(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES, DEPTH.replace("depth = 1", 'depth = "deep"'))
    done = terrarium("train", "stories")
    assert done.exit_code == 2 and 'train.model.depth = "deep"' in done.stderr
