"""check with a GPU that is not there: what a run would cost, from its settings alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from preparing import write

from core.config import Config
from core.defaults import resolve
from core.dial import matrix_parameters, with_shape
from core.errors import UserError
from core.lab.estimate import SHARE, estimate, state_bytes
from core.lab.opened import open_folder
from core.models.build import build_model, flops_per_token, parameter_count
from core.report.run_report import duration
from core.training.gpus import GPUS, gpus_named
from core.training.optimizers import build_optimizer

Terrarium = Callable[..., Result]
SPEEDRUN = Path(__file__).parents[1] / "experiments" / "chat"
BYTES = """[prepare]
encoder = "bytes"
[train.model]
n_layer = 2
n_head = 2
n_embd = 32
block_size = 16
[train.data]
batch_size = 4
[train.schedule]
max_iters = 10
"""
TEXT = 'raise AssertionError("nothing is made")\n'


def test_the_speedrun_without_its_data(terrarium: Terrarium, tmp_path: Path) -> None:
    """The arithmetic of the dial at depth 20: 5.2 billion tokens in 4,980 steps (nanochat's own figures)."""
    done = terrarium("check", str(SPEEDRUN), "--variant", "speedrun", "--gpu", "h100", "--share", "0.4", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    base = found["stages"]["base"]
    assert list(found["stages"]) == ["base", "mid", "chat"] and found["left_out"] == ["reward"]
    assert base["steps"] == pytest.approx(4980, rel=0.02) and base["tokens"] == pytest.approx(5.2e9, rel=0.02)
    model = resolve(
        Config.model_validate(with_shape({"train": {"model": {"depth": 20, "block_size": 2048}}}))
    ).train.model
    each = 6 * matrix_parameters(model, 32_768) + 12 * 20 * 1280 * 2048
    assert base["flops"] == base["tokens"] * each
    assert base["seconds"] == pytest.approx(base["flops"] / (0.4 * 989.4e12))
    for sum_of in ("tokens", "flops", "seconds"):
        assert found[sum_of] == pytest.approx(sum(part[sum_of] for part in found["stages"].values()))
    assert found["seconds"] / 3600 == pytest.approx(12.9, abs=0.5)


def test_the_readme_shows_what_is_computed() -> None:
    opened = open_folder(str(SPEEDRUN), "speedrun")
    text = (SPEEDRUN / "Readme.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d)( x )(\w+) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 3
    for count, times, gpu, shown in rows:
        found = estimate(opened, f"{count}{times.strip()}{gpu}")
        seconds = [*(cost["seconds"] for cost in found["stages"].values()), found["seconds"]]
        assert shown.split(" | ") == [duration(each) for each in seconds]


def test_what_the_terminal_shows(terrarium: Terrarium) -> None:
    done = terrarium("check", str(SPEEDRUN), "--variant", "speedrun", "--gpu", "8xh100")
    assert done.exit_code == 0, done.output
    assert "stage reward: not estimated" in done.output
    for text in (
        "estimate for 8 x h100: published peak 989 TFLOP/s in bfloat16, of which 38% is assumed, as if they shared the work evenly",
        "\nstage base\n  n_layer               20 = depth\n", "parameters            477,103,360, with 32,768 ids",
        "steps                 4,980 of 1,048,576 tokens", "operations            1.69e+19 FLOPs", "time                  about 1 h 33 min",
        "6.06 of 80 GB for weights, gradients and the optimizer; activations of 16,384 tokens come on top",
        "\nall stages\n", "counts training steps only: evaluations, saves and making the data come on top",
    ):  # fmt: skip
        assert text in done.output
    one = terrarium("check", str(SPEEDRUN), "--variant", "speedrun", "--gpu", "h100", "--stage", "mid")
    assert "stage mid" in one.output and "stage base" not in one.output and "all stages" not in one.output


def test_without_stages_and_with_a_limit_of_time(lab: Path, terrarium: Terrarium) -> None:
    folder = write(lab / "bytes", TEXT.replace("raise", "def documents():\n    raise"), BYTES)
    found = json.loads(terrarium("check", "bytes", "--gpu", "a100", "--json").stdout)
    cost = found["stages"][""]
    assert (cost["steps"], cost["tokens"], cost["vocab_size"]) == (10, 640, 257) and found["count"] == 1
    assert not (folder / "datasets").exists() and not (folder / "out").exists()
    timed = json.loads(
        terrarium("check", "bytes", "--gpu", "2xA100", "--json", "-s", "train.runtime.max_minutes=3").stdout
    )
    assert timed["seconds"] == pytest.approx(180, rel=0.01) and timed["count"] == 2
    assert timed["flops"] == pytest.approx(180 * 2 * SHARE * 312e12, rel=0.01)


def test_a_vocabulary_that_depends_on_the_data(spaces: Path, terrarium: Terrarium) -> None:
    done = terrarium("check", "spaces", "--gpu", "h100")
    assert done.exit_code == 2
    assert "how many ids the encoder char has depends on the data, which is not there" in done.stderr
    assert "Make it first: " in done.stderr and "prepare spaces" in done.stderr
    assert terrarium("prepare", "spaces").exit_code == 0
    found = json.loads(terrarium("check", "spaces", "--gpu", "h100", "--json").stdout)
    assert 0 < found["stages"][""]["vocab_size"] < 20


def test_a_model_of_ones_own(lab: Path, terrarium: Terrarium) -> None:
    code = (
        "import torch\n\ndef documents():\n    yield 'a'\n\ndef build_model(config, vocab_size):\n"
        "    model = torch.nn.Sequential(torch.nn.Embedding(vocab_size, 8), torch.nn.Linear(8, vocab_size))\n"
        "    assert model[1].weight.sum().item() is not None\n    return model\n"
    )
    write(lab / "own", code, BYTES)
    found = json.loads(terrarium("check", "own", "--gpu", "l4", "--json").stdout)
    assert found["flops"] == 6 * 8 * 257 * 640


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "h10"], "error: gpu: unknown GPU 'h10'\n  Did you mean 'h100'? Several are written as in 8xh100."),
        (["--gpu", "0xh100"], "unknown GPU '0xh100'"),
        (["--gpu", "h100", "--share", "1.5"], "share: a share of 1.5 is impossible\n  Give a number above 0, up to 1, such as 0.38."),
        (["--gpu", "h100", "--share", "0"], "a share of 0 is impossible"),
        (["--share", "0.3"], "--share: --share has no effect without --gpu\n  Name a GPU, such as --gpu h100."),
        (["--gpu", "h100", "--stage", "none"], "has no stage 'none'"),
    ],
)  # fmt: skip
def test_mistakes(lab: Path, terrarium: Terrarium, options: list[str], message: str) -> None:
    write(lab / "bytes", "def documents():\n    yield 'a'\n", BYTES)
    done = terrarium("check", "bytes", *options)
    assert done.exit_code == 2 and message in done.stderr


def test_names_of_gpus() -> None:
    assert gpus_named("8xH100") == (GPUS["h100"], 8) and gpus_named(" rtx4090 ") == (GPUS["rtx4090"], 1)
    assert all(name == gpu.name and 1e13 < gpu.peak < 1e16 and gpu.memory >= 24e9 for name, gpu in GPUS.items())
    with pytest.raises(UserError):
        gpus_named("x")


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "adam", "sgd"])
def test_the_memory_is_what_a_step_leaves(optimizer: str) -> None:
    """Weights, gradients and the optimizer's tensors after a real step."""
    model_keys: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16}
    config = resolve(Config.model_validate({"train": {"model": model_keys, "optim": {"name": optimizer}}})).train
    model = build_model(config.model, 50)
    trained = build_optimizer(model, config.optim)
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    trained.step()
    kept = sum(value.nbytes for state in trained.state.values() for value in state.values() if hasattr(value, "nbytes") and value.dim())  # fmt: skip
    wanted = state_bytes(model, optimizer)
    assert wanted is not None
    if optimizer != "sgd":
        assert wanted == kept + 8 * parameter_count(model)
    else:
        assert wanted >= kept + 8 * parameter_count(model)
    assert state_bytes(model, "lion") is None


def test_a_model_without_weights_counts_the_same() -> None:
    opened = open_folder(str(SPEEDRUN), "speedrun", ["train.model.depth=2", "train.model.block_size=64"])
    cost = estimate(opened, "h100", stage="base")["stages"]["base"]
    config = opened.config.train.model
    model = build_model(config, 32_768)
    assert cost["parameters"] == parameter_count(model)
    assert cost["flops"] == cost["tokens"] * flops_per_token(model, 64)
