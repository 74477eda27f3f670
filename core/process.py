"""State of the whole process: threads, determinism, the allocator, the memory limit, signal handlers.

Nothing else in core changes such state. The command line owns its process and sets all of it. With the Python API the
process belongs to the caller: threads, determinism and handlers are set during a computation and restored afterwards,
and the rest is not changed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from core import files
from core.errors import Interrupted, Stopped, UserError

# Options of glibc's mallopt (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
CGROUP = Path("/sys/fs/cgroup")  # version 2, as seen inside a container
CONTEXT = 600 << 20  # bytes, an estimate: libraries and kernels that a process loads onto its GPU
STOPPING = (signal.SIGINT, signal.SIGTERM)
IMPORTING, IMPORTS = 1.0, 5  # how long a signal waits for an import: at most seconds, at most times


class Owner:
    """Whether this process runs only one command of ours. runs_on_gpu: processes of ours that divide its GPU's memory."""

    owned = False
    runs_on_gpu = 1


class Program:
    """How this program was called: the first words of the commands in messages and records."""

    words: tuple[str, ...] = ("python", "-m", "core.cli")

    @classmethod
    def name(cls) -> str:
        return " ".join(cls.words)


class Launch(NamedTuple):
    """Which of the processes that were started for one command this is. local: its number on this machine.

    restarts: how often torchrun has started them again, after one has ended early or could not be started.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    restarts: int = 0


def launch() -> Launch:
    """What torchrun has written into the environment. A process that was started alone is the only one."""
    if "MASTER_ADDR" not in os.environ:
        return Launch()
    try:
        rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Launch(rank, world, local, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
    except (KeyError, ValueError):
        return Launch()


def refuse_shared(what: str) -> None:
    """Raise UserError where several processes were started for one command that does not share its work."""
    if (world := launch().world) > 1:
        raise UserError(
            f"{what} starts processes of its own, and torchrun has started {world} for one run",
            place="torchrun",
            remedy="Start it without torchrun.",
        )


def end_at_once(code: int) -> None:
    """When this process ends, it ends with this exit code and does not wait for threads of libraries."""

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    atexit.register(end)


@contextlib.contextmanager
def owned() -> Iterator[None]:
    """Mark the process as ours inside this context: `computing` may then also set what cannot be restored."""
    former, Owner.owned = Owner.owned, True
    allow_forks()
    try:
        yield
    finally:
        Owner.owned = former


def spin_briefly() -> None:
    """Make waiting threads spin for a moment, then sleep. Call this before torch is imported.

    OpenMP's default, to keep spinning, starves other processes. Sleeping at once halves the speed of small models
    (docs/LOG.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "6000")


def hide_frames() -> None:
    """Keep torch's C++ from printing its call stack where a connection to another process breaks: the error says what that means.

    Call this before torch is imported.
    """
    if launch().world > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


@functools.cache
def allow_forks() -> None:
    """Keep the library tokenizers quiet and working in forked processes.

    If unset, it prints a warning at every fork. "true" in a forked child would wait for threads that are not there.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
        os.register_at_fork(after_in_child=lambda: os.environ.update(TOKENIZERS_PARALLELISM="false"))


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, and unset them at the end unless the process is owned."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in () if Owner.owned else added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def computing(device: str) -> Iterator[None]:
    """Compute on a device ("cpu", "cuda", ...) inside this context, with bit-exact results on a CPU.

    Threads, determinism and random generators are restored at the end, unless the process is owned. In an owned process
    the allocator and the memory limit are set too.
    """
    import torch

    draws = torch.get_rng_state()
    cuda_draws = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device == "cpu":
        be_deterministic()
        if Owner.owned:
            keep_freed_memory()
            limit_memory()
    if Owner.owned:
        keep_compiled_code()
        if device == "cuda":
            share_gpu(Owner.runs_on_gpu)
    try:
        yield
    finally:
        if not Owner.owned:
            torch.set_num_threads(threads)
            torch._C._set_deterministic_algorithms(deterministic, warn_only=warn_only)
            if inductor := sys.modules.get("torch._inductor.config"):
                inductor.deterministic = deterministic  # type: ignore[attr-defined]  # use_deterministic_algorithms sets it
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            torch.set_rng_state(draws)
            if cuda_draws is not None:
                torch.cuda.set_rng_state_all(cuda_draws)
            elif torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.manual_seed_all(torch.initial_seed())  # as they would be, had we not used them


def share_gpu(runs: int) -> None:
    """Take at most one of `runs` equal parts of the GPU's memory, so that one run that needs more fails alone.

    CUDA itself takes CONTEXT bytes in each process, which torch does not count.
    """
    import torch

    if runs > 1:
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(max(1 / runs - CONTEXT / total, 0.5 / runs))


def set_threads(count: int) -> None:
    """Set the number of CPU threads until the end of `computing`."""
    import torch

    torch.set_num_threads(count)


def be_deterministic(*, compiling: bool = False) -> None:
    """Make torch use algorithms with bit-exact results.

    Call this before anything is compiled; without it, two compiled runs on two threads differ. torch would also fill new
    memory, which we turn off because it does not change results.
    """
    import torch

    if compiling:
        torch.use_deterministic_algorithms(True)
    else:  # the same without importing the compiler (0.8 s)
        torch._C._set_deterministic_algorithms(True, warn_only=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_compiled_code() -> None:
    """Keep what torch.compile and JAX make in our cache folder, unless the user's environment names another."""
    with contextlib.suppress(RuntimeError):  # a user without a home
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(files.cache_folder() / "compiled"))
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(files.cache_folder() / "jax"))


@functools.cache
def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next tensor instead of returning it to the system.

    Each step frees and allocates the same large blocks, and zeroing new pages takes a sixth to a third of a step
    (docs/LOG.md). Does nothing if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30):  # older versions allow 32 MB
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 << 20)


def available_bytes() -> int | None:
    """Memory and swap that this process can still allocate, within its container's limit. None if Linux does not say."""
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
    # Cached files count as used, but their memory is freed when it is needed.
    given_back = sum(int(kept.get(name, 0)) for name in ("inactive_file", "active_file", "slab_reclaimable"))
    return free if most == "max" else max(0, min(free, int(most) - int(used) + given_back))


def limit_memory() -> None:
    """Make oversized allocations raise, if the process is owned.

    Linux promises more memory than it has, and kills the process without a message when it runs out. The limit depends on
    what other processes use, so we update it from time to time.
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


class OpenedFiles:
    """The paths of files that were opened for reading, while anybody asks. Python cannot remove an audit hook again."""

    paths: set[str] | None = None
    hooked = False


@contextlib.contextmanager
def noting_opened_files() -> Iterator[set[str]]:
    """Note the path of each file that this process opens for reading inside this context, by Python or with its help."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if OpenedFiles.paths is None or event not in ("open", "sqlite3.connect") or not arguments:
            return
        path, mode, flags = (*arguments, None, None)[:3]
        writes = set(mode) & set("wax+") if isinstance(mode, str) else isinstance(flags, int) and flags & 3  # O_ACCMODE
        if isinstance(path, (str, bytes, os.PathLike)) and not writes:
            OpenedFiles.paths.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - resolving would open more

    if not OpenedFiles.hooked:
        sys.addaudithook(note)
        OpenedFiles.hooked = True
    former, OpenedFiles.paths = OpenedFiles.paths, set()
    try:
        yield OpenedFiles.paths
    finally:
        OpenedFiles.paths = former


@dataclass
class StopRequest:
    """Whether a signal has asked to stop. number: of the signal; 0 if none came."""

    number: int = 0


@contextlib.contextmanager
def noting_signals(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM in `request` inside this context instead of acting on them. Only works in the main thread.

    Only the first signal is noted. A second one ends an owned process at once; otherwise it has its usual effect.
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


@contextlib.contextmanager
def taking_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt inside this context, however often. Only works in the main thread."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


@contextlib.contextmanager
def noting_size(changed: Callable[[], None]) -> Iterator[None]:
    """Call a function inside this context when the terminal has another size. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGWINCH"):
        yield
        return
    former = signal.signal(signal.SIGWINCH, lambda number, frame: changed())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, former)


class Signalled(KeyboardInterrupt):
    """Like Ctrl-C. A plain KeyboardInterrupt inside an import would end Python, whatever exit code we set."""


def is_importing(frame: FrameType | None) -> bool:
    """Whether a package is being imported. An experiment's prepare.py does not count."""
    found = False
    while frame is not None and frame.f_code.co_name != "load_code":
        found = found or frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return found and frame is None


def answers_dropped_signal(frame: FrameType | None) -> bool:
    """Whether `dropped` below is running. An exception raised there would be dropped again."""
    while frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) != (__file__, "dropped"):
        frame = frame.f_back
    return frame is not None


class Waiting(threading.Thread):
    """Sends a signal again when the main thread can handle it. Raising inside torch's import may abort the process."""

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
    """Unwind the stack at the first SIGINT or SIGTERM, so that temporary files are removed, and raise Stopped.

    A second signal ends the process at once. Signals that are ignored or have another handler are left alone, and so are
    all signals outside the main thread.
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
        """Send the signal again. Python drops exceptions that are raised while it deletes an object or a generator."""
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
        if came:  # also if an import swallowed the interrupt, and a later import failed because of it
            raise Stopped(came[0]) from None
        raise
    finally:
        sys.unraisablehook = usual_hook
        for number in ours:
            signal.signal(number, usual[number])
