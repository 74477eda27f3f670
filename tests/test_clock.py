"""Durations come from the monotonic clock: a wall clock that jumps by days changes nothing but dates."""

from __future__ import annotations

import datetime
import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from copies import AtOnce

import core
from core.training import saver

Terrarium = Callable[..., Result]
DAY = 86_400.0


class Jumping:
    """A wall clock that is a day ahead, right, or a day behind, at every look another one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, jumps: tuple[float, ...]) -> None:
        whole, jump = time.time, itertools.cycle(jumps)
        self.looks = 0

        def wall() -> float:
            self.looks += 1
            return whole() + next(jump)

        class Date(datetime.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.datetime.fromtimestamp(wall(), tz)

        monkeypatch.setattr(time, "time", wall)
        monkeypatch.setattr(time, "time_ns", lambda: int(wall() * 1e9))
        monkeypatch.setattr("core.lab.summaries.datetime", type("module", (), {"datetime": Date}))


class Steady:
    """A monotonic clock that goes on by a millisecond at every look, so that two runs take the same time to the bit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ticks = itertools.count()
        monkeypatch.setattr(time, "perf_counter", lambda: 1000 + next(ticks) / 1000)
        monkeypatch.setattr(saver, "ThreadPoolExecutor", AtOnce)  # two threads would look in any order


DATES = {"started", "command", "run", "description", "environment"}


def results(spaces: Path, run: str) -> dict[str, Any]:
    """Everything that a run tells in figures, its times too."""
    folder = spaces / "out" / run
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "metrics": (folder / "metrics.csv").read_text(),
        "summary": {key: value for key, value in summary.items() if key not in DATES},
        "weights": (folder / "checkpoints" / "last" / "model.safetensors").read_bytes(),
    }


@pytest.mark.parametrize(
    "options", [[], ["-s", "train.runtime.max_minutes=0.002"], ["-s", "train.runtime.trackers=['tensorboard']"]]
)
def test_a_wall_clock_that_jumps_changes_no_figure(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    settled = ["-s", "train.runtime.attention=explicit", "-s", "train.runtime.threads=1", *options]
    assert (
        terrarium("train", "spaces", "--run", "first", *settled).exit_code == 0
    )  # measures the machine by the real clock
    found = {}
    for run, jumps in (("right", (0.0,)), ("jumping", (DAY, 0.0, -DAY)), ("ahead", (0.0, DAY, 2 * DAY, 3 * DAY))):
        with monkeypatch.context() as patch:
            Steady(patch)
            wall = Jumping(patch, jumps)
            result = terrarium("train", "spaces", "--run", run, *settled)
        assert result.exit_code == 0, result.output
        assert wall.looks
        found[run] = results(spaces, run)
    assert found["jumping"] == found["right"]
    assert found["ahead"] == found["right"]
    assert 0 < found["right"]["summary"]["wall_seconds"] < 10


def test_a_dataset_stays_current_when_the_clock_jumps(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is ready" in terrarium("prepare", "spaces").output
    Jumping(monkeypatch, (-DAY,))
    assert "is up to date" in terrarium("prepare", "spaces").output


def test_a_resume_a_day_before_goes_on(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    before = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    Jumping(monkeypatch, (-DAY,))
    steps = ("-s", "train.schedule.max_iters=9", "-s", "train.schedule.lr_decay_iters=6")
    assert terrarium("train", "spaces", "--resume", *steps).exit_code == 0
    after = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert after["steps"] == 9
    assert before["wall_seconds"] <= after["wall_seconds"] < before["wall_seconds"] + 60
    assert after["started"] == before["started"]


def test_the_wall_clock_is_asked_for_dates_only() -> None:
    """In core, these files alone look at the wall clock: when a run or a lock began, how old a run is, trackers' stamps,
    and when a server wants to be asked again."""
    word = re.compile(r"time\.time\(|time_ns\(|datetime\.now|utcnow|date\.today|localtime|strftime|gmtime")
    folder = Path(core.__file__).parent
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(word.search(line) for line in path.read_text().splitlines())
    }
    stamps = {"tracking/tensorboard.py", "tracking/mlflow.py", "serve/live/catalog.py", "serve/live/jobs.py"}
    assert (
        found
        <= {"lab/summaries.py", "lab/pruning.py", "download.py", "serve/replies.py", "tracking/tracker.py", "files.py"}
        | stamps
    )
