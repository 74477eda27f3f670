"""Runs commands of Terrarium in processes that are cheap: forked from one that has everything imported.

As a program it reads requests from stdin, one JSON object a line, and answers each with one. A request: folder, the
current one; arguments of the command; and, for a signal that the process sends itself, at (the number of a call of a
Python function) and number; again: a second signal after so many more calls. An answer: code (an exit code, negative
for a signal), calls, output, and what was being done when the signal came. Plots are left out unless asked for.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any


class Forks:
    """The client's side of the process that forks."""

    def __init__(self) -> None:
        root = Path(__file__).parents[1]
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(
        self, folder: Path, *arguments: str, at: int = 0, number: int = 0, again: int = 0, plots: bool = False
    ) -> dict[str, Any]:
        """Run a command to its end. The answer has its output, too."""
        request = {
            "folder": str(folder),
            "arguments": arguments,
            "at": at,
            "number": number,
            "again": again,
            "plots": plots,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


class Watch:
    """Counts calls of Python functions, sends signals at some of them, and knows how far training is."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request, self.calls, self.step, self.steps, self.saves = request, 0, -1, 0, 0
        self.first = self.last = 0  # calls at the first and last step
        self.then: dict[str, Any] = {}

    def start(self) -> None:
        from core.lab import reporting
        from core.report import page, plots, run_report
        from core.training import progress, trainer

        whole_save, whole_rate = progress.copy, trainer.set_learning_rate

        def save(*arguments: Any) -> Any:
            self.saves += 1
            return whole_save(*arguments)

        def begin_step(optimizer: Any, config: Any, progress: Any, gone: Any) -> None:
            self.step, self.steps, self.last = progress.step, self.steps + 1, self.calls
            self.first = self.first or self.calls
            whole_rate(optimizer, config, progress, gone)

        progress.copy, trainer.set_learning_rate = save, begin_step
        if not self.request["plots"]:  # nine tenths of a tiny run
            plots.write_plots = reporting.write_plots = lambda *arguments: None
            reporting.look_for_report = run_report.write_pictures = lambda *arguments: None
            page.svg = lambda *arguments, **options: ""
            run_report.draw = lambda *arguments, **options: None
        sys.setprofile(self.look)

    def look(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        self.calls += 1
        if self.calls == self.request["at"]:
            handler = signal.getsignal(signal.SIGTERM)
            doing = []
            inner: FrameType | None = frame
            while inner is not None:
                doing.append(inner.f_code.co_name)
                inner = inner.f_back
            self.then = {"step": self.step, "steps": self.steps, "saves": self.saves, "doing": doing,
                         "noted": getattr(handler, "__name__", "") == "note"}  # fmt: skip
            os.kill(os.getpid(), self.request["number"])
        elif self.request["again"] and self.calls == self.request["at"] + self.request["again"]:
            os.kill(os.getpid(), self.request["number"])

    def report(self) -> dict[str, Any]:
        return {"calls": self.calls, "first": self.first, "last": self.last, "steps": self.steps, "saves": self.saves,
                "then": self.then}  # fmt: skip


def child(request: dict[str, Any], output: int, report: Path) -> int:
    """Run one command in this process; its exit code."""
    from core.cli.main import cli

    os.chdir(request["folder"])
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    watch = Watch(request)
    code = 1
    try:
        watch.start()
        cli(request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.setprofile(None)
        import traceback

        traceback.print_exc()
    sys.setprofile(None)
    report.write_text(json.dumps(watch.report()))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def warm_up() -> None:
    """Run a whole loop here, so that everything is imported that a command imports late."""
    from conftest import PREPARE, TINY

    from core.cli.main import cli

    with tempfile.TemporaryDirectory() as home, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(home) / "experiments" / "warm"
        folder.mkdir(parents=True)
        (folder / "prepare.py").write_text(PREPARE)
        (folder / "config.toml").write_text(TINY)
        os.chdir(home)
        with contextlib.suppress(SystemExit):
            cli(["loop", "warm"])
        os.chdir("/")


def serve() -> None:
    warm_up()
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            request, report, output = json.loads(line), Path(folder) / "report", Path(folder) / "output"
            report.unlink(missing_ok=True)
            with output.open("wb") as file:
                process = os.fork()
                if not process:
                    os._exit(child(request, file.fileno(), report))
                _, status = os.waitpid(process, 0)
            answer = json.loads(report.read_text()) if report.exists() else {"then": {}}
            answer |= {"code": os.waitstatus_to_exitcode(status), "output": output.read_text(errors="replace")}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
