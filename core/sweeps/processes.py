"""Train each run in its own process.

The command line on Linux forks runs from a process that has already imported everything. Python has one such process for
the whole program, and under the Python API it is the caller's; on other systems a fork is not safe. There each run imports
for itself. If the sweep is killed with SIGKILL, its runs notice it, save and end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO

from core import process
from core.exits import exit_of
from core.lab import loop
from core.lab.opened import open_folder
from core.lab.training import Wish
from core.listener import Silent
from core.private import hide_home_in
from core.process import STOPPING


@dataclass(frozen=True)
class Share:
    """What a run may take of its machine. threads: None for torch's own choice. gpu: the only GPU that it sees, as in
    CUDA_VISIBLE_DEVICES; "" for all. on_gpu: runs that divide the memory of this GPU."""

    threads: int | None = None
    gpu: str = ""
    on_gpu: int = 1


@dataclass(frozen=True)
class Request:
    """All that another process needs to train a run. log: the file for its output."""

    experiment: str
    variant: str
    overrides: tuple[str, ...]
    wish: Wish
    log: Path
    share: Share
    folder: str = field(default_factory=os.getcwd)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


def start(request: Request) -> BaseProcess:
    """Train in another process. It has its own session: Ctrl-C reaches only the sweep, which passes it on once."""
    with without_main(), holding_signals():
        started = context().Process(target=work, args=(request,))
        started.start()
    return started


def context() -> ForkServerContext | SpawnContext:
    """The way to start processes here."""
    if not (sys.platform.startswith("linux") and process.Owner.owned):
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["core.sweeps.warm"])
    return found


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide the main module, because multiprocessing would run the user's script again in each process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def holding_signals() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM. Processes started here inherit this.

    Ctrl-C and `timeout` signal all processes of a terminal. The process that runs are forked from must survive that,
    because without it the sweep does not learn how the runs end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # because it lets the signals through when it starts
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def work(request: Request) -> None:
    """Train the run in this process and end the process, with the exit codes of the command `train`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    end_with_parent()
    if hasattr(os, "setsid"):
        os.setsid()
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    if request.share.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = request.share.gpu
    with request.log.open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        warnings.showwarning = lambda message, *_, **__: tell(log, f"warning: {message}")
        ended = train(request, log)
    if ended:
        hide_home_in(request.log)  # here, because a killed sweep cannot do it
        sys.exit(ended)


def train(request: Request, log: TextIO) -> int:
    """Train the run. Returns an exit code."""
    try:
        with process.owned(), process.ending_on_signals():
            if request.share.threads is not None:
                process.set_threads(request.share.threads)
            process.Owner.runs_on_gpu = request.share.on_gpu
            opened = open_folder(request.experiment, request.variant, request.overrides, Lines(log))
            loop.train(opened, request.wish)
    except (Exception, KeyboardInterrupt) as error:
        ended = exit_of(error)
        if ended is None:
            raise
        tell(log, ended.message)
        return ended.code
    return 0


class Lines(Silent):
    """A listener that writes lines to a file."""

    def __init__(self, log: TextIO) -> None:
        self.log = log

    def say(self, text: str) -> None:
        tell(self.log, text)


def tell(log: TextIO, text: Any) -> None:
    """Write one line at once."""
    log.write(f"{text}\n")
    log.flush()


def end_with_parent() -> None:
    """Stop this process, as SIGTERM does, when the process that started it ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
