"""bench and what it rests on: figures are kept per machine, operations are counted, and the tables hold what was measured."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import Result

from core import files
from core.bench import cases
from core.bench.cases import Case, machine_cases
from core.bench.preparing import preparing_speed
from core.bench.sampling import preset_sampling
from core.bench.start import command, first_step
from core.bench.training import Shape, config_of, preset_speed
from core.cli.console import Console
from core.config import Config, Model, Runtime, Train
from core.defaults import resolve
from core.listener import STEPS
from core.models.build import build_model, flops_per_token
from core.tracking.metrics import COLUMNS, speed_text
from core.training import measured, peak
from core.training.machine import Machine
from core.training.measured import machine_key, recall, remember
from core.training.peak import matmul_peak, peak_or_none
from core.training.speed import Speed
from core.training.timing import timed
from core.training.upkeep import shares

Terrarium = Callable[..., Result]
CPU = Machine(torch.device("cpu"), torch.float32)
TINY = Shape(n_layer=1, n_head=2, n_embd=8, block_size=8, batch_size=2, vocab_size=5)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """measured.json of an empty cache."""
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "measured.json"


@pytest.fixture
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matrices."""
    monkeypatch.setattr(peak, "SIZES", {"cpu": (16, 32)})
    monkeypatch.setattr(peak, "SECONDS", 0.01)


def test_what_is_remembered_is_recalled(store: Path) -> None:
    assert recall("a") is None
    remember("a", 1.5)
    remember("b", ["x"])
    remember("a", 2)
    assert (recall("a"), recall("b")) == (2, ["x"])
    assert json.loads(store.read_text()) == {"a": 2, "b": ["x"]}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"\xff\xfe"])
def test_a_damaged_store_is_an_empty_one(store: Path, content: bytes) -> None:
    store.parent.mkdir()
    store.write_bytes(content)
    assert recall("a") is None
    remember("a", 1)
    assert recall("a") == 1


def test_a_store_that_cannot_be_written_costs_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")
    remember("a", 1)
    assert recall("a") is None
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "other"))

    def full(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(files, "write_bytes", full)
    remember("a", 1)
    assert recall("a") is None


def test_while_another_process_writes_nothing_is_remembered(store: Path) -> None:
    with files.lock(store.with_name(".measured.lock"), "the store"):
        remember("a", 1)
    assert recall("a") is None


def test_the_cache_is_where_the_user_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert files.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("TERRARIUM_CACHE")
    assert files.cache_folder() == tmp_path / "shared" / "terrarium"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "terrarium"


def test_a_user_without_a_home_has_an_empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(measured, "store", homeless)
    remember("a", 1)
    assert recall("a") is None


def test_the_machine_is_named_by_what_figures_depend_on() -> None:
    assert f"torch {torch.__version__}" in machine_key()
    assert "cores" in machine_key()


@pytest.mark.usefixtures("store", "quick_peak")
def test_a_peak_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    first = matmul_peak(CPU.device, torch.float32)
    assert 1e6 < first < 1e16
    assert torch.equal(state, torch.get_rng_state())  # else a run would depend on whether it was measured
    monkeypatch.setattr(peak, "measure_peak", lambda device, dtype: first / 2)
    assert matmul_peak(CPU.device, torch.float32) == first
    assert matmul_peak(CPU.device, torch.float32, again=True) == first
    monkeypatch.setattr(peak, "measure_peak", lambda device, dtype: 2 * first)
    assert matmul_peak(CPU.device, torch.float32, again=True) == 2 * first
    assert matmul_peak(CPU.device, torch.float32) == 2 * first
    assert matmul_peak(CPU.device, torch.bfloat16) == 2 * first  # under a key of its own


@pytest.mark.usefixtures("store", "quick_peak")
def test_threads_have_peaks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(peak, "measure_peak", lambda device, dtype, threads=threads: float(threads))
        assert matmul_peak(CPU.device, torch.float32) == threads


@pytest.mark.usefixtures("store", "quick_peak")
def test_nonsense_in_the_store_is_measured_again() -> None:
    found = matmul_peak(CPU.device, torch.float32)
    [key] = json.loads(measured.store().read_text())
    for nonsense in ("fast", 0, None, [1]):
        remember(key, nonsense)
        assert matmul_peak(CPU.device, torch.float32) > found / 1000


def test_a_device_that_cannot_be_measured_has_no_peak(store: Path) -> None:
    assert peak_or_none(torch.device("meta"), torch.float32) is None
    speed = Speed(Machine(torch.device("meta"), torch.float32), tokens_per_step=100, flops_per_token=10)
    assert speed_text(speed.figures(1000.0)) == "1,000 tokens/s  100.0 ms/step"
    assert speed.summary(10, 1000, 2.0) == {"ms_per_step": 200.0, "flops": 10_000, "mfu": None, "peak_flops": None}


def model_of(vocab_size: int, **keys: Any) -> torch.nn.Module:
    return build_model(resolve(Config(train=Train(model=Model(**keys)))).train.model, vocab_size)


def test_operations_per_token_are_those_of_the_paper() -> None:
    L, C, T, V = 3, 16, 32, 65
    shape: dict[str, Any] = {"n_layer": L, "n_head": 4, "n_embd": C, "block_size": T}
    blocks, head, attention = 6 * L * 12 * C * C, 6 * V * C, 12 * L * C * T
    tied, untied = model_of(V, preset="gpt2", **shape), model_of(V, preset="modern", **shape)
    assert flops_per_token(tied, T) == flops_per_token(untied, T) == blocks + head + attention
    assert flops_per_token(tied, T // 2) == blocks + head + attention // 2
    with_biases = model_of(V, preset="gpt2", bias=True, **shape)
    assert flops_per_token(with_biases, T) == flops_per_token(tied, T)


@pytest.mark.parametrize("tie_weights", [True, False])
def test_operations_of_other_models_are_those_of_their_matrices(tie_weights: bool) -> None:
    L, C, V = 2, 12, 9
    model = model_of(V, kind="lstm", n_layer=L, n_embd=C, block_size=8, tie_weights=tie_weights)
    assert flops_per_token(model, 8) == 6 * (L * 2 * 4 * C * C + V * C)


def test_speed_is_arithmetic() -> None:
    speed = Speed(CPU, tokens_per_step=768, flops_per_token=5_000_000)
    speed.__dict__["peak"] = 2e11
    assert speed.mfu(20_000) == pytest.approx(0.5)
    assert speed.milliseconds(20_000) == pytest.approx(38.4)
    assert speed_text(speed.figures(20_000)) == "20,000 tokens/s  38.4 ms/step  MFU 50.0%"
    assert speed.summary(52, 40_000, 2.0) == {
        "ms_per_step": 38.462,
        "flops": 200_000_000_000,
        "mfu": 0.5,
        "peak_flops": 2e11,
    }
    assert speed.summary(0, 0, 0.0) == {"ms_per_step": None, "flops": None, "mfu": None, "peak_flops": None}
    console, row = Console(), {"step": 20, "train_loss": 1.5, "seconds": 10.0} | speed.figures(20_000.0)
    console.progress(STEPS, 20, 40)
    assert console.sentence(row) == "step 20/40  loss 1.5000  10.0 s  20,000 tokens/s  38.4 ms/step  MFU 50.0%"


def test_a_run_shows_and_keeps_its_speed(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces")
    assert result.exit_code == 0, result.output
    last = result.output.splitlines()[-1]
    assert "ms/step, MFU " in last
    assert all("ms/step  MFU " in line for line in result.output.splitlines() if line.startswith("step "))
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert summary["ms_per_step"] == pytest.approx(1000 * 64 / summary["tokens_per_second"], rel=1e-2)
    assert 0 <= summary["mfu"] < 1
    assert summary["peak_flops"] > 1e6
    header = (spaces / "out" / "default" / "metrics.csv").read_text().partition("\n")[0].split(",")
    assert tuple(header[: len(COLUMNS)]) == COLUMNS
    assert {"ms_per_step", "mfu"}.isdisjoint(header)


def test_a_run_without_a_peak_goes_on_without_mfu(
    spaces: Path, terrarium: Terrarium, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> float:
        raise RuntimeError("not on this device")

    monkeypatch.setattr(peak, "measure_peak", refuse)
    result = terrarium("train", "spaces")
    assert result.exit_code == 0, result.output
    assert "ms/step" in result.output
    assert "MFU" not in result.output
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert (summary["mfu"], summary["peak_flops"]) == (None, None)
    assert not store.exists() or "matmul_peak" not in store.read_text()


def test_a_median_is_that_of_the_counted_calls() -> None:
    calls: list[int] = []
    timing = timed(lambda: calls.append(1), seconds=0.0, least=4, warmup=3)
    assert (len(calls), timing.repeats) == (7, 4)
    assert 0 <= timing.fastest <= timing.median <= timing.slowest
    assert timed(lambda: None, seconds=10.0, most=5).repeats == 5


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
@pytest.mark.usefixtures("store", "quick_peak")
def test_a_preset_has_a_speed(preset: str) -> None:
    figures = preset_speed(preset, TINY, CPU, seconds=0.0)
    assert figures["tokens_per_second"] == pytest.approx(16 / figures["ms_per_step"] * 1000)
    assert figures["fastest_ms"] <= figures["ms_per_step"] <= figures["slowest_ms"]
    assert figures["mfu"] > 0
    assert figures["dtype"] == "float32"
    written = preset_sampling(preset, TINY, 3, CPU, seconds=0.0)
    assert 0 < written["slowest"] <= written["tokens_per_second"] <= written["fastest"]


def test_rows_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.bench import training

    tried = []

    def too_large(step: Any, config: Any, *_: Any) -> dict[str, Any]:
        tried.append(config.data.batch_size)
        if config.data.batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"batch_size": config.data.batch_size}

    monkeypatch.setattr(training, "step_speed", too_large)
    assert preset_speed("modern", Shape(1, 2, 8, 8, batch_size=4), CPU) == {"batch_size": 1}
    assert tried == [4, 2, 1]


def test_a_shape_becomes_a_config() -> None:
    config = config_of("gpt2", Shape(3, 2, 8, block_size=16, batch_size=5))
    model, data = config.train.model, config.train.data
    assert (model.n_layer, model.n_head, model.n_embd, model.norm) == (3, 2, 8, "layernorm")
    assert (data.batch_size, data.block_size) == (5, 16)


@pytest.mark.parametrize("encoder", ["char", "bpe"])
def test_prepare_has_a_speed(encoder: str) -> None:
    figures = preparing_speed(encoder, 1)
    assert figures["megabytes_per_second"] == pytest.approx(1 / figures["seconds"])


@pytest.mark.slow
def test_the_first_step_of_a_command_is_timed() -> None:
    small = ("train.model.n_layer=1", "train.runtime.device=cpu", "train.runtime.dtype=float32")
    figures = first_step(threads=1, repeats=1, more=tuple(part for key in small for part in ("-s", key)))
    assert 0.1 < figures["seconds"] < 120
    assert first_step(repeats=1, more=tuple(part for key in small for part in ("-s", key)))["seconds"] > 0.1


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"train nobody: .*nobody"):
        command(tmp_path, "train", "nobody")


def test_shares_are_of_the_whole_time() -> None:
    runtime = Runtime(eval_interval=100, checkpoint_interval=50, log_interval=10)
    # per step: 0.1 s of step, 0.01 of evaluation, 0.02 + 0.01 of saving, 0.06 of rows; 0.2 s in all
    found = shares(runtime, step=0.1, evaluation=1.0, checkpoint=1.0, row=0.6)
    assert found == pytest.approx({"evaluations": 0.05, "checkpoints": 0.15, "rows of metrics": 0.3})


def test_the_machine_has_the_cases_of_the_table() -> None:
    listed = machine_cases(CPU, 0, full=False)
    assert [case.section for case in listed] == sorted(
        (case.section for case in listed),
        key=["matrix products", "training", "sampling", "prepare", "start"].index,
    )
    names = [case.name for case in listed]
    for name in ("gpt2    4 x 128, batch 12 x 64", "modern  6 x 384, batch 16 x 256", "gpt2    6 x 384, batch 10"):
        assert name in names
    full = [case.name for case in machine_cases(CPU, 0, full=True) if case not in names]
    assert "gpt2    12 x 768, batch 1 x 1024" in full
    gpu = machine_cases(Machine(torch.device("cuda"), torch.bfloat16), 0, full=True)
    assert "gpt2    12 x 768, batch 32 x 1024" in [case.name for case in gpu]


@pytest.fixture
def two_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that takes no time."""
    figures = {"ms_per_step": 12.34, "tokens_per_second": 62_000.0, "mfu": None, "dtype": "float32", "batch_size": 12}
    listed = [
        Case("matrix products", "float32", lambda: {"flops": 2e11}),
        Case("training", "one", lambda: figures),
        Case("training", "two", lambda: figures | {"mfu": 0.5}),
    ]
    monkeypatch.setattr(cases, "machine_cases", lambda machine, threads, full: listed)


@pytest.mark.usefixtures("two_cases", "lab")
def test_bench_prints_a_table(terrarium: Terrarium) -> None:
    result = terrarium("bench")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert f"{machine_key()}; " in lines[0]
    assert lines[1:] == [
        "", "matrix products GFLOP/s", "float32 200",
        "", "training ms/step tokens/s MFU dtype", "one 12.3 62,000 - float32", "two 12.3 62,000 50.0% float32",
    ]  # fmt: skip


@pytest.mark.usefixtures("two_cases", "lab")
def test_bench_for_machines(terrarium: Terrarium) -> None:
    result = terrarium("bench", "--json")
    found = json.loads(result.stdout)
    assert found["machine"] == machine_key()
    assert [row["section"] for row in found["rows"]] == ["matrix products", "training", "training"]
    assert found["rows"][1]["tokens_per_second"] == 62_000.0
    assert "ms/step" in result.stderr  # people see it all the same
    assert json.loads(terrarium("bench", "--json", "--quiet").stdout)["rows"] == found["rows"]


@pytest.mark.usefixtures("two_cases", "lab")
def test_bench_takes_threads(terrarium: Terrarium) -> None:
    before = torch.get_num_threads()
    try:
        assert "cpu, 2 threads" in terrarium("bench", "--threads", "2").output
        assert "cpu, 1 thread\n" in terrarium("bench", "--threads", "1").output
    finally:
        torch.set_num_threads(before)


def test_bench_of_an_experiment_leaves_its_runs_alone(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("bench", "spaces", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["experiment"].startswith("spaces, ")
    assert [row["section"] for row in found["rows"]] == (
        ["training"] + 3 * ["around the steps"] + 3 * ["share of training time"] + 2 * ["sampling"]
    )
    [step, evaluation, checkpoint, row, *around] = found["rows"]
    assert step["tokens_per_second"] == pytest.approx(1000 * 64 / step["ms_per_step"])
    assert step["mfu"] > 0
    assert min(figures["seconds"] for figures in (evaluation, checkpoint, row)) > 0
    assert checkpoint["megabytes"] > 0.001
    assert sum(figures["share"] for figures in around[:3]) < 1
    assert [figures["name"] for figures in around[3:]] == ["batch 1", "batch 64"]
    assert not (spaces / "out").exists()
    assert (spaces / "datasets" / "basic" / "train.bin").exists()
    assert terrarium("train", "spaces").exit_code == 0
    before = sorted(path for path in spaces.rglob("*"))
    assert terrarium("bench", "spaces", "-s", "train.model.kind=lstm").exit_code == 0
    assert sorted(path for path in spaces.rglob("*")) == before


def test_bench_refuses_what_train_refuses(spaces: Path, terrarium: Terrarium) -> None:
    refused = terrarium("bench", "spaces", "-s", "train.model.kind=gtp")
    assert refused.exit_code == 2
    assert 'unknown model "gtp"' in refused.stderr
    assert not (spaces / "datasets").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "train.runtime.threads=1"), "-s: there is no config to change without an experiment"),
        (("--variant", "long"), "--variant: there is no config to change without an experiment"),
        (("spaces", "--full"), "--full: only works for the machine's table, not for an experiment"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    spaces: Path, terrarium: Terrarium, arguments: tuple[str, ...], message: str
) -> None:
    result = terrarium("bench", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


# A stand-in for the file that a checkout of nanoGPT has: the same interface, and one matrix.
MODEL_PY = """
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
        print("a model that talks while it is built")

    def forward(self, ids, targets=None):
        logits = self.table(ids)
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay)

    def generate(self, ids, count, temperature=1.0, top_k=None):
        for _ in range(count):
            ids = torch.cat((ids, self(ids)[0][:, -1:].argmax(-1)), 1)
        return ids
"""


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    path = Path(__file__).parent / "benchmarks" / "against_nanogpt.py"
    spec = importlib.util.spec_from_file_location("against_nanogpt", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "against_nanogpt", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "model.py").write_text(MODEL_PY)
    return tmp_path / "checkout"


@pytest.mark.slow
def test_both_sides_take_turns(against: ModuleType, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with against.both_sides(checkout, 1) as (ours, theirs):
        for kind in ("step", "sample"):
            case = against.Case(kind, 1, 2, 8, 8, rows=2, vocab_size=5)
            pairs = against.compare(case, ours, theirs, pairs=3, turn=0.01)
            assert len(pairs) == 3
            assert all(0 < seconds < 60 for pair in pairs for seconds in pair)
            against.show(case, pairs)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["training", "sampling"]
    assert all("1 x 8, batch 2" in line for line in lines)
    assert ours.process.returncode == theirs.process.returncode == 0


@pytest.mark.slow
def test_learning_is_compared_on_one_validation_file(
    against: ModuleType, checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    shape = ["train.model.n_layer=1", "train.model.n_embd=16", "train.model.n_head=2", "train.model.block_size=16"]
    recipe = [*shape, "train.schedule.max_iters=30", "train.runtime.dtype='float32'", "train.runtime.device='cpu'"]
    monkeypatch.setattr(against, "RECIPE", recipe)
    against.learning(tmp_path / "text.txt", checkout, 1, [3], steps=5)
    peer, ours, last = [line for line in capsys.readouterr().out.splitlines() if line]
    assert "5 steps" in peer
    assert "ours, seed 3" in ours
    assert "30 steps" in ours
    assert "1 of 1 seeds reach it" in last


def test_the_loss_of_a_known_model_is_that_of_arithmetic(against: ModuleType, text: Path, terrarium: Terrarium) -> None:
    assert terrarium("prepare", "text").exit_code == 0
    loss = against.whole_file_loss(lambda ids: torch.zeros(*ids.shape, 50), text / "datasets" / "basic")
    assert loss == pytest.approx(math.log(50))
