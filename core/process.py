"""State that belongs to the whole process: threads, determinism, the allocator, the memory limit, signal handlers.

Nothing else in core changes such state. The command line owns its process and sets all of it. Under the Python API the
process is the caller's: threads, determinism and handlers are set while something is computed and put back afterwards,
and the rest is left alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from core.errors import Interrupted, Stopped

# Options of glibc's mallopt (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
CGROUP = Path("/sys/fs/cgroup")  # version 2, as a container sees its own
STOPPING = (signal.SIGINT, signal.SIGTERM)
IMPORTING, IMPORTS = 1.0, 5  # a signal waits for an import: at most so many seconds, so many times


class Owner:
    """Whether this process runs one command and nothing else."""

    owned = False


@contextlib.contextmanager
def owned() -> Iterator[None]:
    """The process runs a command of ours inside this context: `computing` may also set what cannot be put back."""
    former, Owner.owned = Owner.owned, True
    try:
        yield
    finally:
        Owner.owned = former


def spin_briefly() -> None:
    """Let a thread that waits for another spin for a moment, then sleep. Call this before torch is imported.

    OpenMP's default, spinning on, starves others on the machine. Sleeping at once halves the speed of small models
    (docs/LOG.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "6000")


@contextlib.contextmanager
def computing(device: str) -> Iterator[None]:
    """Compute on a device ("cpu", "cuda", ...) inside this context, with the same bits each time.

    Threads, determinism and random numbers are put back at the end, unless the process is owned: then the allocator and
    the memory limit are set, too.
    """
    import torch

    draws = torch.get_rng_state()
    cuda_draws = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device == "cpu":
        be_deterministic()
        if Owner.owned:
            keep_freed_memory()
            limit_memory()
    try:
        yield
    finally:
        if not Owner.owned:
            torch.set_num_threads(threads)
            torch._C._set_deterministic_algorithms(deterministic, warn_only=False)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            torch.set_rng_state(draws)
            if cuda_draws:
                torch.cuda.set_rng_state_all(cuda_draws)


def set_threads(count: int) -> None:
    """Compute with so many CPU threads from here on, up to the end of `computing`."""
    import torch

    torch.set_num_threads(count)


def be_deterministic(*, compiling: bool = False) -> None:
    """Have torch use algorithms that give the same bits each time.

    It must be set before anything is compiled: two compiled runs on two threads differ without it. Filling new memory,
    which torch would do besides, changes no result and is left out.
    """
    import torch

    if compiling:
        torch.use_deterministic_algorithms(True)
    else:  # the same for what is not compiled, without importing the compiler (0.8 s)
        torch._C._set_deterministic_algorithms(True, warn_only=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next tensor instead of giving it back to the system.

    A step frees and takes the same large blocks again, and new pages must be zeroed each time: a sixth to a third of a
    step (docs/LOG.md). Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30):  # older versions allow 32 MB
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 << 20)


def available_bytes() -> int | None:
    """Memory and swap that this process may still take, within its container's limit. None where Linux does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    free = 1024 * (kilobytes.get("MemAvailable", 0) + kilobytes.get("SwapFree", 0))
    try:
        most, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    # Files that were read stay in memory for as long as nobody needs it.
    given_back = sum(int(kept.get(name, 0)) for name in ("inactive_file", "active_file", "slab_reclaimable"))
    return free if most == "max" else max(0, min(free, int(most) - int(used) + given_back))


def limit_memory() -> None:
    """Make oversized allocations raise, if the process is owned.

    Linux promises more memory than it has. When that is touched it kills the process without a message. The limit follows
    what other processes use, so it is set again now and then.
    """
    available = available_bytes()
    if not Owner.owned or sys.platform != "linux" or available is None:
        return
    import resource

    fields = (line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    taken = next((1024 * int(field[1]) for field in fields), 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = taken + available
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


@dataclass
class StopRequest:
    """number: of the signal that came, 0 while none has."""

    number: int = 0


@contextlib.contextmanager
def noting_signals(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM in `request` inside this context instead of acting on them. Does nothing outside the main thread.

    Only the first one is noted. A second one ends an owned process at once, and has its usual effect in another's.
    """
    request = StopRequest() if request is None else request
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        for either in STOPPING:
            signal.signal(either, signal.SIG_DFL if Owner.owned else former[either])

    former = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class Signalled(KeyboardInterrupt):
    """Like Ctrl-C. A plain KeyboardInterrupt inside an import would make Python die of it, whatever the exit code."""


def is_importing(frame: FrameType | None) -> bool:
    """Whether packages are being imported. An experiment's prepare.py does not count."""
    found = False
    while frame is not None and frame.f_code.co_name != "load_code":
        found = found or frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return found and frame is None


def answers_dropped_signal(frame: FrameType | None) -> bool:
    """Whether `dropped` below is running, where an exception would be dropped again."""
    while frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) != (__file__, "dropped"):
        frame = frame.f_back
    return frame is not None


class Waiting(threading.Thread):
    """Sends this process a signal again when its main thread can take it: raising inside torch's import may abort it."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.number, self.sent = number, False

    def run(self) -> None:
        main, patience = threading.main_thread().ident or 0, time.monotonic() + IMPORTING
        while time.monotonic() < patience:
            frame = sys._current_frames().get(main)
            if not (is_importing(frame) or answers_dropped_signal(frame)):
                break
            time.sleep(0.002)
        self.sent = True
        os.kill(os.getpid(), self.number)


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM unwind the stack, so that temporary files go. A second one ends the process at once.

    Raises Stopped then. A signal that is ignored or has another handler, and one outside the main thread, stays as it is.
    """
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    in_main = threading.current_thread() is threading.main_thread()
    ours = [number for number, handler in usual.items() if in_main and signal.getsignal(number) == handler]
    came: list[int] = []
    waiting: list[Waiting] = []

    def send_later(number: int) -> None:
        waiting.append(Waiting(number))
        waiting[-1].start()

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        second = bool(waiting) and not waiting[-1].sent
        if not second and is_importing(frame) and len(waiting) < IMPORTS:
            send_later(number)
            return
        for either in ours:
            signal.signal(either, signal.SIG_DFL)
        if second:
            os.kill(os.getpid(), number)
        raise Signalled

    def dropped(unraisable: Any) -> None:
        """Python drops what is raised while an object or a generator is thrown away: the signal is sent once more."""
        if not isinstance(unraisable.exc_value, Signalled):
            usual_hook(unraisable)
            return
        for number in ours:
            signal.signal(number, end)
        send_later(came[-1])

    for number in ours:
        signal.signal(number, end)
    usual_hook, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
    except Interrupted:
        raise
    except (Exception, KeyboardInterrupt):
        if came:  # also where an import has swallowed the interrupt and another one fails on its ruins
            raise Stopped(came[0]) from None
        raise
    finally:
        sys.unraisablehook = usual_hook
        for number in ours:
            signal.signal(number, usual[number])
