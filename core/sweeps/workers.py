"""Train the points of a sweep, several at a time, each in its own process and in the same way as `train`.

Run folders are the truth: a run whose worker or machine is lost goes on from its last checkpoint, and finished ones stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core import durable, files
from core.errors import Interrupted, UserError
from core.lab.training import Wish
from core.private import hide_home_in, without_home
from core.process import STOPPING, StopRequest, noting_signals
from core.sweeps.launching import ANY_GPU, GONE, Launcher, Work
from core.sweeps.plan import Point, Sweep
from core.sweeps.processes import Request, Share
from core.sweeps.state import Standing, State
from core.tracking.metrics import read_rows
from core.tracking.run import lock_file

POLL = 0.05  # seconds between two looks at the processes
LOST = 255  # multiprocessing's exit code if the process that the run was forked from was killed
# Exit codes of a run that has saved, and of one that was stopped before it started or by a second signal.
STOPPED = (*(code for number in STOPPING for code in (128 + number, -number)), LOST)
MOST_LOSSES = 10  # of a run that makes no progress between them: then it is the run that kills its worker
ERROR_LENGTH = 300  # characters of an error in the table
# Takes a point and its metrics so far. Returns its new standing if it should stop.
Watch = Callable[[Point, list[dict[str, Any]]], Standing | None]


@dataclass
class Job:
    """A run that is being trained. share: what it takes of its machine. folders: of its stages, or its own. size: of
    metrics.csv when last read. asked: its standing, if halving told it to stop."""

    point: Point
    process: Work
    share: Share
    log: Path
    folders: list[Path]
    began: float = field(default_factory=time.monotonic)
    size: int = -1
    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: Standing | None = None

    def look(self) -> bool:
        """Read metrics.csv, of the newest stage, if it has grown. Returns whether it has."""
        with contextlib.suppress(OSError, UserError):  # the run itself reports what is wrong
            begun = [path for folder in self.folders if (path := folder / "metrics.csv").exists()]
            metrics = begun[-1] if begun else self.folders[0] / "metrics.csv"
            size = metrics.stat().st_size
            if size != self.size:
                self.size, self.rows = size, read_rows(metrics)
                return True
        return False


class Crew:
    """As many runs at a time as the launcher has shares. show: called often, with the running jobs. say: prints a line."""

    def __init__(
        self,
        state: State,
        launcher: Launcher,
        *,
        show: Callable[[Sequence[Job]], None],
        ended: Callable[[Point, float], None],
        say: Callable[[str], None],
        watch: Watch | None = None,
    ) -> None:
        self.state, self.launcher, self.watch = state, launcher, watch
        self.show, self.ended, self.say = show, ended, say
        self.free = list(launcher.shares)
        self.waiting: list[Point] = []
        self.running: list[Job] = []
        self.waited: set[str] = set()
        self.losses: dict[str, tuple[int, int]] = {}  # run -> losses without progress, rows of metrics at the last one

    def work(self, points: Sequence[Point], remedy: str) -> None:
        """Train all points. After a signal, when the runs have saved, raises Interrupted with the remedy."""
        self.waiting = list(points)
        with noting_signals() as stop:
            try:
                while (self.waiting or self.running) and not stop.number:
                    self.start_some()
                    self.show(self.running)
                    time.sleep(POLL)
                    self.look()
            finally:
                self.end_all(stop)
        if stop.number:
            raise Interrupted(stop.number, remedy)

    def start_some(self) -> None:
        """Start the points that may start now, in order."""
        for point in list(self.waiting):
            if not self.free:
                return
            if self.may_start(point):
                self.waiting.remove(point)
                self.running.append(self.start(point))
                self.state.set(point, Standing("running"))

    def start(self, point: Point) -> Job:
        """Start to train a point."""
        sweep = self.state.sweep
        log = sweep.folder / "logs" / f"{point.run}.txt"
        durable.make_folders(log.parent)
        share = self.free.pop(0)
        work = self.launcher.start(request_for(sweep, point, share, log))
        return Job(point, work, share, log, point.folders(sweep.out))

    def may_start(self, point: Point) -> bool:
        """Whether no process left by a killed sweep trains this run, and no other run here is timing the same model."""
        out = self.state.sweep.out
        unsettled = [job for job in self.running if not (job.folders[0] / "config.toml").exists()]
        if self.launcher.is_here and any(shape(job.point) == shape(point) for job in unsettled):
            return False
        folders = dict.fromkeys([out / point.run, *point.folders(out)])  # between two stages only the first is locked
        if holder := next(filter(None, map(user_of, folders)), ""):
            if point.run not in self.waited:
                self.waited.add(point.run)
                self.say(f"{point.run} is still in use by {holder}: waiting for it")
            return False
        return True

    def look(self) -> None:
        """Collect the jobs that have ended, and stop those that halving rejects."""
        for job in list(self.running):
            if job.look() and self.watch and not job.asked:
                job.asked = self.watch(job.point, job.rows)
                if job.asked:
                    job.process.terminate()
            if (code := job.process.exitcode) is not None:
                self.take(job, code)

    def goes_on(self, job: Job) -> bool:
        """Put the run of a lost worker in line again. Returns False if it has been lost too often without progress."""
        job.look()
        count, rows = self.losses.get(job.point.run, (0, 0))
        count = count + 1 if len(job.rows) <= rows else 1
        self.losses[job.point.run] = count, len(job.rows)
        if count > MOST_LOSSES:
            return False
        self.say(f"{job.point.run}: its worker is lost; the run goes on from its last checkpoint")
        self.waiting.insert(0, job.point)
        self.state.set(job.point, Standing("waiting"))
        return True

    def take(self, job: Job, code: int, *, ending: bool = False) -> None:
        """Record how a job ended. ending: the sweep ends, so nothing starts again."""
        self.running.remove(job)
        self.free.append(job.share)
        if code == GONE and not ending and self.goes_on(job):
            return
        if code == 0:
            standing = Standing("completed")
        elif code == GONE and not ending:
            standing = Standing("failed", f"its worker was lost {MOST_LOSSES + 1} times without progress")
        elif job.asked and code in STOPPED:
            standing = job.asked
        elif code in (*STOPPED, GONE):  # by this sweep or by the user; the same command continues it
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
        """Tell every process to save and end, and wait for it."""
        for job in self.running:
            if job.asked is None:  # a second signal would end it before it has saved
                job.process.terminate()
        if self.running and stop.number:
            self.say(f"stopping {len(self.running)} run{'s' * (len(self.running) > 1)}; first, progress is saved")
        for job in list(self.running):
            job.process.join()
            self.take(job, job.process.exitcode or 0, ending=True)


def request_for(sweep: Sweep, point: Point, share: Share, log: Path) -> Request:
    """The request to train a point. share: its threads are for a new run whose config says "auto"; its GPU for a run that
    asks for none in particular."""
    experiment, variant, overrides = sweep.experiment, sweep.opened.variant, point.overrides
    runtime = point.config.train.runtime
    is_new = not (point.folders(sweep.out)[0] / "config.toml").exists()  # an existing run keeps its number
    if share.threads is not None and is_new and runtime.threads == "auto":
        overrides = (*overrides, f"train.runtime.threads={share.threads}")
    if runtime.device not in ANY_GPU:
        share = replace(share, gpu="", on_gpu=1)
    name = experiment.argument
    command = sweep.call.of_run(point.run, overrides)
    wish = Wish(point.run, description=sweep.description, command=command)
    return Request(name, variant, overrides, wish, log, share)


def shape(point: Point) -> str:
    """What the choice of the fastest settings depends on. Points of the same shape share the choice."""
    train = point.config.train
    return json.dumps([train.model.model_dump(), train.data.model_dump(), train.optim.name], sort_keys=True)


def user_of(folder: Path) -> str:
    """The process that is training a run now; "" if there is none."""
    path = lock_file(folder)
    if not path.exists():
        return ""
    try:
        with files.lock(path, "it"):
            return ""
    except UserError as error:
        if error.message.startswith(in_use := "it is in use by "):
            return error.message.removeprefix(in_use)
        raise


def error_of(sweep: Sweep, log: Path, code: int) -> str:
    """Why a run failed, on one line, without paths of this machine."""
    if code < 0:
        return f"ended by signal {-code} ({signal.Signals(-code).name})"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    starts = [found.start() for found in re.finditer(r"^(error|failed): ", text, re.MULTILINE)]
    told = text[starts[-1] :] if starts else (text.strip().splitlines() or [f"exit code {code}"])[-1]
    told = without_home(" ".join(told.split())).replace(without_home(f"{sweep.experiment.folder}{os.sep}"), "")
    return told if len(told) <= ERROR_LENGTH else f"{told[:ERROR_LENGTH]}..."
