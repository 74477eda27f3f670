"""Whether a step is compiled: a rule decides, a missing compiler is told first, and a compiled run is as exact as any other."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from core import process
from core.config import Config, replaced
from core.defaults import resolve
from core.errors import UserError
from core.files import cache_folder
from core.lab import settle as settling
from core.lab.opened import open_folder, prepared
from core.lab.settle import Settled, settle
from core.training import compiling
from core.training.compiling import compiled, is_worth_compiling
from core.training.machine import Machine, choose_machine
from core.training.pace import Pace
from core.training.progress import Progress

Terrarium = Callable[..., Result]
CPU, GPU, MPS = map(torch.device, ("cpu", "cuda", "mps"))
# What takes the place of torch.compile: (loss, machine) -> the loss that the loop calls.
STEP = "core.training.step.compiled"


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache" / "compiled"))


@pytest.fixture
def has_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missing, on any device."""
    monkeypatch.setattr(compiling, "missing", lambda device: "")


# The rule


def of_length(steps: int, minutes: float | None = None, **more: Any) -> Config:
    keys = {"train.schedule.max_iters": steps, "train.runtime.max_minutes": minutes}
    return resolve(replaced(Config(), keys | {f"train.{key}": value for key, value in more.items()}))


@pytest.mark.usefixtures("has_compiler")
@pytest.mark.parametrize(
    ("steps", "minutes", "worth"),
    [(5999, None, False), (6000, None, True), (1, 1.0, True), (1, 0.99, False), (50_000, 0.9, False)],
)
def test_long_runs_on_a_gpu_are_worth_it(steps: int, minutes: float | None, worth: bool) -> None:
    """A small step takes 10 ms, and a minute is long enough."""
    config = of_length(steps, minutes).train
    assert is_worth_compiling(config, GPU) is worth
    assert is_worth_compiling(config, GPU, recorded=True) is (minutes == 1.0), "replayed, it takes a millisecond"
    assert not is_worth_compiling(config, CPU) and not is_worth_compiling(config, MPS)


@pytest.mark.usefixtures("has_compiler")
def test_the_length_of_a_run_is_estimated_from_its_shape() -> None:
    """The smallest GPT-2 takes 110 ms for 32 x 1024 tokens on an H100, as it is (docs/LOG.md)."""
    gpt2 = {
        "model.n_layer": 12,
        "model.n_head": 12,
        "model.n_embd": 768,
        "data.block_size": 1024,
        "data.batch_size": 32,
    }
    assert compiling.seconds_of(of_length(1, **gpt2).train, recorded=False) == pytest.approx(0.110, rel=0.02)
    assert is_worth_compiling(of_length(600, **gpt2).train, GPU) and not is_worth_compiling(
        of_length(500, **gpt2).train, GPU
    )


@pytest.mark.usefixtures("has_compiler")
def test_a_run_that_a_condition_may_end_early_is_not_worth_it() -> None:
    ending = replaced(of_length(100_000), {"train.runtime.stop_when": "val_accuracy >= 1"})
    assert not is_worth_compiling(ending.train, GPU)


def test_without_a_compiler_no_run_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def missing(device: torch.device) -> str:
        asked.append(device)
        return "triton"

    monkeypatch.setattr(compiling, "missing", missing)
    assert not is_worth_compiling(of_length(10_000).train, GPU)
    assert asked == [GPU]


@pytest.fixture
def settled(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settled]]:
    """Settles a run on a device: nothing is computed there."""
    opened, dataset = prepared(open_folder("spaces", overrides=["train.runtime.threads=1"]))
    monkeypatch.setattr(settling, "fastest_way", lambda key, first, choices, step: (first, {}))

    def settled(device: torch.device, changes: dict[str, Any], *, timing: bool = True) -> Settled:
        def machine(name: str, dtype: str, compile: Any, threads: int, attention: Any, float8: bool) -> Machine:
            return Machine(device, torch.float32, compile is True, attention, threads)

        monkeypatch.setattr(settling, "choose_machine", machine)
        config = replaced(opened.config, changes)
        return settle(opened.experiment, config, dataset, opened.plugins, timing=timing)

    with process.computing("cpu"):
        yield settled


AUTO, ASKED = {"train.runtime.compile": "auto"}, {"train.runtime.compile": True}
LONG = {"train.schedule.max_iters": 100_000}


@pytest.mark.usefixtures("has_compiler")
def test_a_run_is_compiled_as_the_rule_says_or_as_it_is_asked_to(settled: Callable[..., Settled]) -> None:
    for device, changes, expected in (
        (GPU, AUTO | LONG, True), (GPU, AUTO, False), (CPU, AUTO | LONG, False), (CPU, ASKED, True), (GPU, ASKED, True),
        (GPU, LONG | {"train.runtime.compile": False}, False),
    ):  # fmt: skip
        found = settled(device, changes)
        assert found.machine.compile is expected
        assert found.config.train.runtime.compile is expected


def test_what_the_rule_would_compile_needs_no_compiler_and_what_is_asked_for_does(
    settled: Callable[..., Settled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "missing", lambda device: "triton")
    assert settled(GPU, AUTO | LONG).config.train.runtime.compile is False
    for device in (GPU, CPU):
        with pytest.raises(UserError) as caught:
            settled(device, ASKED)
        assert str(caught.value) == (
            "train.runtime.compile = true: the step cannot be compiled: triton is not found\n"
            "  Install it, or do not compile: `train.runtime.compile=false`, with `resume=True` if the run has begun."
        )
        assert settled(device, ASKED, timing=False).machine.compile  # where no step is taken, nothing is needed


# What is compiled


def test_everything_is_compiled_with_the_same_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule, a resume or the user wants compiled goes one way; on a GPU nothing is said of determinism."""
    said = []
    monkeypatch.setattr(process, "be_deterministic", lambda *, compiling: said.append(compiling))
    monkeypatch.setattr(torch, "compile", lambda function, **options: (function, options))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")

    def loss(x: torch.Tensor) -> torch.Tensor:
        return x

    def on(device: torch.device, compile: bool) -> Any:
        return compiled(loss, Machine(device, torch.float32, compile=compile))

    assert on(CPU, False) is loss and on(GPU, False) is loss and said == []
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    assert on(CPU, True) == (loss, {"dynamic": False, "options": {"cpp_wrapper": True}}) and said == [True]
    assert on(GPU, True) == (loss, {"dynamic": False, "options": None}) and said == [True]
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ, "the environment is the caller's"
    with process.owned(), process.computing("cuda"):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache_folder() / "compiled")


@pytest.mark.usefixtures("has_compiler")
def test_a_run_says_whether_it_is_compiled_and_keeps_to_it(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from the rule to the loop; only torch's compiler is left out."""
    calls, asked = [], []

    def worth(config: Any, device: torch.device, *, recorded: bool) -> bool:
        asked.append(config.schedule.max_iters)
        return True

    def stand_in(loss: Callable[..., Any], machine: Machine) -> Callable[..., Any]:
        calls.append(machine.compile)
        return loss

    monkeypatch.setattr(STEP, stand_in)
    monkeypatch.setattr(compiling, "is_worth_compiling", worth)
    monkeypatch.setattr("core.lab.summaries.compiler_version", lambda device: "a compiler 1.0")
    result = terrarium("train", "spaces", "-s", "train.schedule.max_iters=2")
    assert result.exit_code == 0, result.output
    assert asked == [2] and calls == [True]
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert summary["choices"]["compile"] is True
    assert summary["environment"]["compiler"] == "a compiler 1.0"
    assert "compile = true" in (spaces / "out" / "default" / "config.toml").read_text()
    monkeypatch.setattr(compiling, "is_worth_compiling", lambda *_, **__: pytest.fail("asked again"))
    result = terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=4")
    assert result.exit_code == 0 and calls == [True, True], result.output
    monkeypatch.setattr("core.lab.summaries.compiler_version", lambda device: "a compiler 2.0")
    result = terrarium("train", "spaces", "--exact", "--resume", "-s", "train.schedule.max_iters=6")
    assert result.exit_code == 2 and "compiler: a compiler 1.0 -> a compiler 2.0" in result.stderr
    assert terrarium("sample", "spaces", "--start", "a: ", "--max-new-tokens", "2").exit_code == 0
    assert calls == [True, True]  # what evaluates and samples is never compiled


def test_no_run_on_a_cpu_is_compiled_unasked(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    result = terrarium("train", "spaces", "-s", "train.schedule.max_iters=1200", "-s", "train.runtime.stop_when=val_loss < 1e9")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["choices"]["compile"] is False


@pytest.mark.usefixtures("has_compiler")
@pytest.mark.parametrize("command", [("check",), ("bench",), ("train",)])
def test_a_step_is_compiled_for_one_shape(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Each further one would take half a minute."""
    shapes = []

    def stand_in(loss: Callable[..., Any], machine: Machine) -> Callable[..., Any]:
        def take(inputs: torch.Tensor, targets: torch.Tensor) -> Any:
            shapes.append(tuple(inputs.shape))
            return loss(inputs, targets)

        return take if machine.compile else loss

    monkeypatch.setattr(STEP, stand_in)
    result = terrarium(*command, "spaces", "-s", "train.runtime.compile=true")
    assert result.exit_code == 0, result.output
    assert set(shapes) == {(4, 16)}


# What is missing


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
            "train.runtime.compile = true: the step cannot be compiled: the compiler no-such-compiler is not found"
            in result.stderr
        )
        assert "-s train.runtime.compile=false" in result.stderr
    assert sorted((spaces / "out").rglob("*")) == before


def test_a_finished_run_needs_no_compiler_and_a_resume_says_how_to_go_on_without(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(STEP, lambda loss, machine: loss)
    compiled = ("-s", "train.runtime.compile=true")
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "missing", lambda device: "")
        assert terrarium("train", "spaces", *compiled).exit_code == 0
    monkeypatch.setenv("CXX", "no-such-compiler")
    for command in ("train", "evaluate", "report"):
        result = terrarium(command, "spaces", *(compiled if command == "train" else ()))
        assert result.exit_code == 0, result.output
    more = ("--resume", "-s", "train.schedule.max_iters=8")
    refused = terrarium("train", "spaces", *more)
    assert refused.exit_code == 2 and "with --resume if the run has begun" in refused.stderr
    result = terrarium("train", "spaces", *more, "-s", "train.runtime.compile=false")
    assert result.exit_code == 0, result.output
    assert "This resume is not bit-exact: " in result.stdout and "compile: True -> False" in result.stdout


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    (tmp_path / "Python.h").touch()
    for variable in ("CC", "CXX"):
        monkeypatch.setenv(variable, sys.executable)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert compiling.missing(CPU) == compiling.missing(GPU) == ""
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", "")
    assert compiling.missing(CPU).startswith("the compiler ")
    assert compiling.missing(GPU) == "the compiler gcc"
    (tmp_path / "Python.h").unlink()
    assert compiling.missing(GPU) == "Python's header Python.h"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compiling.missing(GPU) == "triton"


def test_a_compilers_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)
    assert compiling.compiler_version(CPU) == f"Python {sys.version.split()[0]}"
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiling.compiler_version(CPU) is None


# The first compiled step


class Slow:
    """A clock on which the first step, which is compiled, takes 40 seconds and each further one a hundredth."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.steps = 1000.0, 0
        monkeypatch.setattr("core.training.pace.time", self)
        monkeypatch.setattr(STEP, self.compiled)

    def perf_counter(self) -> float:
        return self.now

    def compiled(self, loss: Callable[..., Any], machine: Machine) -> Callable[..., Any]:
        first = True

        def take(*inputs: Any) -> Any:
            nonlocal first
            self.now += 40.0 if first else 0.01
            self.steps, first = self.steps + 1, False
            return loss(*inputs)

        return take


MORE = ("-s", "train.schedule.max_iters=8")
COMPILED = ("-s", "train.runtime.compile=true", "-s", "train.runtime.log_interval=1")


@pytest.mark.usefixtures("has_compiler")
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


@pytest.mark.usefixtures("has_compiler")
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


# What goes wrong in the compiler


@pytest.mark.usefixtures("has_compiler")
def test_a_signal_that_reaches_the_compiler_is_no_error_of_its(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def interrupted(*_: Any) -> Callable[..., Any]:
        def take(*_: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            raise TorchDynamoException("the compiler was interrupted")

        return take

    monkeypatch.setattr(STEP, interrupted)
    result = terrarium("train", "spaces", *COMPILED)
    assert result.exit_code == 130, result.output
    assert "interrupted" in result.stderr and "cannot be compiled" not in result.stderr
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["status"] == "interrupted"


@pytest.mark.usefixtures("has_compiler")
def test_a_compiler_that_fails_in_the_run_is_a_clear_error(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def failing(loss: Callable[..., Any], machine: Machine) -> Callable[..., Any]:
        def take(*_: Any) -> Any:
            raise TorchDynamoException("it went wrong\nand why, on a hundred lines")

        return take if machine.compile else loss

    monkeypatch.setattr(STEP, failing)
    result = terrarium("train", "spaces", "-s", "train.runtime.compile=true", "-s", "train.runtime.threads=1")
    assert result.exit_code == 2
    assert "train.runtime.compile: the step cannot be compiled: it went wrong\n" in result.stderr
    assert "--fresh -s train.runtime.compile=false" in result.stderr
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["status"] == "failed"
    assert terrarium("train", "spaces", "--fresh", "-s", "train.runtime.compile=false").exit_code == 0
    result = terrarium("train", "spaces", "--resume", *MORE, "-s", "train.runtime.compile=true")
    assert result.exit_code == 2 and "Do not compile: --resume -s train.runtime.compile=false" in result.stderr
    told = compiling.as_user_error(TorchDynamoException(""), steps=6)
    assert told.message == "the step cannot be compiled: TorchDynamoException" and told.remedy == (
        "Do not compile: `resume=True` `train.runtime.compile=false`"
    )


@pytest.mark.usefixtures("has_compiler")
def test_an_error_of_another_kind_is_not_put_down_to_the_compiler(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> Any:
        raise RuntimeError("the model's own mistake")

    monkeypatch.setattr(STEP, lambda loss, machine: wrong)
    result = terrarium("train", "spaces", "-s", "train.runtime.compile=true")
    assert isinstance(result.exception, RuntimeError) and "own mistake" in str(result.exception)
    assert "cannot be compiled" not in result.stderr


needs_a_compiler = pytest.mark.skipif(bool(compiling.missing(CPU)), reason="torch.compile needs a C++ compiler")


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
def test_gradients_of_a_compiled_step(form: str, tolerance: float) -> None:
    """In float64, against those of the same step as it is. The gradient that is written out takes its rotations as exact,
    and the tables of sines are float32."""
    from core.bench.training import Shape, config_of
    from core.models.build import build_model, use_attention
    from core.models.gpt import GPT
    from core.training.objectives import tokens

    machine = choose_machine("cpu", "float32", True, 1)
    with machine.computing():
        torch.manual_seed(0)
        model = build_model(config_of("modern", Shape(2, 2, 16, 8, 2)).train.model, 11).double()
        assert isinstance(model, GPT)
        for parameter in model.parameters():  # projections begin at zero, where little has a gradient
            torch.nn.init.normal_(parameter, std=0.3)
        use_attention(model, form)
        ids, targets = torch.randint(11, (2, 2, 8))

        def loss(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return tokens(model, ids, targets)

        found = []
        for step in (loss, compiled(loss, machine)):
            model.zero_grad()
            nats = step(ids, targets)
            nats.backward()  # type: ignore[no-untyped-call]
            found.append([nats.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for eager, one in zip(*found, strict=True):
        torch.testing.assert_close(one, eager, rtol=tolerance, atol=tolerance)
