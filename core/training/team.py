"""The processes that train one run together, as torchrun starts them. Nothing else knows of torch.distributed.

Process 0 is the main one: it does everything that a single process does, and the others help with its steps. A process that
waits for another one looks every second whether that one still gives a sign of life, so no wait lasts for ever.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from core.process import end_at_once, launch

Values = dict[str, Any]  # as JSON holds them
Arrays = tuple[npt.NDArray[Any], ...]

JOINING = datetime.timedelta(minutes=10)  # until all processes are there: on another host, the first import may be slow
# Of one operation. A process may wait for hours while the main one prepares data or evaluates, so signs of life decide.
LONGEST = datetime.timedelta(days=7)
LOOK = datetime.timedelta(seconds=1)  # between two looks at the others
BEAT = 0.5  # seconds between two signs of life
PATIENCE = 30.0  # seconds, until the run says otherwise: train.runtime.team_timeout
GONE = 5 * BEAT  # without a sign of life after a broken connection: that process has ended
VERDICT = 3 * GONE  # seconds that a helper waits for the main process to say how it ended
HEAD, ROOM = 16, 4096  # bytes of a message: its two lengths; and what is sent at once at first
LEFT = b"left "  # what begins the last sign of life of the main process; its exit code follows


class Lost(Exception):
    """A process of the team has ended or does not answer. The message names it."""


class Dismissed(Exception):
    """The main process has ended its work. code: its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Link:
    """This process's connection to the others: waits for them, and gives and reads signs of life.

    A thread exchanges the signs, through the store of what has started the processes. patience: seconds without one.
    """

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.store, self.rank, self.world = store, rank, world
        self.patience, self.room, self.looked = PATIENCE, ROOM, time.monotonic()
        self.heard: dict[int, tuple[bytes, float]] = {}  # process -> its last sign of life, and when it was first seen
        self.waiting = False  # for an operation: still so at the end if another process left it open
        self.code = 1  # this process's exit code, unless the main one says otherwise
        self.ending = threading.Event()
        self.beating = threading.Thread(target=self.beat, name="signs of life", daemon=True)
        self.store.set(self.key(rank), "0")

    def key(self, rank: int) -> str:
        return f"alive/{rank}"

    def beat(self) -> None:
        """Exchange signs of life until the work ends, or what keeps them has ended."""
        others, count = [rank for rank in range(self.world) if rank != self.rank], 0
        with contextlib.suppress(RuntimeError):
            while not self.ending.is_set():
                signs = self.store.multi_get([self.key(rank) for rank in others])
                self.looked = time.monotonic()
                for rank, sign in zip(others, signs, strict=True):
                    if rank not in self.heard or self.heard[rank][0] != sign:
                        self.heard[rank] = sign, self.looked
                count += 1
                self.store.set(self.key(self.rank), str(count))
                self.ending.wait(BEAT)

    def refuse_lost(self, patience: float) -> None:
        """Raise Lost if a process has given no sign of life for so many seconds, and Dismissed if the main one has ended its work."""
        main = self.heard.get(0, (b"", 0.0))[0]
        if main.startswith(LEFT):
            self.code = int(main.removeprefix(LEFT))
            raise Dismissed(self.code)
        if time.monotonic() - self.looked > patience:
            raise Lost("what has started the processes has ended, or its machine is out of reach")
        seconds, rank = max((self.looked - since, rank) for rank, (_, since) in [*self.heard.items(), (self.rank, (b"", self.looked))])  # fmt: skip
        if seconds > patience:
            raise Lost(f"process {rank} of {self.world} has given no sign of life for {patience:g} s: it is stopped, or its machine is out of reach")  # fmt: skip

    def wait(self, work: dist.Work) -> None:
        """Wait for an operation of all processes. Raises Lost, and Dismissed if the main process has ended its work."""
        self.waiting = True
        while True:
            try:
                work.wait(LOOK)
            except RuntimeError as error:
                if work.is_completed() and "timed out" not in str(error).lower():
                    self.waiting = False
                    raise self.verdict() from error
                self.refuse_lost(self.patience)
            else:
                self.waiting = False
                return

    def verdict(self) -> Exception:
        """What a broken connection means: which process has ended. A helper gives the main one time to say so itself."""
        end = time.monotonic() + (VERDICT if self.rank else 2 * GONE)
        while time.monotonic() < end:
            try:
                self.refuse_lost(GONE)
            except Dismissed as dismissed:
                return dismissed
            except Lost:
                silent = [rank for rank, (_, since) in self.heard.items() if self.looked - since > GONE]
                if time.monotonic() - self.looked > GONE:
                    return Lost("what has started the processes has ended, or the process that did so")
                if not self.rank or 0 in silent:
                    return Lost(f"process {min(silent)} of {self.world} has ended")
            time.sleep(BEAT / 5)
        return Lost("the connection to another process is broken")

    def last_words(self, sign: bytes) -> None:
        """Give a last sign of life, in place of the thread."""
        self.ending.set()
        self.beating.join(2 * BEAT)
        if not self.beating.is_alive():
            with contextlib.suppress(RuntimeError):
                self.store.set(self.key(self.rank), sign)

    def close(self) -> None:
        """Stop giving signs of life, and close the connections."""
        self.ending.set()
        self.beating.join(2 * BEAT)
        if (
            self.waiting or self.beating.is_alive()
        ):  # torch would wait for the others until LONGEST, here and at the end of Python
            end_at_once(self.code)
        else:
            dist.destroy_process_group()


@dataclass(frozen=True)
class Team:
    """rank: the number of this process, 0 for the main one. world: how many there are. link: None for a process alone."""

    rank: int = 0
    world: int = 1
    local: int = 0  # number of this process on its machine, which is that of its GPU
    link: Link | None = field(default=None, repr=False, compare=False)

    def wait(self, start: Callable[[], dist.Work], *, on_device: bool = False) -> None:
        """Take part in an operation of all processes. on_device: of a GPU, which the host does not wait for."""
        if self.link is None:
            return
        try:
            work = start()
        except RuntimeError as error:  # the connection broke earlier
            raise self.link.verdict() from error
        if on_device:
            work.wait()
        else:
            self.link.wait(work)

    def sum(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the sum of all processes' ones. Every process gets the same bits."""
        self.wait(lambda: dist.all_reduce(tensor, async_op=True), on_device=tensor.is_cuda)

    def send(self, tensor: torch.Tensor) -> None:
        """Replace a contiguous tensor by the main process's one."""
        data = tensor.detach().view(-1).view(torch.uint8)
        self.wait(lambda: dist.broadcast(data, 0, async_op=True), on_device=tensor.is_cuda)

    def be_patient(self, seconds: float) -> None:
        """How long to wait for a sign of life of another process."""
        if self.link is not None:
            self.link.patience = seconds

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.sum(torch.zeros(1))

    def exchange(self, vector: torch.Tensor) -> torch.Tensor:
        """Each process's piece number `rank` of its own vector, (world, size / world). The size must be a multiple of world."""
        if self.link is None:
            return vector[None]
        found = torch.empty_like(vector)
        self.wait(lambda: dist.all_to_all_single(found, vector, async_op=True), on_device=vector.is_cuda)
        return found.view(self.world, -1)

    def gather(self, piece: torch.Tensor) -> torch.Tensor:
        """All processes' pieces, one after the other."""
        if self.link is None:
            return piece
        found = torch.empty(self.world, len(piece), dtype=piece.dtype, device=piece.device)
        self.wait(lambda: dist.all_gather(list(found), piece, async_op=True), on_device=piece.is_cuda)
        return found.view(-1)

    def broadcast(self, values: Values | None = None, arrays: Sequence[npt.NDArray[Any]] = ()) -> tuple[Values, Arrays]:
        """Send values and arrays from the main process to all. The others give nothing. Returns what was sent.

        A message that is no longer than the longest one before it takes one operation.
        """
        if self.link is None:
            return values or {}, tuple(arrays)
        buffer = torch.zeros(self.link.room, dtype=torch.uint8)
        if not self.rank:
            data = packed(values or {}, arrays)
            first = data[: len(buffer)]
            buffer[: len(first)] = torch.frombuffer(first, dtype=torch.uint8)
        self.send(buffer)
        size = int.from_bytes(buffer[: HEAD // 2].numpy().tobytes(), "little")
        if size > len(buffer):
            rest = torch.zeros(size - len(buffer), dtype=torch.uint8)
            if not self.rank:
                rest[:] = torch.frombuffer(data[len(buffer) :], dtype=torch.uint8)
            self.send(rest)
            self.link.room = size
            buffer = torch.cat([buffer, rest])
        return (values or {}, tuple(arrays)) if not self.rank else unpacked(buffer.numpy().tobytes()[:size])


ALONE = Team()


def packed(values: Values, arrays: Sequence[npt.NDArray[Any]]) -> bytearray:
    """A message: its length and that of its JSON, the JSON, the arrays."""
    shapes = [[array.dtype.str, array.shape] for array in arrays]
    head = json.dumps([values, shapes]).encode()
    body = b"".join([head, *(np.ascontiguousarray(array).tobytes() for array in arrays)])
    lengths = (HEAD + len(body)).to_bytes(HEAD // 2, "little") + len(head).to_bytes(HEAD // 2, "little")
    return bytearray(lengths + body)


def unpacked(data: bytes) -> tuple[Values, Arrays]:
    """Undo `packed`."""
    place = HEAD + int.from_bytes(data[HEAD // 2 : HEAD], "little")
    values, shapes = json.loads(data[HEAD:place])
    arrays = []
    for kind, shape in shapes:
        count = int(np.prod(shape))
        arrays.append(np.frombuffer(data, kind, count, place).reshape(shape).copy())
        place += arrays[-1].nbytes
    return values, tuple(arrays)


class Sessions:
    """How many teams this process has joined, one after the other. All processes count alike, so their keys differ."""

    count = 0


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team of the processes that torchrun has started; ALONE without torchrun.

    Raises Lost if not all come.
    """
    here = launch()
    if here.world == 1:
        yield ALONE
        return
    from torch.distributed.rendezvous import rendezvous  # takes time that a process alone need not spend

    Sessions.count += 1
    found, _, _ = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"terrarium/{attempt}/{Sessions.count}", found)  # type: ignore[attr-defined]
    link = Link(store, here.rank, here.world)
    try:
        store.wait([link.key(rank) for rank in range(here.world)], JOINING)
    except dist.DistError as error:
        raise Lost(f"not all of {here.world} processes were there after {JOINING}") from error
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.world, timeout=LONGEST)
    link.beating.start()
    try:
        yield Team(here.rank, here.world, here.local, link)
    finally:
        link.close()


def dismiss(team: Team, code: int, *, resting: bool) -> None:
    """Let the other processes end with this exit code. resting: they wait for a message; otherwise they may be in a step."""
    if team.link is None:
        return
    team.link.code = code
    if resting:
        with contextlib.suppress(Lost):
            team.broadcast({"leave": code})
    else:
        team.link.last_words(LEFT + str(code).encode())
