"""Whether a step is compiled: tried once in long runs, then foretold; and a compiled run is as exact as any other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from core.training import compiling, measured
from core.training.compiling import Trial, pays
from core.training.machine import choose_machine
from core.training.tuning import Way

Terrarium = Callable[..., Result]
WAY = Way("bfloat16", "explicit", 2)
LONG = 600.0


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def threads() -> Any:
    """torch's number of threads, put back behind the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Finding:
    """Stands in for the trial: says what it is told to have found, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trial: Trial) -> None:
        self.trial, self.asked, self.said = trial, 0, list[str]()
        monkeypatch.setattr(compiling, "try_out", self.try_out)

    def try_out(self, *_: Any) -> Trial:
        self.asked += 1
        return self.trial

    def pays(self, seconds: float, *, telling: bool = True) -> bool:
        answer, _ = pays("key", WAY, lambda way: lambda: None, lambda: seconds, self.said.append if telling else None)
        return answer


def test_a_long_run_tries_and_shorter_ones_know(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(monkeypatch, Trial(eager=0.020, compiled=0.015))
    assert not finding.pays(200) and not finding.asked and not finding.said  # trying would take more than it may
    assert finding.pays(LONG) and finding.asked == 1
    assert finding.said == ["trying whether compiling the step pays: half a minute, once for this machine and shape"]
    assert finding.pays(30), "a quarter of 30 seconds is more than it costs"
    assert not finding.pays(20), "a quarter of 20 seconds is less than it costs"
    assert finding.asked == 1 and len(finding.said) == 1


def test_where_nobody_can_be_told_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(monkeypatch, Trial(0.020, 0.015))
    assert not finding.pays(LONG, telling=False) and not finding.asked
    assert finding.pays(LONG) and finding.pays(LONG, telling=False)


def test_what_was_timed_is_named() -> None:
    measured.remember("key", {"eager": 0.020, "compiled": 0.015})
    assert pays("key", WAY, lambda way: lambda: None, lambda: LONG, None) == (
        True,
        {"bfloat16, explicit attention, 2 threads": 20.0, "bfloat16, explicit attention, 2 threads, compiled": 15.0},
    )


def test_a_gain_within_the_noise_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Finding(monkeypatch, Trial(0.0200, 0.0197)).pays(1e6)


def test_what_cannot_be_compiled_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(monkeypatch, Trial(0.0, 0.0, "no such thing"))
    for _ in range(2):
        assert not finding.pays(LONG)
    assert finding.asked == 1 and finding.said[1:] == ["it cannot be compiled here: no such thing"]


@pytest.mark.parametrize(
    "stored", [3, {}, {"eager": 1.0}, {"eager": 0, "compiled": 1}, {"eager": "a", "compiled": 1}, {"eager": 1, "b": 2}]
)
def test_what_was_remembered_wrongly_is_tried_again(monkeypatch: pytest.MonkeyPatch, stored: Any) -> None:
    measured.remember("key", stored)
    finding = Finding(monkeypatch, Trial(0.020, 0.015))
    assert finding.pays(LONG) and finding.asked == 1


def test_a_trial_takes_both_in_turn(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    ways = []
    trial = compiling.try_out(Way("float32", "sdpa", 1), lambda way: lambda: ways.append(way.compile))
    assert ways == [False, True] * 6 and trial.failed == "" and trial.eager > 0 and trial.compiled > 0


def test_a_compiler_that_fails_ends_no_run(threads: None) -> None:
    def step(way: Way) -> Callable[[], None]:
        def take() -> None:
            if way.compile:
                raise RuntimeError("\nno working compiler\nand much more")

        return take

    assert compiling.try_out(Way("float32", "sdpa", 1), step) == Trial(0.0, 0.0, "no working compiler")


def test_a_run_says_whether_it_is_compiled_and_keeps_to_it(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from the timing to the loop; only torch's compiler is left out."""
    calls = []

    def compiled(model: torch.nn.Module, machine: Any) -> Callable[..., Any]:
        calls.append(machine.compile)
        return lambda *inputs: model(*inputs)

    monkeypatch.setattr("core.training.trainer.compiled", compiled)
    monkeypatch.setattr("core.cli.settle.is_long", lambda config: True)
    monkeypatch.setattr(compiling, "lacking", lambda device: "")
    monkeypatch.setattr(compiling, "SHARE", 1e9)
    monkeypatch.setattr(compiling, "WARM_SECONDS", 0.0)
    finding = Finding(monkeypatch, Trial(0.020, 0.010))
    result = terrarium("train", "spaces", "-s", "train.schedule.max_iters=2")
    assert result.exit_code == 0, result.output
    assert "trying whether compiling" in result.stdout and finding.asked == 1 and calls == [True]
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert summary["choices"]["compile"] is True
    assert [name for name in summary["choices"]["milliseconds"] if name.endswith(", compiled")]
    monkeypatch.setattr(compiling, "pays", lambda *_: pytest.fail("asked again"))
    result = terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=4")
    assert result.exit_code == 0 and calls == [True, True], result.output
    assert terrarium("sample", "spaces", "--start", "a: ", "--max-new-tokens", "2").exit_code == 0


def test_a_missing_compiler_is_named_before_anything_changes(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    before = sorted((spaces / "out").rglob("*"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    for options in (("--fresh",), ("--run", "new")):
        result = terrarium("train", "spaces", *options, "-s", "train.runtime.compile=true")
        assert result.exit_code == 2
        assert "train.runtime.compile = true: torch.compile needs the C++ compiler no-such-compiler" in result.stderr
        assert "-s train.runtime.compile=false" in result.stderr
    assert sorted((spaces / "out").rglob("*")) == before


def test_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)
    assert compiling.lacking(torch.device("cpu")) == ""
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert compiling.lacking(torch.device("cpu")).startswith("the C++ compiler ")
    assert compiling.lacking(torch.device("mps")) == "a backend for mps"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compiling.lacking(torch.device("cuda")) == "triton"


def test_a_compiler_that_fails_in_the_run_is_a_clear_error(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def compiled(*_: Any) -> Callable[..., Any]:
        def forward(*_: Any) -> Any:
            raise TorchDynamoException("it went wrong\nand why, on a hundred lines")

        return forward

    monkeypatch.setattr("core.training.trainer.compiled", compiled)
    monkeypatch.setattr(compiling, "lacking", lambda device: "")
    result = terrarium("train", "spaces", "-s", "train.runtime.compile=true")
    assert result.exit_code == 2
    assert "train.runtime.compile = true: the step cannot be compiled: it went wrong\n" in result.stderr
    assert "--fresh -s train.runtime.compile=false" in result.stderr
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["status"] == "failed"
    assert terrarium("train", "spaces", "--fresh", "-s", "train.runtime.compile=false").exit_code == 0


needs_a_compiler = pytest.mark.skipif(
    bool(compiling.lacking(torch.device("cpu"))), reason="torch.compile needs a C++ compiler"
)


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.parametrize("preset", ["modern", "gpt2"])
def test_a_compiled_run_repeats_and_resumes_bit_for_bit(spaces: Path, terrarium: Terrarium, preset: str) -> None:
    """Once without a break, once more, and once in two parts; and the same within rounding as without a compiler."""
    settings = ("-s", f"train.model.preset={preset}", "-s", "train.runtime.threads=2")
    for run, compile in (("whole", "true"), ("again", "true"), ("parts", "true"), ("eager", "false")):
        options = ("--run", run, *settings, "-s", f"train.runtime.compile={compile}")
        if run == "parts":  # the schedule of the whole run, up to its third step
            assert terrarium("train", "spaces", *options, "-s", "train.schedule.lr_decay_iters=6", "-s", "train.schedule.max_iters=4").exit_code == 0  # fmt: skip
            options = ("--run", run, "--resume", *settings, "-s", "train.schedule.max_iters=6")
        elif run != "eager":
            options = (*options, "-s", "train.schedule.lr_decay_iters=6")
        result = terrarium("train", "spaces", *options)
        assert result.exit_code == 0, result.output
        torch.compiler.reset()
    weights = {
        run: (spaces / "out" / run / "checkpoints" / "last" / "model.safetensors").read_bytes()
        for run in ("whole", "again", "parts", "eager")
    }
    assert weights["whole"] == weights["again"] == weights["parts"]
    losses = [
        json.loads((spaces / "out" / run / "summary.json").read_text())["final_val_loss"] for run in ("whole", "eager")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.parametrize(("form", "tolerance"), [("sdpa", 1e-12), ("explicit", 1e-6)])
def test_gradients_of_a_compiled_model(threads: None, form: str, tolerance: float) -> None:
    """In float64, against those of the same model as it is. The gradient that is written out takes its rotations as exact,
    and the tables of sines are float32."""
    from core.bench.training import Shape, config_of
    from core.models.build import build_model
    from core.models.gpt import GPT

    torch.manual_seed(0)
    config = config_of("modern", Shape(2, 2, 16, 8, 2))
    model = build_model(config.train.model, 11).double()
    assert isinstance(model, GPT)
    for parameter in model.parameters():  # projections begin at zero, where little has a gradient
        torch.nn.init.normal_(parameter, std=0.3)
    model.attention = form
    machine = choose_machine("cpu", "float32", True, 1)
    ids = torch.randint(11, (2, 8))
    found = []
    for forward in (model, compiling.compiled(model, machine)):
        model.zero_grad()
        forward(ids).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for eager, one in zip(*found, strict=True):
        torch.testing.assert_close(one, eager, rtol=tolerance, atol=tolerance)
