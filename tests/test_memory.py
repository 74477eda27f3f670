"""A step that does not fit: the message names how many rows do, and what it says works."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import process
from core.training import memory

LIMIT = 1_000_000_000  # bytes that a process may take: torch's libraries are not counted, what it computes is
BIG = [
    "-s", "train.data.batch_size=4096", "-s", "train.model.block_size=64", "-s", "train.model.n_embd=32",
    "-s", "train.model.n_head=1", "-s", "train.model.n_layer=1", "-s", "train.schedule.max_iters=1",
    "-s", "train.runtime.threads=1", "-s", "train.runtime.dtype=float32", "-s", "train.runtime.attention=explicit", "-s", "train.data.layout=stream",
]  # fmt: skip


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`train` in a process that may take LIMIT bytes."""
    return subprocess.run(
        [sys.executable, "-m", "core.cli", "train", "spaces", *options],
        cwd=folder, text=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of memory")
def test_a_step_that_does_not_fit_names_the_rows_that_do(spaces: Path) -> None:
    failed = train(spaces.parents[1], *BIG)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "does not fit into the memory of cpu" in failed.stderr
    assert "train.data.batch_size = 4096" in failed.stderr
    advice = re.search(r"--fresh (-s train.data.batch_size=(\d+) -s train.data.grad_accum_steps=(\d+))", failed.stderr)
    assert advice is not None, failed.stderr
    rows, parts = int(advice[2]), int(advice[3])
    assert rows * parts == 4096
    assert rows >= 32
    followed = train(spaces.parents[1], *BIG, "--fresh", *advice[1].split())
    assert followed.returncode == 0, followed.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of memory")
@pytest.mark.slow  # 8 s; test_beginning has the same in a moment, without a real limit
def test_a_first_step_that_does_not_fit_gives_the_old_run_its_name_back(spaces: Path) -> None:
    assert train(spaces.parents[1]).returncode == 0
    out = spaces / "out"
    before = {path: path.read_bytes() for path in (out / "default").rglob("*") if path.is_file()}
    failed = train(spaces.parents[1], *BIG, "--fresh")
    assert failed.returncode == 2 and "does not fit into the memory of cpu" in failed.stderr, failed.stderr
    assert "The new run could not start, so default-1 is default again.\n" in failed.stdout
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["default"]
    assert {path: path.read_bytes() for path in (out / "default").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_errors_of_memory_are_told_from_others(error: Exception) -> None:
    assert memory.used_up(error)
    with pytest.raises(memory.NoRoom), memory.noticing():
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory.noticing():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@settings(max_examples=4)  # each trial collects garbage first
@given(st.integers(1, 500), st.integers(0, 500))
def test_the_largest_part_that_fits_is_found(rows: int, room: int) -> None:
    def step(count: int) -> None:
        if count > room:
            raise MemoryError

    expected = max((part for part in range(1, rows) if rows % part == 0 and part <= room), default=None)
    assert memory.most_rows(step, rows) == expected


def test_there_is_memory_available() -> None:
    available = process.available_bytes()
    if available is None:
        pytest.skip("this system does not say")
    assert available > 10_000_000


@pytest.mark.parametrize(("most", "used", "cached", "left"), [("max", 0, 0, None), ("1000", "700", "200", 500)])
def test_a_container_s_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, used: str, cached: int, left: int | None
) -> None:
    for name, text in (
        ("memory.max", most),
        ("memory.current", used),
        ("memory.stat", f"anon 1\ninactive_file {cached}\n"),
    ):
        (tmp_path / name).write_text(str(text))
    monkeypatch.setattr(process, "CGROUP", tmp_path)
    free: Callable[[], int | None] = process.available_bytes
    assert free() == left if left is not None else (free() or 10**9) > 1000


ALONE = """import torch
from core.training import memory

for size in (75_000_000, 2_000_000):
    with memory.measuring(torch.device("cpu")) as found:
        torch.ones(size)
    print(found.rise)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_the_peak_of_what_is_measured_alone() -> None:
    """Each measurement begins anew: what was used before and is freed does not count. In a process of its own, whose memory is small."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    large, small = map(int, done.stdout.split())
    assert 300e6 < large < 330e6 and 0 <= small < 30e6


def test_where_the_system_does_not_say_there_is_no_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "nothing")
    with memory.measuring(torch.device("cpu")) as found:
        pass
    assert found.rise is None


MANY = """import numpy, torch
from core import process
from core.evaluation.loss import mean_loss
from core.training.machine import choose_machine
from core.training.memory import process_peak

process.keep_freed_memory()
model = torch.nn.Sequential(torch.nn.Embedding(20_000, 200), torch.nn.Linear(200, 20_000))
ids = numpy.ones((4, 64), numpy.int64)
machine = choose_machine("cpu", "float32", False, 1, "explicit")
for batches in (2, 40):
    mean_loss(model, [(ids, ids)] * batches, machine)
    print(process_peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_an_evaluation_of_many_batches_needs_the_memory_of_one() -> None:
    """Where freed memory is kept, what is kept of each batch must not stand in the way of the next one's logits."""
    done = subprocess.run(
        [sys.executable, "-c", MANY], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    few, many = map(int, done.stdout.split())
    assert many < few + 100e6  # the logits of a batch take 20 MB
