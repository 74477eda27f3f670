"""Train the runs of a sweep, and encode documents, as tasks of Ray.

A task holds nothing: runs are in their folders, and documents are sent again. So what a lost worker or machine has begun is
begun anew, and a run goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from core.cluster import task
from core.cluster.ray_session import Session, last_line
from core.encoders.base import Encoder
from core.errors import RunFailed

if TYPE_CHECKING:
    from core.lab.opened import Opened
    from core.sweeps.processes import Request, Share

Item = TypeVar("Item")
Result = TypeVar("Result")
POLL = 0.05  # seconds
AHEAD = 2  # groups of documents that are under way for each worker: one is encoded, one waits
MOST_LOSSES = 20  # of one group of documents


@contextlib.contextmanager
def open_ray(opened: Opened, jobs: int | None, address: str) -> Iterator[RayCluster]:
    """A cluster of Ray. address: of one that is there, else that of RAY_ADDRESS; without one, this machine's is started and stopped."""
    from core.training.measured import cores

    with Session(address or os.environ.get("RAY_ADDRESS", ""), jobs or cores()) as session:
        yield RayCluster(opened, session, jobs)


class RayCluster:
    """A launcher, see `core.sweeps.launching`. shares: one for each run at a time. Each run asks Ray for cpus and gpus."""

    is_here = False

    def __init__(self, opened: Opened, session: Session, jobs: int | None) -> None:
        self.opened, self.session, self.ray = opened, session, session.ray
        cpus, most, gpus = session.resources()
        self.lost = (
            self.ray.exceptions.WorkerCrashedError,
            self.ray.exceptions.LocalRayletDiedError,
            self.ray.exceptions.NodeDiedError,
            self.ray.exceptions.OutOfMemoryError,
            self.ray.exceptions.ObjectLostError,
            self.ray.exceptions.RaySystemError,
            self.ray.exceptions.TaskUnschedulableError,
        )
        if not session.is_own:
            session.check_machines((str(opened.experiment.folder), str(Path.cwd())))
        if opened.config.train.runtime.device == "cpu":
            gpus = 0
        self.workers = jobs or max(1, cpus)
        self.jobs = jobs or max(1, gpus or cpus)
        self.threads = max(1, min(self.threads_here() if session.is_own else cpus // self.jobs, most))
        self.cpus = 1 if session.is_own else self.threads
        self.gpus = min(1.0, math.floor(1e4 * gpus / self.jobs) / 1e4) if gpus else 0
        self.on_gpu = math.ceil(self.jobs / gpus) if gpus else 1

    def threads_here(self) -> int:
        """Threads of a run on this machine, as without Ray."""
        from core.training.measured import cores

        return cores() // self.jobs

    @property
    def shares(self) -> list[Share]:
        from core.sweeps.processes import Share

        return [Share(self.threads if self.jobs > 1 else None, "", self.on_gpu)] * self.jobs

    def start(self, request: Request) -> RayWork:
        """Hand a run to Ray. Its worker trains nothing else: what a library leaves in a process would stay."""
        stop = request.log.with_suffix(".stop")
        for old in (stop, request.log):
            old.unlink(missing_ok=True)
        function = self.ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(task.train)
        sent = task.sent(request)
        ref = self.submitted(lambda: function.remote(sent, stop))
        return RayWork(self, ref, self.session.number, request.log, stop)

    def submitted(self, submit: Callable[[], Any]) -> Any:
        """Hand a task to Ray; once more on a new connection if the old one is dead."""
        try:
            return submit()
        except self.lost:
            self.session.again()
            return submit()

    def exit_code(self, work: RayWork) -> int | None:
        """None while a run trains."""
        from core.sweeps.launching import GONE

        if work.session != self.session.number:
            return GONE
        try:
            if not self.ray.wait([work.ref], timeout=0)[0]:
                return None
            return int(self.ray.get(work.ref))
        except self.ray.exceptions.LocalRayletDiedError:
            self.session.again()
            return GONE
        except self.lost:
            return GONE
        except self.ray.exceptions.TaskCancelledError:
            return 128 + signal.SIGTERM
        except self.ray.exceptions.RayTaskError as error:
            work.log.write_text(f"failed: the task could not train: {last_line(str(error))}\n", encoding="utf-8")
            return 1

    def coding(
        self, encoder: Encoder, work: Callable[[Encoder, Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result]]:
        """A `core.data.encode.Coding` by workers. At most AHEAD groups for each of them are in memory."""
        self.encoding = task.encoding_of(encoder, self.opened.experiment.folder)
        self.stored: tuple[int, Any] = (0, None)
        source, waiting = iter(items), deque[Sent]()
        more = True
        while more or waiting:
            while more and len(waiting) < AHEAD * self.workers:
                item = next(source, None)
                more = item is not None
                if item is not None:
                    waiting.append(self.send(work, item))
            if waiting:
                first = waiting.popleft()
                try:
                    if first.session != self.session.number:
                        waiting.appendleft(self.send(work, first.item))
                        continue
                    result, mistake = self.ray.get(first.ref)
                except self.lost as error:
                    if first.losses >= MOST_LOSSES:
                        raise RunFailed(
                            f"{MOST_LOSSES + 1} workers were lost with the same documents; the dataset is unchanged.\n"
                            "  Perhaps their memory is too small: give fewer jobs."
                        ) from None
                    if isinstance(error, self.ray.exceptions.LocalRayletDiedError):
                        self.session.again()
                    waiting.appendleft(self.send(work, first.item, first.losses + 1))
                    continue
                if mistake is not None:
                    raise mistake
                yield first.item, result

    def send(self, work: Callable[[Encoder, Item], Result], item: Item, losses: int = 0) -> Sent:
        """Hand a group of documents to a worker."""

        def submit() -> Any:
            if self.stored[0] != self.session.number:
                self.stored = self.session.number, self.ray.put(self.encoding)
            function = self.ray.remote(num_cpus=1, max_retries=0)(encode)
            return function.remote(self.encoding.key, [self.stored[1]], work, item)

        return Sent(item, self.submitted(submit), self.session.number, losses)


@dataclass(frozen=True)
class Sent:
    """A group of documents that a worker has. session: the connection that its result comes through."""

    item: Any
    ref: Any
    session: int
    losses: int


class RayWork:
    """A run that Ray has. It stops by a file beside its log, which any machine sees."""

    def __init__(self, cluster: RayCluster, ref: Any, session: int, log: Path, stop: Path) -> None:
        self.cluster, self.ref, self.session, self.log, self.stop = cluster, ref, session, log, stop
        self.code: int | None = None

    @property
    def exitcode(self) -> int | None:
        if self.code is None:
            self.code = self.cluster.exit_code(self)
            if self.code is not None:
                self.stop.unlink(missing_ok=True)
        return self.code

    def terminate(self) -> None:
        self.stop.touch()
        if not self.log.exists():  # it waits in line, perhaps for the work of others
            self.cluster.ray.cancel(self.ref)

    def join(self) -> None:
        while self.exitcode is None:
            time.sleep(POLL)


def encode(key: str, stored: list[Any], work: Callable[[Encoder, Any], Any], item: Any) -> Any:
    """`task.encode` in a worker, which fetches the encoder once."""
    import ray

    return task.encode(key, partial(ray.get, stored[0]), work, item)
