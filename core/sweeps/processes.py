"""Processes that train: arguments of `train` go in, something to poll and to stop comes out.

On Linux each is a fork of a process that has everything imported, elsewhere a fresh one: only there is a fork safe.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import core

PROGRAM = "core.cli.child"
FORKING = sys.platform.startswith("linux")


class Process(Protocol):
    """What a sweep needs of a running process."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self) -> int:
        """Wait for its exit code."""

    def terminate(self) -> None:
        """Send SIGTERM."""


class Server:
    """A process that forks one run at a time."""

    def __init__(self, threads: int | None) -> None:
        self.process = launch([], threads, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.answers = self.process.stdout.fileno()
        self.text = b""

    def start(self, arguments: Sequence[str], log: Path) -> Fork:
        """Ask for a run."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has been killed: the run will be seen to have ended
            self.process.stdin.write(json.dumps({"arguments": list(arguments), "log": str(log)}).encode() + b"\n")
            self.process.stdin.flush()
        return Fork(self)

    def answer(self, *, wait: bool) -> dict[str, int] | None:
        """The next answer; None if there is none yet. Raises EOFError when the process has ended."""
        os.set_blocking(self.answers, wait)
        while b"\n" not in self.text:
            try:
                read = os.read(self.answers, 4096)
            except BlockingIOError:
                return None
            if not read:
                raise EOFError
            self.text += read
        line, _, self.text = self.text.partition(b"\n")
        found: dict[str, int] = json.loads(line)
        return found

    def close(self) -> None:
        """Let the process end, now that it has nothing to do."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process.terminate()
        self.process.wait()


class Fork:
    """A run that a server has been asked for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pid: int | None = None
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.take(wait=False)

    def wait(self) -> int:
        code = self.take(wait=True)
        assert code is not None
        return code

    def take(self, *, wait: bool) -> int | None:
        """Take in answers."""
        try:
            while self.code is None and (answer := self.server.answer(wait=wait)):
                self.pid, self.code = answer.get("pid", self.pid), answer.get("code")
        except EOFError:
            ended = self.server.process.wait()
            begun = self.pid is not None
            self.code = 128 + signal.SIGTERM if ended == -signal.SIGTERM and not begun else ended or 1
        return self.code

    def terminate(self) -> None:
        """Send SIGTERM to the run; to the server, where it has not begun."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid or self.server.process.pid, signal.SIGTERM)


class Starter:
    """Starts runs. threads: of each, None for as many as it likes."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self.servers: list[Server] = []

    def start(self, arguments: Sequence[str], log: Path) -> Process:
        """Begin `train` with these arguments, in a session of its own: Ctrl-C reaches the sweep alone, which passes it on once."""
        if not FORKING:
            with log.open("wb") as output:
                return launch(arguments, self.threads, stdin=subprocess.DEVNULL, stdout=output.fileno(), stderr=output.fileno())  # fmt: skip
        server = self.servers.pop() if self.servers else Server(self.threads)
        return server.start(arguments, log)

    def give_back(self, process: Process) -> None:
        """A process has ended: its server is free for the next."""
        if isinstance(process, Fork):
            if process.server.process.poll() is None:
                self.servers.append(process.server)
            else:
                process.server.close()

    def close(self) -> None:
        """End the servers that are free."""
        while self.servers:
            self.servers.pop().close()


def launch(
    arguments: Sequence[str], threads: int | None, *, stdin: int, stdout: int, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Start core.cli.child with the core that this process has, in a session of its own."""
    environment = dict(os.environ)
    root = str(Path(core.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, "-m", PROGRAM, str(os.getpid()), *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True)
