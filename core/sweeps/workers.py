"""Run the points of a sweep: each in a process of its own, as `train` does it, so many at once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from core import durable, files
from core.errors import Interrupted, UserError
from core.lab.training import Wish
from core.private import command_line, hide_home_in, without_home
from core.process import STOPPING, StopRequest, noting_signals
from core.sweeps import processes
from core.sweeps.plan import Point, Sweep
from core.sweeps.processes import Request
from core.sweeps.state import Standing, State
from core.tracking.metrics import read_rows
from core.tracking.run import lock_file
from core.training.measured import cores

POLL = 0.05  # seconds between two looks at the processes
LOST = 255  # multiprocessing's code where nobody saw the end: what the run was forked from has been killed
# Exit codes: of a run that has saved, and of one that was stopped before it began, or by a second signal.
STOPPED = (*(code for number in STOPPING for code in (128 + number, -number)), LOST)
ERROR_LENGTH = 300  # characters of an error in the table
# Rows of metrics so far -> how the run stands if it is to stop.
Watch = Callable[[Point, list[dict[str, Any]]], Standing | None]


@dataclass
class Job:
    """A run that is being trained. size: of its metrics.csv at the last look; asked: what halving has told it to stop as."""

    point: Point
    process: BaseProcess
    log: Path
    metrics: Path
    began: float = field(default_factory=time.monotonic)
    size: int = -1
    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: Standing | None = None

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
                self.state.set(point, Standing("running"))

    def start(self, point: Point) -> Job:
        """Begin to train a point."""
        sweep = self.state.sweep
        log = sweep.folder / "logs" / f"{point.run}.txt"
        durable.make_folders(log.parent)
        process = processes.start(request_for(sweep, point, self.threads, log))
        return Job(point, process, log, sweep.out / point.run / "metrics.csv")

    def may_start(self, point: Point) -> bool:
        """Not while a process that a killed sweep has left trains it, nor while another times the ways of the same model."""
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
            if (code := job.process.exitcode) is not None:
                self.take(job, code)

    def take(self, job: Job, code: int) -> None:
        """Note how a job ended."""
        self.running.remove(job)
        if code == 0:
            standing = Standing("completed")
        elif job.asked and code in STOPPED:
            standing = job.asked
        elif code in STOPPED:  # by this sweep, or by somebody else: the same command goes on
            standing = Standing("interrupted")
        else:
            standing = Standing("failed", error_of(self.state.sweep, job.log, code))
        if standing.status in ("completed", "stopped"):
            job.log.unlink(missing_ok=True)
        else:
            hide_home_in(job.log)
        self.state.set(job.point, standing)
        self.ended(job.point, time.monotonic() - job.began)

    def end_all(self, stop: StopRequest) -> None:
        """Have every process save and end."""
        for job in self.running:
            if job.asked is None:  # a second signal would end it before it has saved
                job.process.terminate()
        if self.running and stop.number:
            self.say(f"stopping {len(self.running)} run{'s' * (len(self.running) > 1)}, which save first")
        for job in list(self.running):
            job.process.join()
            self.take(job, job.process.exitcode or 0)


def request_for(sweep: Sweep, point: Point, threads: int | None, log: Path) -> Request:
    """What a process needs to train a point. threads: of a new run, where its config leaves them open."""
    experiment, variant, overrides = sweep.experiment, sweep.opened.variant, point.overrides
    is_new = not (sweep.out / point.run / "config.toml").exists()  # else it goes on with its own number
    if threads is not None and is_new and point.config.train.runtime.threads == "auto":
        overrides = (*overrides, f"train.runtime.threads={threads}")
    name = experiment.address or experiment.name
    command = command_line([
        "python", "-m", "core.cli", "train", name, "--run", point.run, *(["--variant", variant] if variant else []),
        *(["--description", sweep.description] if sweep.description else []),
        *(part for text in overrides for part in ("-s", text)),
    ])  # fmt: skip
    wish = Wish(point.run, description=sweep.description, command=command)
    return Request(name, variant, overrides, wish, log, threads)


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
