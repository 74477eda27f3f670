"""On a GPU: runs repeat and resume bit for bit, attention agrees, long runs are compiled. Skipped where there is none.

Each test starts processes that see the GPU; the tests' own process does not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, with_gpus

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.gpu
ON_GPU = TINY.replace('device = "cpu"', 'device = "cuda"').replace('dtype = "float32"', 'dtype = "bfloat16"')
LONG = (
    "-s",
    "train.schedule.max_iters=400",
    "-s",
    "train.runtime.checkpoint_interval=50",
    "-s",
    "train.runtime.eval_interval=100",
)
PRESETS = ("modern", "gpt2", "llama", "portable")


def environment() -> dict[str, str]:
    return with_gpus() | {"PYTHONPATH": str(ROOT)}


def terrarium(spaces: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "core.cli", *arguments]
    return subprocess.run(command, cwd=spaces.parent.parent, env=environment(), capture_output=True, text=True)


def trained(spaces: Path, run: str, *options: str) -> Path:
    done = terrarium(spaces, "train", "spaces", "--run", run, *LONG, *options)
    assert done.returncode == 0, done.stderr
    return spaces / "out" / run


def weights(run: Path) -> bytes:
    return (run / "checkpoints" / "last" / "model.safetensors").read_bytes()


@pytest.fixture
def spaces_on_gpu(spaces: Path) -> Path:
    (spaces / "config.toml").write_text(ON_GPU)
    return spaces


def run_python(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_repeats_bit_for_bit(spaces_on_gpu: Path, preset: str) -> None:
    options = ("-s", f"train.model.preset={preset}")
    assert weights(trained(spaces_on_gpu, "one", *options)) == weights(trained(spaces_on_gpu, "two", *options))
    summary = json.loads((spaces_on_gpu / "out" / "one" / "summary.json").read_text())
    assert summary["device"].startswith("cuda") and summary["dtype"] == "bfloat16"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_resumes_bit_for_bit(spaces_on_gpu: Path, number: signal.Signals) -> None:
    options = ("-s", "train.model.dropout=0.1", "-s", "train.data.grad_accum_steps=2")
    whole = trained(spaces_on_gpu, "whole", *options)
    command = [sys.executable, "-m", "core.cli", "train", "spaces", "--run", "broken", *LONG, *options]
    metrics, broken = spaces_on_gpu / "out" / "broken" / "metrics.csv", spaces_on_gpu / "out" / "broken"
    for rows in (60, 120):
        process = subprocess.Popen(command, cwd=spaces_on_gpu.parent.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < rows):
            time.sleep(0.005)
        os.kill(process.pid, number)
        process.wait()
    assert weights(trained(spaces_on_gpu, "broken", *options)) == weights(whole)
    assert json.loads((broken / "summary.json").read_text())["status"] == "completed"


def test_evaluation_and_sampling_work_there(spaces_on_gpu: Path) -> None:
    trained(spaces_on_gpu, "default")
    found = terrarium(spaces_on_gpu, "evaluate", "spaces", "--json")
    assert found.returncode == 0 and "val_accuracy" in json.loads(found.stdout), found.stderr
    assert terrarium(spaces_on_gpu, "sample", "spaces", "--start", "a", "--max-new-tokens", "8").returncode == 0


def test_the_forms_of_attention_agree(spaces_on_gpu: Path) -> None:
    """In float32, for each way to know a place, with grouped queries and a window: the same logits as on the CPU."""
    code = """
import json, torch
from core.config import Config
from core.defaults import resolve
from core.models.build import build_model, use_attention
worst = {}
for position in ("rope", "learned", "alibi", "none"):
    keys = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "block_size": 32, "position": position, "window": 8}
    torch.manual_seed(0)
    model = build_model(resolve(Config.model_validate({"train": {"model": keys}})).train.model, 11).eval()
    ids = torch.randint(11, (3, 32))
    with torch.no_grad():
        expected = model(ids)
        model.cuda()
        for form in ("explicit", "sdpa", "sdpa32"):
            use_attention(model, form)
            worst[position + form] = float((model(ids.cuda()).cpu() - expected).abs().max())
print(json.dumps(worst))
"""
    assert max(run_python(code).values()) < 1e-3


def test_long_runs_are_compiled_by_rule(spaces_on_gpu: Path) -> None:
    """Their weights may differ in the last bits (docs/LOG.md), so the losses are compared. A step is taken to need 10 ms."""
    long = (
        "-s",
        "train.schedule.max_iters=6000",
        "-s",
        "train.runtime.eval_interval=6000",
        "-s",
        "train.runtime.cuda_graphs=false",
    )
    one, two = (json.loads((trained(spaces_on_gpu, run, *long) / "summary.json").read_text()) for run in ("one", "two"))
    assert one["choices"]["compile"] is two["choices"]["compile"] is True
    assert one["best_val_loss"] == pytest.approx(two["best_val_loss"], rel=0.02)
    assert json.loads((trained(spaces_on_gpu, "short") / "summary.json").read_text())["choices"]["compile"] is False


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("compile", ["true", "false"])
def test_a_recorded_run_learns_what_another_does(spaces_on_gpu: Path, preset: str, compile: str) -> None:
    """Within rounding: a rate that is read from the GPU is float32, and sums are of another order where a step is compiled."""
    options = (
        "-s",
        f"train.model.preset={preset}",
        "-s",
        f"train.runtime.compile={compile}",
        "-s",
        "train.data.grad_accum_steps=2",
    )
    losses = []
    for recorded in ("true", "false"):
        run = trained(spaces_on_gpu, f"graphs-{recorded}", *options, "-s", f"train.runtime.cuda_graphs={recorded}")
        summary = json.loads((run / "summary.json").read_text())
        assert summary["choices"]["cuda_graphs"] is (recorded == "true")
        losses.append(summary["best_val_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_recorded_step_has_dropout(spaces_on_gpu: Path) -> None:
    run = trained(spaces_on_gpu, "dropped", "-s", "train.model.dropout=0.1", "-s", "train.runtime.cuda_graphs=true")
    assert json.loads((run / "summary.json").read_text())["choices"]["cuda_graphs"] is True


def test_a_step_does_not_wait_for_the_gpu() -> None:
    """torch raises where an operation waits. Three steps as they are, then recorded ones."""
    code = """
import json, torch
from core.bench.training import Shape, config_of, random_batch
from core.training.graphed import step_of
from core.training.machine import Machine, model_on
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.plugins.manager import plugins
shape, found = Shape(2, 2, 64, 32, 4), {}
for preset in ("modern", "gpt2"):
    config = config_of(preset, shape).train
    machine = Machine(torch.device("cuda"), torch.bfloat16, cuda_graphs=True)
    model = model_on(machine, config.model, 65, plugins())
    step = step_of(model, build_optimizer(model, config.optim), machine, 1.0, tokens)
    batch = random_batch(shape)
    for number in range(8):
        torch.cuda.set_sync_debug_mode("error" if number not in (0, 3) else "default")  # the first, and the recording, may wait
        step(*batch)
    torch.cuda.set_sync_debug_mode("default")
    found[preset] = step.recorded.update is not None
print(json.dumps(found))
"""
    assert run_python(code) == {"modern": True, "gpt2": True}


def test_replayed_decoding_writes_what_the_model_computes() -> None:
    """In float32, greedy, with and without a cache; past the block too."""
    code = """
import json, torch
from core.config import Config
from core.defaults import resolve
from core.models.build import build_model
from core.models.replayed import ReplayedDecoder
from core.sampling.generate import generate
worst = {}
for preset in ("modern", "gpt2", "llama", "portable"):
    keys = {"preset": preset, "n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 300}
    torch.manual_seed(0)
    model = build_model(resolve(Config.model_validate({"train": {"model": keys}})).train.model, 11).cuda().eval()
    model.replays = True
    cache, ids = model.new_cache(3), torch.randint(11, (3, 300), device="cuda")
    assert isinstance(cache, ReplayedDecoder)
    with torch.inference_mode():
        found = torch.cat([model(ids[:, at : at + 1], cache) for at in range(300)], dim=1)
        worst[preset] = float((found - model(ids)).abs().max())
    assert len(cache.recordings) == 2
    for _ in generate(model, ids[:, :5], max_new_tokens=400, temperature=0.8):
        pass
print(json.dumps(worst))
"""
    assert max(run_python(code).values()) < 1e-2


def test_the_loss_in_chunks_is_the_whole_one_compiled() -> None:
    code = """
import json, torch
from core.bench.training import Shape, config_of
from core.models.build import build_model
from core.training.objectives import tokens
torch.manual_seed(0)
model = build_model(config_of("modern", Shape(1, 2, 64, 64, 4)).train.model, 1000).cuda()
ids, found = torch.randint(1000, (2, 4, 64), device="cuda"), []
for size in (0, 64):
    model.loss_chunk = size
    model.zero_grad()
    torch.compiler.reset()
    nats = torch.compile(lambda *batch: tokens(model, *batch), fullgraph=True)(*ids)
    nats.backward()
    found.append([float(nats), float(model.lm_head.weight.grad.norm())])
print(json.dumps(found))
"""
    whole, chunks = run_python(code)
    assert chunks == pytest.approx(whole, rel=1e-2)


def test_what_does_not_fit_is_told(spaces_on_gpu: Path) -> None:
    huge = ("-s", "train.data.batch_size=4000000", "-s", "train.model.n_embd=512")
    done = terrarium(spaces_on_gpu, "train", "spaces", "--run", "huge", *huge)
    assert done.returncode == 2 and "does not fit into the memory of cuda" in done.stderr, done.stderr
