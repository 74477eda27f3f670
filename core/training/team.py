"""The processes that train one run together, as torchrun starts them.

Process 0 is the main one: it does everything that a single process does, and the others help with its steps.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
import torch.distributed as dist

from core.process import launch
from core.training.link import LEFT, Answer, Link, Lost, reason
from core.training.messages import HEAD, Arrays, Values, packed, unpacked

JOINING = 600.0  # seconds until all processes are there: on another host, the first import may be slow
MEETING = 0.05  # seconds between two looks whether they are
NAME = "terrarium/team"  # a key of the store: the team's name
# Of one operation. A process may wait for hours while the main one prepares data or evaluates, so signs of life decide.
LONGEST = datetime.timedelta(days=7)
# torch 2.13 has renamed them.
ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


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
            raise self.link.verdict(error) from error
        if on_device:
            self.link.on_device = True
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
        """All processes' pieces, vectors of one size, one after the other."""
        if self.link is None:
            return piece
        found = torch.empty(self.world * len(piece), dtype=piece.dtype, device=piece.device)
        self.gather_into(found, piece)
        return found

    def gather_into(self, found: torch.Tensor, piece: torch.Tensor) -> None:
        """`gather` into a vector that is there."""
        self.wait(lambda: ALL_GATHER(found, piece, async_op=True), on_device=piece.is_cuda)

    def sum_piece(self, found: torch.Tensor, vector: torch.Tensor) -> None:
        """Piece number `rank` of the sum of all processes' vectors, into `found`."""
        self.wait(lambda: REDUCE_SCATTER(found, vector, async_op=True), on_device=vector.is_cuda)

    def watch(self, function: Callable[[], Answer]) -> Answer:
        """Call what waits for the other processes inside torch, and look after them meanwhile."""
        return function() if self.link is None else self.link.watch(function)

    def mesh(self, device: torch.device) -> Any:
        """The processes as torch's DTensor knows them: a mesh of one dimension."""
        from torch.distributed.device_mesh import DeviceMesh

        assert dist.group.WORLD is not None
        return DeviceMesh.from_group(dist.group.WORLD, device.type)

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


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team of the processes that torchrun has started; ALONE without torchrun.

    Raises Lost if not all come, or if they do not reach each other.
    """
    here = launch()
    if here.world == 1:
        yield ALONE
        return
    from torch.distributed.rendezvous import rendezvous  # takes time that a process alone need not spend

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with reaching(here.world):
        link = met(next(rendezvous("env://"))[0], here.rank, here.world)
    link.beating.start()
    try:
        with reaching(here.world):
            link.watch(lambda: dist.init_process_group(backend, store=link.store, rank=here.rank, world_size=here.world, timeout=LONGEST))  # fmt: skip
        yield Team(here.rank, here.world, here.local, link)
    finally:
        link.close()


@contextlib.contextmanager
def reaching(world: int) -> Iterator[None]:
    """Raise Lost in place of torch's errors about connections."""
    try:
        yield
    except dist.DistNetworkError as error:  # the store is out of reach
        place = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise Lost(f"{world} processes cannot meet at {place} ({reason(error)}): see that all of them still run, and that this machine reaches that one") from error  # fmt: skip
    except RuntimeError as error:
        raise Lost(
            f"{world} processes do not reach each other from {socket.gethostname()} ({reason(error)}): let their machines connect "
            "on all ports, or name the network between them in GLOO_SOCKET_IFNAME"
        ) from error


def met(store: Any, rank: int, world: int) -> Link:
    """Wait until all processes are there. Returns this one's connection to the others. Raises Lost.

    store: of what has started the processes. After a restart it still has what earlier processes wrote, and torchrun counts restarts on
    each machine by itself. So the main process draws a name for the team, and says it until all are there. A name that is
    not said again is an earlier one.
    """
    end, name = time.monotonic() + JOINING, "" if rank else uuid.uuid4().hex
    link: Link | None = None
    at_first = said(store)
    for count in itertools.count():
        if link is not None and link.store.check([link.key(each) for each in range(world)]):
            return link
        if time.monotonic() > end:
            break
        if not rank:
            store.set(NAME, f"{name} {count}")
        elif not name and (now := said(store)) != at_first:
            name = now.partition(" ")[0]
        if name and link is None:
            link = Link(dist.PrefixStore(name, store), rank, world)  # type: ignore[attr-defined]
        time.sleep(MEETING if count else 0)
    raise Lost(
        f"not all of {world} processes were there after {JOINING / 60:g} minutes: start the same command on each machine"
    )


def said(store: Any) -> str:
    """What the main process has said last; "" if it has said nothing."""
    return str(store.get(NAME).decode()) if store.check([NAME]) else ""


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
