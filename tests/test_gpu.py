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
    """Their weights may differ in the last bits (docs/LOG.md), so the losses are compared."""
    long = ("-s", "train.schedule.max_iters=1000", "-s", "train.runtime.eval_interval=1000")
    one, two = (json.loads((trained(spaces_on_gpu, run, *long) / "summary.json").read_text()) for run in ("one", "two"))
    assert one["choices"]["compile"] is two["choices"]["compile"] is True
    assert one["best_val_loss"] == pytest.approx(two["best_val_loss"], rel=0.02)
    assert json.loads((trained(spaces_on_gpu, "short") / "summary.json").read_text())["choices"]["compile"] is False


def test_what_does_not_fit_is_told(spaces_on_gpu: Path) -> None:
    huge = ("-s", "train.data.batch_size=4000000", "-s", "train.model.n_embd=512")
    done = terrarium(spaces_on_gpu, "train", "spaces", "--run", "huge", *huge)
    assert done.returncode == 2 and "does not fit into the memory of cuda" in done.stderr, done.stderr
