"""Write checkpoints in a second thread, from a copy of the state, while training goes on."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

MOST_WAITING = 2  # copies of the state in memory: `best` and `last` of one step


class Saved(NamedTuple):
    """A checkpoint on disk: its step, its folder, and the seconds it took to write."""

    step: int
    path: Path
    seconds: float


class Saver:
    """Writes one checkpoint after another. An error while writing is raised by the next call of any method."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.thread = thread
        self.waiting: deque[Future[Saved]] = deque()

    def make_room(self) -> list[Saved]:
        """Wait until there is room for one more copy of the state. Returns what was written meanwhile."""
        done = self.poll()
        while len(self.waiting) >= MOST_WAITING:
            done.append(self.waiting.popleft().result())
        return done

    def start(self, step: int, write: Callable[[], Path]) -> None:
        """Queue a checkpoint for writing."""
        self.waiting.append(self.thread.submit(timed, step, write))

    def at_once(self, step: int, write: Callable[[], Path]) -> None:
        """Write a checkpoint now, in this thread."""
        done: Future[Saved] = Future()
        done.set_result(timed(step, write))
        self.waiting.append(done)

    def poll(self) -> list[Saved]:
        """Return what was written since the last call."""
        done = []
        while self.waiting and self.waiting[0].done():
            done.append(self.waiting.popleft().result())
        return done

    def finish(self) -> list[Saved]:
        """Wait until everything is written, and return it."""
        return [self.waiting.popleft().result() for _ in range(len(self.waiting))]


def timed(step: int, write: Callable[[], Path]) -> Saved:
    """Write a checkpoint and time it."""
    began = time.perf_counter()
    path = write()
    return Saved(step, path, time.perf_counter() - began)


@contextlib.contextmanager
def saving_thread() -> Iterator[Saver]:
    """A Saver. When the context ends, everything queued is written, even if training failed."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="save") as thread:
        thread.submit(int).result()  # start the thread now: it could not start once training has filled the memory
        yield Saver(thread)
