"""The tools of a prepare.py, which run in a process of their own: they may raise, hang, or eat memory, and the answer goes on.

What is not contained: what a tool does to files, to the network, and by processes that it starts in a session of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO

from core.chat.calculator import ERROR
from core.chat.tools import Tools

SECONDS = 5.0  # for a call
LOADING = 60.0  # seconds for the import of prepare.py
MEMORY = 1 << 30  # bytes beyond those that the import takes


def own_tools(folder: Path, names: Iterable[str], seconds: float = SECONDS, memory: int = MEMORY) -> Tools:
    """The tools of these names in an experiment's prepare.py. None of them raises: an error is text.

    seconds: a call that takes longer is ended. memory: bytes that a tool may use.
    """
    process = ToolProcess(folder, seconds, memory)
    return MappingProxyType({name: partial(process.call, name) for name in names})


class ToolProcess:
    """A process for the tools of one experiment. It starts at the first call, and again at the next one after it was ended."""

    def __init__(self, folder: Path, seconds: float, memory: int) -> None:
        self.folder, self.seconds, self.memory = folder, seconds, memory
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.lines: queue.Queue[bytes] = queue.Queue()

    def call(self, name: str, argument: str) -> str:
        """What a tool gives, or an error as text."""
        with self.lock:
            if self.process is None and (error := self.start()):
                return error
            found = self.ask({"name": name, "argument": argument})
        return found["text"]

    def start(self) -> str:
        """Start the process. Returns an error, or ""."""
        # With the same search path: what prepare.py has imported here, it finds there.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from core.chat.tool_process import serve; "
            f"serve({str(self.folder)!r}, {self.seconds!r}, {self.memory!r})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it, and what it has started can be ended with it
        )
        assert self.process.stdout is not None
        self.lines = queue.Queue()
        threading.Thread(target=read_lines, args=(self.process.stdout, self.lines), daemon=True).start()
        self.ending = weakref.finalize(self, end, self.process)  # at the end of the program, too
        found = self.reply(LOADING)
        if error := found.get("text", ""):
            self.stop()
        return error

    def ask(self, question: dict[str, str]) -> dict[str, str]:
        """Send a line, and wait for the answer."""
        assert self.process is not None and self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile, and so will the lines
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        return self.reply(self.seconds)

    def reply(self, seconds: float) -> dict[str, str]:
        """The next line. If none comes, the process is ended, and the reply is an error."""
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            return {"text": f"{ERROR}no result after {seconds:g} seconds"}
        if not line:
            self.stop()
            return {"text": f"{ERROR}the tool has ended its process"}
        reply: dict[str, str] = json.loads(line)
        return reply

    def stop(self) -> None:
        """End the process, and what it has started."""
        self.ending()
        self.process = None


def read_lines(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Hand on the lines of a stream, and b"" at its end."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # what could not be sent
        process.stdin.close()
