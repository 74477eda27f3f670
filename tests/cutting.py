"""What the tests of durability share: the operations of core.durable, logged, cut off or made to fail; and processes to kill.

`Forks` starts a process that has imported torch and trained once; each command then runs in a fork of it, in tens of
milliseconds instead of seconds, and can be ended at any operation or by SIGKILL at any instant.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import mmap
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from leaving import leave_after

from core import durable

ROOT = Path(__file__).parent.parent
OPERATIONS = (
    "open_new", "open_end", "write", "sync", "close", "sync_path", "rename", "unlink", "make_folder", "remove_folder",
)  # fmt: skip
CUT = 77  # exit code of a process that ended itself at an operation
Around = Callable[..., Any]
RESULTS = (
    "status", "steps", "tokens", "best_val_loss", "best_step", "final_train_loss", "final_val_loss", "bits_per_byte",
    "accuracy", "accuracy_by_group",
)  # fmt: skip
WALL_CLOCK = {"seconds", "tokens_per_second"}  # columns of metrics.csv that no two runs share


def outcome(run: Path, experiment: Path | None = None) -> dict[str, Any]:
    """Everything about a finished run that must not depend on whether it was interrupted. experiment: its folder."""
    from core.tracking.metrics import read_rows
    from core.training import checkpoints, ladder

    rows = [
        {key: value for key, value in row.items() if key not in WALL_CLOCK} for row in read_rows(run / "metrics.csv")
    ]
    summary = json.loads((run / "summary.json").read_bytes())
    log = re.sub(r" \S+ -->", "", ((experiment or run.parent.parent) / "EXPERIMENT_LOG.md").read_text())
    found: dict[str, Any] = {
        "log": re.findall("(?m)^## [0-9-]+ (.*)", log),
        "rows": rows,
        "summary": {key: summary[key] for key in RESULTS},
    }
    for name in ("last", "last.previous", "best"):
        folder = run / "checkpoints" / name
        state = checkpoints.read(folder).state
        found[name] = [(folder / part).read_bytes() for part in checkpoints.PARTS]
        found[f"{name} state"] = [state["step"], state["rng"], state["optimizer"], without_seconds(state["progress"])]
    parent = run / "checkpoints"
    kept = {step: checkpoints.read(parent / ladder.kept_name(step)) for step in ladder.kept_steps(parent)}
    found["kept"] = {step: (each.folder / checkpoints.PARTS[0]).read_bytes() for step, each in kept.items()}
    return found


def without_seconds(value: Any) -> Any:
    """Nested dicts without their measured times."""
    if not isinstance(value, dict):
        return value
    return {key: without_seconds(part) for key, part in value.items() if not key.endswith("seconds")}


def wrap(around: Around) -> None:
    """Have every operation of core.durable go through around(name, operation, *arguments)."""
    for name in OPERATIONS:
        setattr(durable, name, functools.partial(around, name, getattr(durable, name)))


@contextlib.contextmanager
def wrapped(around: Around) -> Iterator[None]:
    """`wrap` inside this context."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(durable, name, getattr(durable, name))  # to be put back
        wrap(around)
        yield


def cut_at(number: int, count: Callable[[], int]) -> None:
    """End this process, as a kill would, before operation `number`, from 0; a write is done by half before that.

    The state after an operation is that before the next one, as nothing but these operations changes the disk
    (test_everything_that_is_saved_goes_through_the_module).
    """

    def around(name: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        if count() == number:
            if name == "write":
                operation(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2])
            os._exit(CUT)
        return operation(*arguments)

    wrap(around)


def fill_at(number: int, needs_room: Sequence[str], count: Callable[[], int]) -> None:
    """Let operations of these names find the disk full from one of them on, from 0; a write is done by half before that."""

    def around(name: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        if name in needs_room and (done := count()) >= number:
            if name == "write" and done == number:
                operation(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return operation(*arguments)

    wrap(around)


@dataclass
class Job:
    """A process that runs a command. operations, saves: how many it has begun; saving: whether it is inside a save."""

    process: int
    shared: mmap.mmap
    forks: Forks

    def number(self, place: int) -> int:
        return int.from_bytes(self.shared[place * 8 : place * 8 + 8], "little")

    @property
    def operations(self) -> int:
        return self.number(0)

    @property
    def saving(self) -> bool:
        return bool(self.number(1))

    @property
    def saves(self) -> int:
        return self.number(2)

    def kill(self) -> None:
        """SIGKILL. Nothing happens if the process has ended."""
        os.kill(self.process, signal.SIGKILL)  # it is not reaped before wait() asks for it

    def wait(self) -> tuple[int, str]:
        """Exit code, negative for a signal, and what the process has printed."""
        self.forks.tell({"wait": self.process})
        status, printed = json.loads(self.forks.hear())
        return os.waitstatus_to_exitcode(status), printed


class Forks:
    """A warm process. A context manager."""

    def __init__(self, folder: Path) -> None:
        """folder: of the experiment that is trained once as a warm-up; what is shared with jobs lies beside it."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.shared_file = folder.parent.parent / "shared"
        self.shared_file.write_bytes(bytes(64))
        with self.shared_file.open("r+b") as file:
            self.shared = mmap.mmap(file.fileno(), 64)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(self.shared_file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder.parent.parent,
        )  # fmt: skip
        assert self.hear() == "ready\n"

    def tell(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def start(
        self,
        folder: Path,
        *arguments: str,
        cut: int = -1,
        only_saves: bool = False,
        audit: bool = False,
        full: int = -1,
        needs_room: Sequence[str] = ("write",),
    ) -> Job:
        """Run `terrarium ARGUMENTS` in a folder.

        cut: the operation, of those inside saves if only_saves, to end at. full: the operation, of those in needs_room,
        from which on they find no room on the disk. audit: print what changes files in the folder, but not through
        core.durable.
        """
        self.shared[:] = bytes(64)
        order = {"cut": cut, "only_saves": only_saves, "audit": audit, "full": full, "needs_room": needs_room}
        self.tell({"folder": str(folder), "arguments": arguments, **order})
        return Job(int(self.hear()), self.shared, self)

    def run(self, folder: Path, *arguments: str, **options: Any) -> tuple[int, str]:
        """`start`, and wait."""
        return self.start(folder, *arguments, **options).wait()

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.shared.close()


def serve(folder: Path, shared_file: Path) -> None:
    """The warm process: a line of JSON per order on stdin, an answer per line on stdout."""
    import core.lab.reporting
    from core.cli.main import cli

    # Curves and page are drawn when all is saved, from what is saved, and take longer than all else here together.
    core.lab.reporting.report_of_run = lambda folder: folder
    cli.main(["train", str(folder), "--quiet", "--run", "warm"], standalone_mode=False)
    print("ready", flush=True)
    with shared_file.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 64)
    for line in sys.stdin:
        order = json.loads(line)
        printed = shared_file.with_name("printed")
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(json.dumps([status, printed.read_text()]), flush=True)
        elif process := os.fork():
            print(process, flush=True)
        else:
            obey(order, shared, printed)


def obey(order: dict[str, Any], shared: mmap.mmap, printed: Path) -> None:
    """The forked process: run one command, and end."""
    from core.cli.main import cli
    from core.training import checkpoints

    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdin.close()

    def add(place: int, number: int = 1) -> int:
        """Change one of the shared numbers. Returns what it was."""
        before = int.from_bytes(shared[place * 8 : place * 8 + 8], "little")
        shared[place * 8 : place * 8 + 8] = (before + number).to_bytes(8, "little")
        return before

    whole = checkpoints.save

    def save(*arguments: Any) -> Path:
        add(1)
        add(2)
        try:
            return whole(*arguments)
        finally:
            add(1, -1)

    checkpoints.save = save  # type: ignore[assignment]
    if order["audit"]:
        audit(order["folder"])
    elif order["full"] >= 0:
        fill_at(order["full"], order["needs_room"], lambda: add(0))
    else:
        cut_at(order["cut"], lambda: add(0) if shared[8] or not order["only_saves"] else -2)
    os.chdir(order["folder"])
    leave_after(lambda: cli.main(order["arguments"]))


def audit(folder: str) -> None:
    """Print every change of a file in a folder that Python makes outside an operation of core.durable."""
    inside = [False]
    changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def around(name: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        inside[0] = True
        try:
            return operation(*arguments)
        finally:
            inside[0] = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        changing = event in changes or (event == "open" and (arguments[2] or 0) & writing)
        if changing and not inside[0] and str(arguments[0]).startswith(folder):
            print(f"AUDIT {event} {arguments[0]}", flush=True)

    wrap(around)
    sys.addaudithook(hook)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
