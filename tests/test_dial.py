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
from core.lab.opened import open_folder
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


@pytest.mark.parametrize("preset", ["modern", "gpt2", "llama", "portable"])
@pytest.mark.parametrize("more", [{}, {"n_kv_head": 1}, {"head_width": 48}])
def test_the_parameters_are_those_of_the_model(preset: str, more: dict[str, int]) -> None:
    config = config_of(model={"depth": 2, "preset": preset, "block_size": 32, **more}).train.model
    attention = 12 * config.n_head * (config.head_width or 0) * config.n_layer * 32
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
    assert (
        rules["learning_rate"].because == "0.02 x (16,384 / 1,536)^(1/3), as for all steps of more than 16,384 tokens"
    )
    assert rules["learning_rate"].value == pytest.approx(0.02 * (16384 / 1536) ** (1 / 3), rel=0.005)


def test_what_is_given_counts() -> None:
    config = config_of(
        model={"depth": 4, "n_embd": 128, "block_size": 64},
        data={"batch_size": 8, "grad_accum_steps": 3},
        optim={"learning_rate": 0.5},
        schedule={"max_iters": 7},
    )
    names = (
        "model.depth",
        "model.n_embd",
        "data.batch_size",
        "data.grad_accum_steps",
        "optim.learning_rate",
        "schedule.max_iters",
    )
    given = {f"train.{name}" for name in names}
    rules = {rule.key: rule for rule in rules_of(config, given, 100)}
    assert config.train.model.n_embd == 128 and config.train.model.n_layer == 4
    assert rules["train.model.n_embd"].given == 128 and rules["train.model.n_embd"].value == 256
    assert rules["train.schedule.max_iters"].given == 7 and rules["train.data.batch_size"].given == 8
    times = rules["train.data.grad_accum_steps"]
    assert times.given == 3 and times.because.endswith(" / (8 x 64)")
    assert times.value == round(int(times.because.partition(" ")[0].replace(",", "")) / (8 * 64)) != 3
    assert rules["train.schedule.max_iters"].because.endswith("in steps of 1,536")  # 8 x 3 x 64: what is given counts
    assert rules["train.optim.learning_rate"].given == 0.5 and rules["train.optim.learning_rate"].value == 0.02


def test_heads_follow_from_the_width() -> None:
    assert config_of(model={"depth": 4, "n_embd": 128}).train.model.n_head == 2
    assert config_of(model={"depth": 4, "n_embd": 128, "n_head": 1}).train.model.n_head == 1
    config = config_of(model={"depth": 4, "n_embd": 200, "block_size": 64})
    assert config.train.model.n_head == 4
    heads = {rule.key: rule for rule in rules_of(config, {"train.model.n_embd"}, 100)}["train.model.n_head"]
    assert (heads.value, heads.given) == (4, None) and "200 is no multiple of 64" in heads.because


def test_other_optimizers_keep_their_rate() -> None:
    config = config_of(model={"depth": 2, "preset": "gpt2", "block_size": 64})
    rate = {rule.key: rule for rule in rules_of(config, set(), 100)}["train.optim.learning_rate"]
    assert rate.value == 1e-3 and rate.because == "the default of adamw, for steps of any size"


def test_the_smallest_and_without_it() -> None:
    config = config_of(model={"depth": 1, "block_size": 1}, schedule={"tokens_per_parameter": 1e-9})
    assert all(rule.value >= 1 for rule in rules_of(config, set(), 3) if rule.key != "train.optim.learning_rate")
    assert rules_of(config_of(model={}), set(), 3) == []
    timed = config_of(model={"depth": 1}, runtime={"max_minutes": 1.0})
    assert [rule.key.rpartition(".")[2] for rule in rules_of(timed, set(), 3)] == ["n_layer", "n_embd", "n_head"]


def test_a_run_and_its_check(lab: Path, terrarium: Terrarium) -> None:
    folder = write(lab / "stories", STORIES, DEPTH)
    checked = terrarium("check", "stories", "--no-timing")
    assert checked.exit_code == 0, checked.output
    for text in (
        "n_embd                64 = 64 x 1",
        "learning_rate         0.0277 = 0.02 x (4,096 / 1,536)^(1/3)\n",
        "parameters in matrices = ",
        "tokens in a step, in rows of 32",
    ):
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
        _, section, name = key.split(".")
        assert run["train"][section][name] == value
    summary = json.loads((folder / "out" / "default" / "summary.json").read_text())
    assert summary["steps"] == rules["train.schedule.max_iters"]
    assert run["train"]["schedule"]["lr_decay_iters"] == summary["steps"]
    again = terrarium("train", "stories")
    assert again.exit_code == 0 and "is finished" in again.output
    assert terrarium("sample", "stories", "--max-new-tokens", "3").exit_code == 0


def test_much_reading_is_told(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES, DEPTH.replace("0.05", "12.0"))
    shown = terrarium("check", "stories", "--no-timing").stdout
    assert "times, and after about 16 times it learns" in shown and "will probably memorise it" not in shown
    many = "train.schedule.max_iters=100000"  # the dial did not choose this
    shown = terrarium("check", "stories", "--no-timing", "-s", many).stdout
    assert "times, and after about 16 times it learns" not in shown and "will probably memorise it" in shown


def test_steps_beyond_those_of_the_rates_are_told(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES, DEPTH)
    told = "a step has 32,768 tokens, and the default rates were fitted for 1,536 to 16,384"
    large = [
        "check",
        "stories",
        "--no-timing",
        "-s",
        "train.data.batch_size=1024",
        "-s",
        "train.data.grad_accum_steps=1",
    ]
    assert told in terrarium(*large).stdout
    assert told not in terrarium(*large, "-s", "train.optim.learning_rate=0.01").stdout
    assert told not in terrarium("check", "stories", "--no-timing").stdout


def test_other_models_have_no_dial(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES, DEPTH.replace("depth = 1", 'depth = 1\nkind = "lstm"'))
    done = terrarium("train", "stories")
    assert done.exit_code == 2 and 'depth shapes models of kind gpt, and kind = "lstm"' in done.stderr


def test_a_model_of_ones_own_has_no_dial(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES + "def build_model(config, vocab_size):\n    raise AssertionError\n", DEPTH)
    for command in ("check", "train"):
        done = terrarium(command, "stories")
        assert (
            done.exit_code == 2
            and "prepare.py builds a model of its own" in done.stderr
            and "config.toml:4" in done.stderr
        )


def test_a_later_stage_has_its_own_length(lab: Path, terrarium: Terrarium) -> None:
    stages = DEPTH + '[[stages]]\nname = "base"\n[[stages]]\nname = "more"\ntrain.schedule.max_iters = 3\n'
    folder = write(lab / "stories", STORIES, stages)
    assert terrarium("train", "stories").exit_code == 0
    steps = [
        json.loads((folder / "out/default" / name / "summary.json").read_text())["steps"] for name in ("base", "more")
    ]
    assert steps[1] == 3 and steps[0] != 3


def test_a_depth_on_the_command_line_is_that_of_all_stages(lab: Path, terrarium: Terrarium) -> None:
    stages = DEPTH.replace("depth = 1\n", "")
    stages += '[[stages]]\nname = "base"\n[[stages]]\nname = "more"\ntrain.schedule.max_iters = 3\n'
    folder = write(lab / "stories", STORIES, stages)
    done = terrarium("loop", "stories", "-s", "train.model.depth=1")
    assert done.exit_code == 0, done.output
    run = tomli.loads((folder / "out/default/more/config.toml").read_text())
    assert run["train"]["model"]["n_embd"] == 64 and run["train"]["model"]["depth"] == 0
    again = terrarium("evaluate", "stories", "-s", "train.model.depth=1")
    assert again.exit_code == 0, again.output


def test_a_variant_with_a_depth_has_no_shape_of_the_file_below(lab: Path, terrarium: Terrarium) -> None:
    given = "n_layer = 3\nn_head = 2\nn_embd = 32\n"
    below = DEPTH.replace("depth = 1\n", given) + "[train.data]\nbatch_size = 5\ngrad_accum_steps = 7\n"
    folder = write(lab / "stories", STORIES, below.replace("tokens_per_parameter = 0.05", "max_iters = 9"))
    (folder / "config.deep.toml").write_text("[train.model]\ndepth = 2\n")
    (folder / "config.wide.toml").write_text("[train.model]\ndepth = 2\nn_embd = 96\n")
    (folder / "config.none.toml").write_text("[train.model]\nn_layer = 1\n")

    def found(variant: str, *overrides: str) -> tuple[Any, ...]:
        config = open_folder("stories", variant, overrides).config.train
        model, data = config.model, config.data
        return model.n_layer, model.n_embd, model.n_head, data.batch_size, data.grad_accum_steps, config.schedule.max_iters  # fmt: skip

    assert found("deep") == (2, 128, 2, 24, 1, 1000)  # batch and steps follow when the vocabulary is known
    assert found("wide")[:3] == (2, 96, 2)
    assert found("deep", "train.model.n_layer=4", "train.data.batch_size=6")[:4] == (4, 128, 2, 6)
    assert found("none") == (1, 32, 2, 5, 7, 9)
    rules = json.loads(terrarium("check", "stories", "--variant", "deep", "--no-timing", "--json").stdout)["dial"]
    assert all(rule["given"] is None for rule in rules)


def test_depth_is_checked(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "stories", STORIES, DEPTH.replace("depth = 1", 'depth = "deep"'))
    done = terrarium("train", "stories")
    assert done.exit_code == 2 and 'train.model.depth = "deep"' in done.stderr
