"""Start bubblewrap for each program: no network, no home, a system that is only read, an empty /tmp, one process with limits.

sandbox = open_sandbox()
sandbox.run(["def add(a, b): return a + b", "assert add(1, 2) == 3"])    # -> "passed"
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.sandbox.calls import PROCESSORS, refusing

PASSED, WRONG, ERROR, TIME, MEMORY, LEFT = OUTCOMES = ("passed", "wrong", "error", "time", "memory", "left")
INSIDE = Path(__file__).with_name("inside.py")
LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
NOBODY = "65534"
MOST_SAID = 4096  # bytes that are read of what a sandbox says
OUT_OF_TIME = 128 + 24  # how bubblewrap ends after SIGXCPU
SET_UP = 60.0  # seconds that the first start may take


@dataclass(frozen=True)
class SandboxLimits:
    """cpu: seconds of computing. wall: seconds by the clock, for programs that wait. memory, disk: bytes; disk of /tmp in all."""

    cpu: int = 5
    wall: float = 20.0
    memory: int = 512 << 20
    disk: int = 16 << 20
    open_files: int = 64


def open_sandbox(limits: SandboxLimits = SandboxLimits()) -> Sandbox:
    """A sandbox that works: an empty program has passed in it. Raises UserError if there is none here. Nothing is run then."""
    place = "`run_code=True`"
    program, processor = shutil.which("bwrap"), PROCESSORS.get(platform.machine())
    if not sys.platform.startswith("linux") or processor is None:
        raise UserError(
            f"programs can be run on Linux with {' or '.join(PROCESSORS)} only; this is {platform.system()} with {platform.machine()}",
            place=place,
            remedy="Use another machine: there is no other sandbox, and nothing is run without one.",
        )
    if program is None:
        raise UserError(
            "the program bwrap is not installed, and nothing is run without it",
            place=place,
            remedy="Install bubblewrap 0.8 or later, such as with `apt install bubblewrap` or `dnf install bubblewrap`.",
        )
    sandbox = Sandbox(program, refusing(processor), limits)
    ended = sandbox.start(["pass"], SET_UP)
    if ended.outcome != PASSED:
        said = " ".join(ended.said.split())[-300:] or f"exit code {ended.code}"
        raise UserError(
            f"bubblewrap does not work here, and nothing is run without it: {said}",
            place=place,
            remedy="It needs version 0.8 and user namespaces, which some systems and most containers forbid; "
            "docs/how-to/suites.md, Programs that the model writes.",
        )
    return sandbox


@dataclass(frozen=True)
class EndedProgram:
    """outcome: of OUTCOMES. said: what came out of the sandbox. code: bubblewrap's exit code."""

    outcome: str
    said: str
    code: int


class Sandbox:
    """Runs programs, each in a bubblewrap of its own. Get one by `open_sandbox`."""

    def __init__(self, program: str, refused: bytes, limits: SandboxLimits) -> None:
        """program: bwrap's path. refused: the filter of calls."""
        self.refused, self.limits = refused, limits
        self.command = [program, *arguments(limits.disk)]
        self.running: set[subprocess.Popen[bytes]] = set()

    def run(self, parts: Sequence[str]) -> str:
        """Run the parts of a program one after the other in one module.

        passed: all ran to their end. wrong: AssertionError. error: another exception. time, memory: a limit was reached.
        left: the program ended without running to its end.
        """
        return self.start(parts, self.limits.wall).outcome

    def run_all(
        self,
        programs: Sequence[Sequence[str]],
        at_once: int,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> list[str]:
        """The outcomes of many programs, several at once. progress: told how many of how many have ended."""
        pool, waiting = ThreadPoolExecutor(at_once), list[Future[str]]()
        try:
            waiting.extend(pool.submit(self.run, parts) for parts in programs)
            for done, _ in enumerate(as_completed(waiting), 1):
                progress(done, len(programs))
            return [each.result() for each in waiting]
        finally:  # also when it is interrupted
            pool.shutdown(wait=False, cancel_futures=True)
            while open_ones := [each for each in waiting if not each.done()]:
                for process in list(self.running):
                    process.kill()
                wait(open_ones, timeout=0.1)

    def start(self, parts: Sequence[str], wall: float) -> EndedProgram:
        """Run a program, and say how it ended. wall: seconds until it is killed."""
        secret = secrets.token_hex(16).encode()
        request = json.dumps({"parts": list(parts), "limits": resource_limits(self.limits)}).encode()
        late = threading.Event()
        with self.process() as process:
            clock = threading.Timer(wall, end_late, (process, late))
            clock.start()
            try:
                assert process.stdin is not None and process.stdout is not None
                with contextlib.suppress(BrokenPipeError), process.stdin as requests:
                    requests.write(b"%010d%s%s" % (len(request), request, secret))
                said = process.stdout.read(MOST_SAID)
                if len(said) == MOST_SAID:  # it would go on
                    process.kill()
                code = process.wait()
            finally:
                clock.cancel()
                clock.join()
        return EndedProgram(
            outcome_of(said, secret, late.is_set() or code == OUT_OF_TIME), said.decode(errors="replace"), code
        )

    @contextlib.contextmanager
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        """A bubblewrap that is dead at the end of the context."""
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as file:
            file.write(self.refused)
            file.close()
            process = subprocess.Popen(
                [*self.command[:1], "--seccomp", str(reading), *self.command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,  # the program has no way to it
                pass_fds=[reading],
                start_new_session=True,  # Ctrl-C is not for it
            )
        self.running.add(process)
        try:
            yield process
        finally:
            process.kill()  # bubblewrap, and with it all that is inside
            process.wait()
            self.running.discard(process)
            assert process.stdout is not None
            process.stdout.close()


def end_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    """Kill a process, and say that it was too late."""
    late.set()
    process.kill()


def outcome_of(said: bytes, secret: bytes, late: bool) -> str:
    """What came out of a sandbox, in a word. Only the secret says that all parts ran to their end."""
    if said == secret:
        return PASSED
    if late:
        return TIME
    word = said.decode(errors="replace")
    return word if word in (WRONG, ERROR, MEMORY) else LEFT


def resource_limits(limits: SandboxLimits) -> dict[str, tuple[int, int]]:
    """Limits that the program gets, soft and hard. Processes are refused anyway."""
    return {
        "RLIMIT_CPU": (limits.cpu, limits.cpu + 1),
        "RLIMIT_AS": (limits.memory, limits.memory),
        "RLIMIT_FSIZE": (limits.disk, limits.disk),
        "RLIMIT_NOFILE": (limits.open_files, limits.open_files),
        "RLIMIT_CORE": (0, 0),
    }


def arguments(disk: int) -> list[str]:
    """The arguments of bwrap, up to the program inside: this Python without its packages."""
    python = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    known = [*LIBRARIES, *(str(Path(sys.base_prefix, name).resolve()) for name in ("lib", "lib64"))]
    folders = list(dict.fromkeys(known))
    return [
        *("--unshare-all", "--unshare-user", "--disable-userns"),  # disable: no other ones from inside
        *("--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session"),
        *("--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"),
        *("--setenv", "PYTHONHASHSEED", "0"),  # sets have one order
        *(part for folder in folders for part in as_here(Path(folder))),
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),  # where the loader finds libraries
        *("--ro-bind", str(python), str(python)),
        *(part for device in DEVICES for part in ("--dev-bind", device, device)),
        *("--size", str(disk), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"),
        *(str(python), "-s", "-S", "-B", "-W", "ignore", "-c", INSIDE.read_text(encoding="utf-8")),
    ]


def as_here(folder: Path) -> list[str]:
    """Arguments that make a folder of this system readable, or the link that it is; none if it is not there."""
    if folder.is_symlink():
        return ["--symlink", os.readlink(folder), str(folder)]  # noqa: PTH115  # a Path would change it
    return ["--ro-bind", str(folder), str(folder)] if folder.is_dir() else []
