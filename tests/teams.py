"""Several processes that share a command, as torchrun starts them: forks of a warm process, which cost no imports.

As a program it reads orders from stdin, one JSON object a line: folder, environment, arguments of the command and the file for its
output. It answers with the number of the process that obeys. All processes are ended when the client ends.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from leaving import leave_after

ROOT = Path(__file__).parent.parent
LONGEST = 120.0  # seconds of a command


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@dataclass
class Ranks:
    """Processes that share a command, in the order of their ranks. output: of each, a file."""

    processes: list[int]
    outputs: list[Path]
    warm: Warm

    def signal(self, rank: int, number: int) -> None:
        os.kill(self.processes[rank], number)  # it is not reaped before wait() asks for it

    def wait(self) -> list[tuple[int, str]]:
        """Exit code, negative for a signal, and output of each. Those that have not ended in time are killed."""
        end = time.monotonic() + LONGEST
        codes = [self.warm.ask({"wait": process, "seconds": end - time.monotonic()}) for process in self.processes]
        return [(code, output.read_text()) for code, output in zip(codes, self.outputs, strict=True)]


class Warm:
    """The warm process. A context manager."""

    def __init__(self, folder: Path, imports: Sequence[str] = ()) -> None:
        """folder: for outputs. imports: modules that it imports for all its processes."""
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, *imports], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},  # as hide_frames() does
        )  # fmt: skip
        self.started: list[int] = []

    def ask(self, order: dict[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, lab: Path, world: int, *arguments: str, ranks: list[int] | None = None) -> Ranks:
        """Run `terrarium ARGUMENTS` in a folder with several processes, or a function of rank_calls.py: `call NAME ARGUMENTS`.

        ranks: which of them are really started.
        """
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
        processes, outputs = [], []
        for rank in ranks or range(world):
            self.count += 1
            outputs.append(self.folder / f"output-{self.count}")
            own = {} if world == 1 else shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            order = {"folder": str(lab), "environment": own, "arguments": arguments, "output": str(outputs[-1])}
            processes.append(self.ask(order))
        return Ranks(processes, outputs, self)

    def run(self, lab: Path, world: int, *arguments: str) -> list[tuple[int, str]]:
        """`start`, and wait."""
        return self.start(lab, world, *arguments).wait()

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve() -> None:
    """The warm process."""
    from core.cli.main import cli
    from core.lab import loop

    for module in sys.argv[1:]:
        importlib.import_module(module)
    loop.report_of_run = lambda folder: folder  # it takes longer than all else here
    alive: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            print(json.dumps(waited(order["wait"], order["seconds"])), flush=True)
            alive.discard(order["wait"])
        elif process := os.fork():
            alive.add(process)
            print(process, flush=True)
        else:
            obey(order, cli)
    for process in alive:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def waited(process: int, seconds: float) -> int:
    """The exit code of a process, which is killed if it has not ended in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -99


def obey(order: dict[str, Any], cli: Any) -> None:
    """The forked process: run one command, and end."""
    descriptor = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdin.close()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    first, *others = order["arguments"]
    if first == "call":
        import rank_calls

        leave_after(lambda: getattr(rank_calls, others[0])(*others[1:]))
    leave_after(lambda: cli.main(order["arguments"]))


if __name__ == "__main__":
    serve()
