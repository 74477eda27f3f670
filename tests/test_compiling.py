"""Whether a step is compiled: tried once in long runs, then foretold; and a compiled run is as exact as any other."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from core.config import Config
from core.files import cache_folder
from core.training import compiling, measured
from core.training.compiling import Trial, pays
from core.training.machine import Machine, choose_machine
from core.training.pace import Pace
from core.training.progress import Progress
from core.training.tuning import Way

Terrarium = Callable[..., Result]
WAY = Way("bfloat16", "explicit", 2)
LONG = 600.0


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache" / "compiled"))


@pytest.fixture
def threads() -> Any:
    """torch's number of threads, put back behind the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Finding:
    """Stands in for the trial: says what it is told to have found, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, trial: Trial) -> None:
        self.trial, self.asked, self.measured, self.said = trial, 0, 0, list[str]()
        monkeypatch.setattr(compiling, "try_out", self.try_out)
        monkeypatch.setattr(compiling, "seconds_of", self.seconds_of)

    def try_out(self, *_: Any) -> Trial:
        self.asked += 1
        return self.trial

    def seconds_of(self, step: Callable[[], Any]) -> float:
        self.measured += 1
        return self.trial.eager_seconds

    def pays(self, seconds: float) -> bool:
        answer, _ = pays("key", WAY, lambda way: lambda: None, lambda micro_batch: seconds, self.said.append)
        return answer


def test_a_long_run_tries_and_shorter_ones_know(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(monkeypatch, Trial(0.020, 0.015))
    assert not finding.pays(200) and not finding.asked and not finding.said  # trying would take more than it may
    assert finding.pays(LONG) and finding.asked == 1
    assert finding.said == ["trying whether compiling the step pays: half a minute, once for this machine and shape"]
    assert finding.pays(30), "a quarter of 30 seconds is more than it costs"
    assert not finding.pays(20), "a quarter of 20 seconds is less than it costs"
    assert finding.asked == finding.measured == 1 and len(finding.said) == 1


def test_what_was_timed_is_named() -> None:
    measured.remember("key", {"eager_seconds": 0.020, "compiled_seconds": 0.015})
    assert pays("key", WAY, lambda way: lambda: None, lambda micro_batch: LONG, pytest.fail) == (
        True,
        {
            "bfloat16, explicit attention, 2 threads, all rows": 20.0,
            "bfloat16, explicit attention, 2 threads, compiled, all rows": 15.0,
        },
    )


def test_a_gain_within_the_noise_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Finding(monkeypatch, Trial(0.0200, 0.0197)).pays(1e6)


def test_a_step_of_seconds_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(monkeypatch, Trial(2.5, 2.0))
    assert not finding.pays(1e6) and not finding.asked


def test_what_cannot_be_compiled_is_tried_once_and_told_to_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(monkeypatch, Trial(0.020, failed="no such thing"))
    for seconds in (LONG, LONG, 20):
        assert not finding.pays(seconds)
    assert finding.asked == 1 and finding.said[1:] == ["the step is not compiled: no such thing"] * 2


@pytest.mark.parametrize(
    "stored",
    [
        3,
        {},
        {"compiled_seconds": 1.0},
        {"eager_seconds": 0, "compiled_seconds": 1},
        {"eager_seconds": 1, "compiled_seconds": -1},
        {"eager_seconds": "a", "compiled_seconds": 1},
        {"eager_seconds": 1, "b": 2},
    ],
)
def test_what_was_remembered_wrongly_is_tried_again(monkeypatch: pytest.MonkeyPatch, stored: Any) -> None:
    measured.remember("key", stored)
    finding = Finding(monkeypatch, Trial(0.020, 0.015))
    assert finding.pays(LONG) and finding.asked == 1


def test_the_length_of_a_run_comes_from_what_is_remembered() -> None:
    """Otherwise seeds of one sweep, timed anew each, could end up compiled and not."""
    measured.remember("key", {"eager_seconds": 0.020, "compiled_seconds": 0.015})
    asked = []

    def run_seconds(micro_batch: float) -> float:
        asked.append(micro_batch)
        return LONG

    assert pays("key", WAY, lambda way: lambda: None, run_seconds, pytest.fail)[0]
    assert asked == [0.020]


UNKNOWN, ONE = Trial(0.1), Way("float32", "sdpa", 1)


def failing(error: Exception) -> Callable[[Way], Callable[[], None]]:
    """Steps that raise an error where they are compiled."""

    def step(way: Way) -> Callable[[], None]:
        def take() -> None:
            if way.compile:
                raise error

        return take

    return step


def test_a_trial_takes_both_in_turn(threads: None) -> None:
    ways = []
    trial = compiling.try_out(UNKNOWN, ONE, lambda way: lambda: ways.append(way.compile))
    assert ways == [False, True] * 6
    assert trial.failed == "" and 0 < trial.eager_seconds < 0.1 and trial.compiled_seconds


def test_a_compiler_that_fails_ends_no_run(threads: None) -> None:
    error = RuntimeError("\nno working compiler\nand much more")
    assert compiling.try_out(UNKNOWN, ONE, failing(error)) == Trial(0.1, failed="no working compiler")


def test_memory_that_is_used_up_says_nothing_about_compiling(threads: None) -> None:
    with pytest.raises(MemoryError):
        compiling.try_out(UNKNOWN, ONE, failing(MemoryError()))


def test_what_is_wrong_without_a_compiler_is_not_put_down_to_it(threads: None) -> None:
    def step(way: Way) -> Callable[[], None]:
        def take() -> None:
            raise RuntimeError("the model's own mistake")

        return take

    with pytest.raises(RuntimeError, match="own mistake"):
        pays("key", ONE, step, lambda micro_batch: LONG, pytest.fail)


def test_everything_is_compiled_with_the_same_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried, recalled, resumed or asked for by name goes one way; on a GPU nothing is said of determinism."""
    said = []
    monkeypatch.setattr(compiling, "be_deterministic", lambda *, compiling: said.append(compiling))
    monkeypatch.setattr(torch, "compile", lambda model, **options: options)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    model = torch.nn.Linear(1, 1)
    cpu = compiling.forward_of(model, Machine(torch.device("cpu"), torch.float32, compile=True))
    assert said == [True] and cpu == {"dynamic": False, "options": {"cpp_wrapper": True}}  # type: ignore[comparison-overlap]
    compiling.forward_of(model, Machine(torch.device("cuda"), torch.float32, compile=True))
    assert compiling.forward_of(model, Machine(torch.device("cpu"), torch.float32)) is model
    assert said == [True]
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache_folder() / "compiled")


def test_a_run_says_whether_it_is_compiled_and_keeps_to_it(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from the timing to the loop; only torch's compiler is left out."""
    calls = []

    def compiled(model: torch.nn.Module, machine: Any) -> Callable[..., Any]:
        calls.append(machine.compile)
        return lambda *inputs: model(*inputs)

    monkeypatch.setattr("core.training.trainer.forward_of", compiled)
    monkeypatch.setattr("core.cli.settle.is_long", lambda config, device: True)
    monkeypatch.setattr(compiling, "lacking", lambda device: "")
    monkeypatch.setattr(compiling, "compiler_version", lambda device: "a compiler 1.0")
    monkeypatch.setattr(compiling, "SHARE", 1e9)
    monkeypatch.setattr(compiling, "WARM_SECONDS", 0.0)
    finding = Finding(monkeypatch, Trial(0.020, 0.010))
    result = terrarium("train", "spaces", "-s", "train.schedule.max_iters=2")
    assert result.exit_code == 0, result.output
    assert "trying whether compiling" in result.stdout and finding.asked == 1 and calls == [True]
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert summary["choices"]["compile"] is True
    assert [name for name in summary["choices"]["milliseconds"] if name.endswith(", compiled, all rows")]
    assert summary["environment"]["compiler"] == "a compiler 1.0"
    monkeypatch.setattr(compiling, "pays", lambda *_: pytest.fail("asked again"))
    result = terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=4")
    assert result.exit_code == 0 and calls == [True, True], result.output
    monkeypatch.setattr(compiling, "compiler_version", lambda device: "a compiler 2.0")
    result = terrarium("train", "spaces", "--exact", "--resume", "-s", "train.schedule.max_iters=6")
    assert result.exit_code == 2 and "compiler: a compiler 1.0 -> a compiler 2.0" in result.stderr
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
        assert (
            "train.runtime.compile = true: steps are to be compiled, and the compiler no-such-compiler is not to be found"
            in result.stderr
        )
        assert "-s train.runtime.compile=false" in result.stderr
    assert sorted((spaces / "out").rglob("*")) == before


def test_a_finished_run_needs_no_compiler_and_a_resume_says_how_to_go_on_without(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.training.trainer.forward_of", lambda model, machine: lambda *inputs: model(*inputs))
    compiled = ("-s", "train.runtime.compile=true")
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "lacking", lambda device: "")
        assert terrarium("train", "spaces", *compiled).exit_code == 0
    monkeypatch.setenv("CXX", "no-such-compiler")
    for command in ("train", "evaluate", "report"):
        result = terrarium(command, "spaces", *(compiled if command == "train" else ()))
        assert result.exit_code == 0, result.output
    more = ("--resume", "-s", "train.schedule.max_iters=8")
    refused = terrarium("train", "spaces", *more)
    assert refused.exit_code == 2 and "a run that has begun, with --resume" in refused.stderr
    result = terrarium("train", "spaces", *more, "-s", "train.runtime.compile=false")
    assert result.exit_code == 0, result.output
    assert "This resume is not bit-exact: " in result.stdout and "compile: True -> False" in result.stdout


def test_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for variable in ("CC", "CXX"):
        monkeypatch.setenv(variable, sys.executable)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert compiling.lacking(cpu) == compiling.lacking(gpu) == ""
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", "")
    assert compiling.lacking(cpu).startswith("the compiler ")
    assert compiling.lacking(gpu) == "the compiler gcc"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compiling.lacking(gpu) == "triton"


def test_a_compilers_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)
    assert compiling.compiler_version(torch.device("cpu")) == f"Python {sys.version.split()[0]}"
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiling.compiler_version(torch.device("cpu")) is None


class Slow:
    """A clock on which the first step, which is compiled, takes 40 seconds and each further one a hundredth."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.steps = 1000.0, 0
        monkeypatch.setattr("core.training.pace.time", self)
        monkeypatch.setattr("core.training.trainer.forward_of", self.compiled)
        monkeypatch.setattr(compiling, "lacking", lambda device: "")

    def perf_counter(self) -> float:
        return self.now

    def compiled(self, model: torch.nn.Module, machine: Any) -> Callable[..., Any]:
        first = True

        def forward(*inputs: Any) -> Any:
            nonlocal first
            self.now += 40.0 if first else 0.01
            self.steps, first = self.steps + 1, False
            return model(*inputs)

        return forward


COMPILED = ("-s", "train.runtime.compile=true", "-s", "train.runtime.log_interval=1")


def test_a_budget_in_time_is_used_behind_the_compiling(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 42 seconds the compiling takes 40."""
    slow = Slow(monkeypatch)
    budget = ("-s", "train.runtime.max_minutes=0.7", "-s", "train.runtime.eval_interval=100000")
    result = terrarium("train", "spaces", *COMPILED, *budget, "-s", "train.runtime.checkpoint_interval=100000")
    assert result.exit_code == 0, result.output
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert summary["steps"] == slow.steps > 100
    assert 41.5 < summary["wall_seconds"] < 42.5
    assert summary["train_seconds"] == pytest.approx(0.01 * slow.steps, abs=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_compiling_is_no_speed_of_steps(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """A step that was compiled as it was taken counts as much as the one behind it; alone, all its time counts. No figure
    is without bounds, and a resume begins with such a step, too."""
    Slow(monkeypatch)
    expected = 40.0 if steps == 1 else 0.01 * steps
    for more in ((), ("--resume",)):
        result = terrarium(
            "train", "spaces", *more, *COMPILED, "-s", f"train.schedule.max_iters={steps * (1 + bool(more))}"
        )
        assert result.exit_code == 0, result.output
        summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
        assert summary["train_seconds"] == pytest.approx(expected * (1 + bool(more)))
        assert summary["tokens_per_second"] == pytest.approx(summary["tokens"] / summary["train_seconds"], rel=0.01)
    rows = (spaces / "out" / "default" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("tokens_per_second")
    speeds = [float(row.split(",")[column]) for row in rows[1:]]
    assert len(speeds) == 2 * steps and all(0 < speed <= 64 / 0.01 for speed in speeds), speeds


def test_going_back_behind_a_compiled_step_keeps_the_next_one_whole() -> None:
    pace = Pace(Config().train, Progress(), compiling=True)
    pace.lap()
    pace.rewind()
    time.sleep(0.002)
    pace.count_step()
    assert pace.progress.seconds >= 0.002 and not pace.uncounted


def test_a_signal_that_reaches_the_compiler_is_no_error_of_its(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def compiled(*_: Any) -> Callable[..., Any]:
        def forward(*_: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            raise TorchDynamoException("the compiler was interrupted")

        return forward

    monkeypatch.setattr("core.training.trainer.forward_of", compiled)
    monkeypatch.setattr(compiling, "lacking", lambda device: "")
    measured.remember(f"{compiling.KEY}; a machine, a shape", {"eager_seconds": 2, "compiled_seconds": 1})
    before = measured.read()
    result = terrarium("train", "spaces", *COMPILED)
    assert result.exit_code == 130, result.output
    assert "interrupted" in result.stderr and "cannot be compiled" not in result.stderr
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["status"] == "interrupted"
    assert measured.read() == before


def test_a_compiler_that_fails_in_the_run_is_a_clear_error(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def compiled(model: torch.nn.Module, machine: Machine) -> Callable[..., Any]:
        def forward(*_: Any) -> Any:
            raise TorchDynamoException("it went wrong\nand why, on a hundred lines")

        return forward if machine.compile else model

    monkeypatch.setattr("core.training.trainer.forward_of", compiled)
    monkeypatch.setattr(compiling, "lacking", lambda device: "")
    measured.remember(f"{compiling.KEY}; a machine, a shape", {"eager_seconds": 2, "compiled_seconds": 1})
    measured.remember("another", 1)
    result = terrarium("train", "spaces", "-s", "train.runtime.compile=true", "-s", "train.runtime.threads=1")
    assert result.exit_code == 2
    assert "train.runtime.compile: the step cannot be compiled: it went wrong\n" in result.stderr
    assert "--fresh -s train.runtime.compile=false" in result.stderr
    assert measured.read() == {"another": 1}  # what was believed about compiling was wrong
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["status"] == "failed"
    assert terrarium("train", "spaces", "--fresh", "-s", "train.runtime.compile=false").exit_code == 0


needs_a_compiler = pytest.mark.skipif(
    bool(compiling.lacking(torch.device("cpu"))), reason="torch.compile needs a C++ compiler"
)


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.parametrize(
    "shape",
    [
        ["train.model.preset=modern"],
        ["train.model.preset=gpt2"],
        ["train.model.dropout=0.2", "train.data.grad_accum_steps=2"],
    ],
)
def test_a_compiled_run_repeats_and_resumes_bit_for_bit(spaces: Path, terrarium: Terrarium, shape: list[str]) -> None:
    """Once without a break, once more, and once in two parts; and the same within rounding as without a compiler."""
    settings = tuple(part for text in (*shape, "train.runtime.threads=2") for part in ("-s", text))
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
    assert losses[0] == pytest.approx(
        losses[1], abs=0.05 if "train.model.dropout=0.2" in shape else 1e-3
    )  # other draws


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
    for forward in (model, compiling.forward_of(model, machine)):
        model.zero_grad()
        forward(ids).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for eager, one in zip(*found, strict=True):
        torch.testing.assert_close(one, eager, rtol=tolerance, atol=tolerance)
