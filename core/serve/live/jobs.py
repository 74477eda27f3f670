"""Commands that were started from the page: processes of their own, which go on when the server ends.

Each is an ordinary command line, without a shell, so nothing runs that the command line would refuse. What it prints goes
into a file in the hidden folder `.live` beside the runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.private import command_line
from core.process import Program
from core.serve.errors import Refused
from core.serve.live.reading import append_file, open_file

LOGS = ".live"  # beside the runs
MOST_KNOWN, MOST_AT_ONCE = 200, 16  # commands
LINES, END = 20, 1 << 14  # of the end of a log that are shown; bytes that are read for them


@dataclass(frozen=True)
class StartedCommand:
    """A command. id: of it. words: after the program's own. run: the id of the run that it is about, or "". log: its output.

    root: below which no link is followed on the way to its log.
    """

    id: str
    words: tuple[str, ...]
    run: str
    log: Path
    root: Path | None
    begun: int
    process: subprocess.Popen[bytes]

    def described(self) -> dict[str, Any]:
        """As JSON."""
        code = self.process.poll()
        return {
            "job": self.id,
            "words": command_line([*Program.words, *self.words]),
            "run": self.run or None,
            "status": "running" if code is None else "ended",
            "exit": code,
            "lines": last_lines(self.log, self.root, self.begun),
        }


class Jobs:
    """The commands of this server, the newest last. version: grows when one begins or ends."""

    def __init__(self) -> None:
        self.known: list[StartedCommand] = []
        self.ended: set[str] = set()
        self.version = self.number = 0
        self.turn = threading.Lock()

    def start(self, words: Sequence[str], out: Path, name: str, run: str, root: Path | None = None) -> StartedCommand:
        """Start a command. name: of its log. Raises Refused where so many run that another one is refused."""
        with self.turn:
            if sum(job.process.poll() is None for job in self.known) >= MOST_AT_ONCE:
                raise Refused(f"{MOST_AT_ONCE} commands run already. Wait until one ends.", status=429, code="busy")
            self.number += 1
            log = out / LOGS / log_name(name)
            try:
                opened = append_file(log, root)
            except OSError as error:
                raise Refused(
                    f"{log} cannot be written: {error.strerror}", status=409, code="cannot_be_written"
                ) from None
            with opened as file:
                begun = file.tell()
                file.write(f"$ {command_line([*Program.words, *words])}\n".encode())
                file.flush()
                started = subprocess.Popen(
                    [sys.executable, "-m", "core.cli", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                    start_new_session=True,  # Ctrl-C in the server's terminal is not meant for it
                )
            job = StartedCommand(f"{int(time.time())}-{self.number}", tuple(words), run, log, root, begun, started)
            self.known = [*self.known, job][-MOST_KNOWN:]
            self.version += 1
            return job

    def look(self) -> None:
        """Note the jobs that have ended."""
        with self.turn:
            for job in self.known:
                if job.id not in self.ended and job.process.poll() is not None:
                    self.ended.add(job.id)
                    self.version += 1

    def described(self) -> list[dict[str, Any]]:
        """All jobs as JSON, the newest first."""
        return [job.described() for job in reversed(self.known)]


def log_name(name: str) -> str:
    """The name of the file with the output of the command for a run or a sweep."""
    return f"{re.sub(r'[^A-Za-z0-9._+=-]+', '_', name)[:150]}.log"


def last_lines(path: Path, root: Path | None, begun: int) -> list[str]:
    """The last lines of what a command has printed."""
    try:
        with open_file(path, root) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(begun, size - END))
            return file.read(END).decode("utf-8", "replace").splitlines()[-LINES:]
    except OSError:
        return []
