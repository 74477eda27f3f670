"""SIGINT and SIGTERM at any moment: what was done is saved, the exit code tells, and a resumed run is the unbroken one.

The signals are sent by the process to itself, through the system, at the n-th call of a Python function: as random as a
clock, and repeatable.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PREPARE, TINY
from forks import Forks

from core.errors import Stopped
from core.process import ending_on_signals
from core.tracking.metrics import read_rows
from core.training import checkpoints

CLOCKS = {"seconds", "tokens_per_second"}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


def fresh(folder: Path) -> Path:
    """A home with the experiment `spaces`, of which nothing is made."""
    spaces = folder / "experiments" / "spaces"
    spaces.mkdir(parents=True)
    (spaces / "prepare.py").write_text(PREPARE)
    (spaces / "config.toml").write_text(TINY + "\n[sample.sample]\nmax_new_tokens = 8\n")
    return folder


def outcome(home: Path) -> dict[str, Any]:
    """All that an unbroken and a resumed run must have in common."""
    run = home / "experiments" / "spaces" / "out" / "default"
    files = {f"{name}/{part}": (run / "checkpoints" / name / part).read_bytes()
             for name in ("best", "last") for part in checkpoints.PARTS}  # fmt: skip
    rows = [{key: value for key, value in row.items() if key not in CLOCKS} for row in read_rows(run / "metrics.csv")]
    summary = json.loads((run / "summary.json").read_text())
    kept = ("status", "steps", "tokens", "best_val_loss", "best_step", "final_train_loss", "final_val_loss", "accuracy",
            "dataset_fingerprint")  # fmt: skip
    data = home / "experiments" / "spaces" / "datasets" / "basic"
    arrays = {path.name: path.read_bytes() for path in data.glob("*.bin")}
    return {"files": files, "rows": rows, "summary": {key: summary[key] for key in kept}, "data": arrays}


@pytest.fixture(scope="module")
def unbroken(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `loop` makes without a signal, and how many calls it takes."""
    home = fresh(tmp_path_factory.mktemp("unbroken"))
    answer = forks.run(home, "loop", "spaces")
    assert answer["code"] == 0, answer["output"]
    return {"calls": answer, **outcome(home)}


def last_step(home: Path) -> int | None:
    """The step of the newest whole checkpoint `last`."""
    parent = home / "experiments" / "spaces" / "out" / "default" / "checkpoints"
    if not checkpoints.candidates(parent, "last"):
        return None
    return int(checkpoints.load(parent, "last").state["step"])


def no_temporary(home: Path) -> bool:
    return not list(home.rglob(".tmp-*"))


def interrupt_and_resume(
    forks: Forks, home: Path, command: str, at: int, number: signal.Signals, unbroken: dict[str, Any]
) -> str:
    """One signal; then the same command again. Returns what the signal met."""
    answer = forks.run(home, command, "spaces", at=at, number=int(number))
    then, output = answer["then"], answer["output"]
    assert answer["code"] == 128 + number, (answer["code"], then, output)
    assert "Traceback" not in output, (then, output)
    assert "interrupted" in output
    assert no_temporary(home), then["doing"]
    if then["noted"]:  # in the training loop
        assert answer["steps"] - then["steps"] <= 1
        assert answer["saves"] - then["saves"] <= 2  # `last`, and `best` where an evaluation falls on that step
        saved = last_step(home)
        assert saved is not None
        # A signal behind the look at the end of a step is seen at the end of the next one.
        assert then["step"] <= saved <= max(then["step"], 0) + 2
        assert f"interrupted, and saved. Go on with: python -m core.cli {command} spaces" in output
    again = forks.run(home, command, "spaces")
    assert again["code"] == 0, (then, output, again["output"])
    found = outcome(home)
    assert all(found[key] == unbroken[key] for key in found), (then["doing"], output)
    if then["noted"]:
        return "training"
    return next((name for name in PHASES if name in then["doing"]), "elsewhere")


PHASES = (
    "load_code",
    "load_config",
    "prepare",
    "settle",
    "open_run",
    "conclude",
    "evaluate",
    "sample",
    "report",
    "write_report",
)


@pytest.mark.parametrize("count", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_signals_at_random_moments(
    forks: Forks, unbroken: dict[str, Any], tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the moments lie between the first step and the last, the others anywhere."""
    calls, generator = unbroken["calls"], random.Random(count)
    met: dict[str, int] = {}
    for trial in range(count):
        first, last = (calls["first"], calls["last"]) if trial % 2 else (1, int(0.97 * calls["calls"]))
        share = (trial // 2 + generator.random()) / ((count + 1) // 2)  # one in each part of equal length
        home = fresh(tmp_path / str(trial))
        at = first + int(share * (last - first))
        phase = interrupt_and_resume(forks, home, "loop", at, SIGNALS[trial // 2 % 2], unbroken)
        met[phase] = met.get(phase, 0) + 1
        shutil.rmtree(home)
    assert met["training"] >= 0.4 * count
    if count >= 1000:  # fewer of them may miss it
        assert met["prepare"] >= 0.03 * count
    with capsys.disabled():
        print(f"\n{count} signals met {met}")


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_a_second_signal_ends_at_once_and_loses_nothing(
    forks: Forks, unbroken: dict[str, Any], tmp_path: Path, count: int
) -> None:
    generator, killed = random.Random(count), 0
    calls = unbroken["calls"]
    for trial in range(count):
        home, number = fresh(tmp_path / str(trial)), SIGNALS[trial % 2]
        at = generator.randrange(calls["first"], calls["last"])
        again = generator.randint(1, 2000)
        answer = forks.run(home, "loop", "spaces", at=at, number=int(number), again=again)
        assert answer["code"] in (-number, 128 + number), answer
        killed += answer["code"] == -number
        saved = last_step(home) or 0
        assert saved >= max(answer["then"].get("step", 0) - 2, 0)  # a checkpoint every second step
        resumed = forks.run(home, "loop", "spaces")
        assert resumed["code"] == 0, resumed["output"]
        found = outcome(home)
        assert all(found[key] == unbroken[key] for key in found)
        shutil.rmtree(home)
    assert killed >= count // 2


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_plot_is_drawn(
    forks: Forks, unbroken: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    home = fresh(tmp_path)
    answer = forks.run(home, "loop", "spaces", at=2 * unbroken["calls"]["calls"], number=int(number), plots=True)
    assert answer["code"] == 128 + number, answer
    assert forks.run(home, "loop", "spaces", plots=True)["code"] == 0
    found = outcome(home)
    assert all(found[key] == unbroken[key] for key in found)
    assert (home / "experiments/spaces/out/default/report.html").exists()


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-m", "core.cli", *arguments], cwd=home, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("count", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_a_whole_process_that_is_still_importing(
    forks: Forks, unbroken: dict[str, Any], tmp_path: Path, count: int
) -> None:
    """The signal comes from outside, by the clock, in the second that importing takes."""
    generator = random.Random(count)
    for trial in range(count):
        home, number = fresh(tmp_path / str(trial)), SIGNALS[trial % 2]
        process = start(home, "loop", "spaces")
        time.sleep(0.1 + generator.random() * 0.6)  # a tiny run is over after little more than a second
        if process.poll() is not None:  # where this process got no time meanwhile
            process.communicate()
            continue
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        # Before there is a handler the system's own way is to die of the signal.
        assert process.returncode in (128 + number, -number), said
        assert forks.run(home, "loop", "spaces")["code"] == 0
        found = outcome(home)
        assert all(found[key] == unbroken[key] for key in found)


def test_a_real_process_saves_and_goes_on(forks: Forks, tmp_path: Path) -> None:
    """Signals from outside, in the midst of a run of many steps; the steps it had logged are not lost."""
    long = ("-s", "train.schedule.max_iters=160", "-s", "train.runtime.eval_interval=80",
            "-s", "train.runtime.checkpoint_interval=1000", "-s", "train.runtime.log_interval=1")  # fmt: skip
    whole, broken = fresh(tmp_path / "whole"), fresh(tmp_path / "broken")
    assert forks.run(whole, "train", "spaces", *long)["code"] == 0
    metrics = broken / "experiments" / "spaces" / "out" / "default" / "metrics.csv"
    for number, rows in ((signal.SIGINT, 40), (signal.SIGTERM, 90)):
        process = start(broken, "train", "spaces", *long)
        while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < rows):
            time.sleep(0.005)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, said
        assert "interrupted, and saved" in said
        assert (last_step(broken) or 0) >= rows - 1
        assert last_step(broken) == read_rows(metrics)[-1]["step"]
    assert forks.run(broken, "train", "spaces", *long)["code"] == 0
    assert outcome(broken) == outcome(whole)


class Dying:
    """Sends this process a signal while it is thrown away, where Python drops every exception."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            pass


def test_a_signal_is_not_lost_while_an_object_is_thrown_away() -> None:
    began = time.monotonic()
    with pytest.raises(Stopped) as stopped, ending_on_signals():
        Dying()
        time.sleep(5)
    assert stopped.value.number == signal.SIGTERM
    assert time.monotonic() - began < 4
