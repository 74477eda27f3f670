"""Runs the points of a sweep: each in a process of its own, as `train` does it, so many at once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import durable, files
from core.errors import Interrupted, UserError
from core.sweeps.plan import Point, Sweep
from core.sweeps.processes import Process, Starter
from core.sweeps.state import Progress, State
from core.tracking.environment import without_home
from core.tracking.metrics import read_rows
from core.tracking.run import lock_file
from core.training.signals import STOPPING, StopRequest, noting_signals

POLL = 0.05  # seconds between two looks at the processes
STOPPED = tuple(128 + number for number in STOPPING)  # exit codes
ERROR_LENGTH = 300  # characters of an error in the table
Watch = Callable[
    [Point, list[dict[str, Any]]], Progress | None
]  # rows of metrics so far -> how the run stands if it is to stop


@dataclass
class Job:
    """A run that is being trained. size: of its metrics.csv at the last look; asked: what halving has told it to stop as."""

    point: Point
    process: Process
    log: Path
    metrics: Path
    began: float = field(default_factory=time.monotonic)
    size: int = -1
    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: Progress | None = None

    def look(self) -> bool:
        """Read metrics.csv if it has grown. Returns whether it has."""
        with contextlib.suppress(OSError, UserError):  # the run itself will tell what is wrong with it
            size = self.metrics.stat().st_size
            if size != self.size:
                self.size, self.rows = size, read_rows(self.metrics)
                return True
        return False


class Crew:
    """At most `jobs` processes at once. show: called often, with the jobs that run; say: a sentence."""

    def __init__(
        self,
        state: State,
        jobs: int,
        *,
        show: Callable[[Sequence[Job]], None],
        ended: Callable[[Point, float], None],
        say: Callable[[str], None],
        watch: Watch | None = None,
    ) -> None:
        self.state, self.jobs, self.watch = state, jobs, watch
        self.show, self.ended, self.say = show, ended, say
        self.threads = max(1, cores() // jobs) if jobs > 1 else None  # one alone takes what is fastest
        self.starter = Starter(self.threads)
        self.running: list[Job] = []
        self.waited: set[str] = set()

    def work(self, points: Sequence[Point], remedy: str) -> None:
        """Train all points. Raises Interrupted, with the remedy, when a signal came and the runs have saved."""
        waiting = list(points)
        with noting_signals() as stop:
            try:
                while (waiting or self.running) and not stop.number:
                    self.start_some(waiting)
                    self.show(self.running)
                    time.sleep(POLL)
                    self.look()
            finally:
                self.end_all(stop)
        if stop.number:
            raise Interrupted(stop.number, remedy)

    def start_some(self, waiting: list[Point]) -> None:
        """Start what may start now, in order."""
        for point in list(waiting):
            if len(self.running) >= self.jobs:
                return
            if self.may_start(point):
                waiting.remove(point)
                self.running.append(self.start(point))
                self.state.set(point, Progress("running"))

    def start(self, point: Point) -> Job:
        """Begin to train a point."""
        sweep = self.state.sweep
        log = sweep.folder / "logs" / f"{point.run}.txt"
        durable.make_folders(log.parent)
        process = self.starter.start(arguments_of(sweep, point, self.threads), log)
        return Job(point, process, log, sweep.out / point.run / "metrics.csv")

    def may_start(self, point: Point) -> bool:
        """Not while a process that a killed sweep has left trains it; nor while another is timing which way is fastest for the same model."""
        out = self.state.sweep.out
        unsettled = [job for job in self.running if not (out / job.point.run / "config.toml").exists()]
        if any(shape(job.point) == shape(point) for job in unsettled):
            return False
        if holder := user_of(out / point.run):
            if point.run not in self.waited:
                self.waited.add(point.run)
                self.say(f"{point.run} is still in use by {holder}: waiting for it")
            return False
        return True

    def look(self) -> None:
        """Take in what has ended, and stop what halving gives up."""
        for job in list(self.running):
            if job.look() and self.watch and not job.asked:
                job.asked = self.watch(job.point, job.rows)
                if job.asked:
                    job.process.terminate()
            if (code := job.process.poll()) is not None:
                self.take(job, code)

    def take(self, job: Job, code: int) -> None:
        """Note how a job ended."""
        self.running.remove(job)
        self.starter.give_back(job.process)
        if code == 0:
            progress = Progress("completed")
        elif job.asked and code in STOPPED:
            progress = job.asked
        elif code in STOPPED:  # by this sweep, or by somebody else: the same command goes on
            progress = Progress("interrupted")
        else:
            progress = Progress("failed", error_of(self.state.sweep, job.log, code))
        if progress.status in ("completed", "stopped"):
            job.log.unlink(missing_ok=True)
        else:
            hide_home(job.log)
        self.state.set(job.point, progress)
        self.ended(job.point, time.monotonic() - job.began)

    def end_all(self, stop: StopRequest) -> None:
        """Have every process save and end."""
        for job in self.running:
            if job.asked is None:  # a second signal would end it before it has saved
                job.process.terminate()
        if self.running and stop.number:
            self.say(f"stopping {len(self.running)} run{'s' * (len(self.running) > 1)}, which save first")
        for job in list(self.running):
            self.take(job, job.process.wait())
        self.starter.close()


def arguments_of(sweep: Sweep, point: Point, threads: int | None) -> list[str]:
    """The command line that trains a point. threads: of a new run, where its config leaves them open."""
    overrides = list(point.overrides)
    is_new = not (sweep.out / point.run / "config.toml").exists()  # else it goes on with its own number
    if threads is not None and is_new and point.config.train.runtime.threads == "auto":
        overrides.append(f"train.runtime.threads={threads}")
    return [
        "train", sweep.experiment.address or sweep.experiment.name,
        "--run", point.run, *(["--variant", sweep.variant] if sweep.variant else []),
        *(["--description", sweep.description] if sweep.description else []),
        *(part for text in overrides for part in ("-s", text)),
    ]  # fmt: skip


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shape(point: Point) -> str:
    """All that the choice of the fastest way depends on, and more: points of one shape share the choice."""
    train = point.config.train
    return json.dumps([train.model.model_dump(), train.data.model_dump(), train.optim.name], sort_keys=True)


def user_of(folder: Path) -> str:
    """The process that trains a run just now, "" if none does."""
    path = lock_file(folder)
    if not path.exists():
        return ""
    try:
        with files.lock(path, "it"):
            return ""
    except UserError as error:
        return error.message.removeprefix("it is in use by ")


def error_of(sweep: Sweep, log: Path, code: int) -> str:
    """Why a run failed, on one line, without the paths of this machine."""
    if code < 0:
        return f"ended by signal {-code} ({signal.Signals(-code).name})"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    starts = [found.start() for found in re.finditer(r"^(error|failed): ", text, re.MULTILINE)]
    told = text[starts[-1] :] if starts else (text.strip().splitlines() or [f"exit code {code}"])[-1]
    told = without_home(" ".join(told.split())).replace(without_home(f"{sweep.experiment.folder}{os.sep}"), "")
    return told if len(told) <= ERROR_LENGTH else f"{told[:ERROR_LENGTH]}..."


def hide_home(log: Path) -> None:
    """Let paths in the user's home folder start with ~ in a log that is kept."""
    with contextlib.suppress(FileNotFoundError):  # of a process that was killed before it began
        text = log.read_text(encoding="utf-8", errors="replace")
        if (hidden := without_home(text)) != text:
            files.write_text(log, hidden)
