"""Where the runs of a sweep are trained: on this machine, or wherever a launcher of the hook register_launchers starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from core.data.encode import encode_here
from core.errors import UserError
from core.lab.opened import Opened
from core.sweeps import processes
from core.sweeps.processes import Request, Share
from core.training.measured import cores

HERE = "local"
GONE = 256  # in place of an exit code: the worker or the machine of a run is lost. The run itself did nothing wrong.
ANY_GPU = ("auto", "cuda")  # of train.runtime.device: any GPU will do


class Work(Protocol):
    """A run that was started; multiprocessing's processes are such."""

    @property
    def exitcode(self) -> int | None:
        """None while it trains; then the exit code of its process, or GONE."""

    def terminate(self) -> None:
        """Tell the run to save and end."""

    def join(self) -> None:
        """Wait until it has ended."""


class Launcher(Protocol):
    """Starts runs. shares: of the machine, one for each run that may train at a time. is_here: the runs are on this machine."""

    shares: list[Share]
    is_here: bool

    def start(self, request: Request) -> Work:
        """Start a run, or put it in line."""


class Local:
    """Starts runs as processes of this machine."""

    is_here = True
    coding = staticmethod(encode_here)

    def __init__(self, jobs: int) -> None:
        self.shares = divided(jobs, cores(), gpus() if jobs > 1 else [])

    def start(self, request: Request) -> BaseProcess:
        return processes.start(request)


@contextlib.contextmanager
def local(opened: Opened, jobs: int | None, address: str) -> Iterator[Local]:
    """Train on this machine."""
    refuse_address(HERE, address)
    yield Local(jobs or 1)


def opened_launcher(opened: Opened, on: str, jobs: int | None, address: str) -> AbstractContextManager[Any]:
    """The launcher of that name. jobs: runs at a time; None: the launcher's own choice. address: of a cluster; "" for none.

    Raises UserError for an unknown name, for less than one run, and as the launcher does.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"{jobs} runs at a time", place="jobs", remedy="Give 1 or more.")
    found: AbstractContextManager[Any] = opened.plugins.get("launchers", on or HERE, "on")(opened, jobs, address)
    return found


def refuse_address(name: str, address: str) -> None:
    """Raise UserError for an address where there is nothing to connect to."""
    if address:
        raise UserError(
            f'"{name}" has no address',
            place="address",
            remedy='Leave it out, or train on a cluster of Ray: `on="ray"`.',
        )


def divided(jobs: int, threads: int, gpus: list[str]) -> list[Share]:
    """What each of several runs may take of a machine. A single run may take all of it, and chooses its threads itself.

    gpus: the names of its GPUs, as in CUDA_VISIBLE_DEVICES. Each run gets one; those of one GPU divide its memory.
    """
    if jobs == 1:
        return [Share()]
    each = max(1, threads // jobs)
    if not gpus:
        return [Share(each)] * jobs
    runs = [len(range(number, jobs, len(gpus))) for number in range(len(gpus))]  # of each GPU
    return [Share(each, gpus[job % len(gpus)], runs[job % len(gpus)]) for job in range(jobs)]


def gpus() -> list[str]:
    """The GPUs that this process may use, as in CUDA_VISIBLE_DEVICES. CUDA itself is not started: it would take memory."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (visible or list(map(str, range(64))))[: torch.cuda.device_count()]
