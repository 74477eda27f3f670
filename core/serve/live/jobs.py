"""Commands that were started from the page: processes of their own, which go on when the server ends.

Each is an ordinary command line, without a shell, so nothing runs that the command line would refuse. What it prints goes
into a file of its own below the hidden folder `.live` beside the runs.
"""

from __future__ import annotations

import os
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
from core.serve.live.catalog import Place
from core.serve.live.reading import append_file, open_file
from core.serve.live.stopping import stopping_signal

LOGS = ".live"  # beside the runs: LOGS/RUN/JOB.log, LOGS/sweeps/NAME/JOB.log
MOST_JOBS = 200  # jobs that are told of
MOST_RUNNING = 16
MOST_LINES, MOST_BYTES = 20, 1 << 14  # of the end of a log that is told with a job
STOPPED = (130, 143, -2, -15)  # exit codes after SIGINT and SIGTERM


@dataclass(frozen=True)
class StartedCommand:
    """A command. words: after the program's own. about: the id of the run or the sweep that it makes. log: its output.

    root: below which no link is followed on the way to its log.
    """

    id: str
    words: tuple[str, ...]
    about: str
    log: Path
    root: Path | None
    process: subprocess.Popen[bytes]

    @property
    def status(self) -> str:
        """running, completed, stopped or failed."""
        code = self.process.poll()
        if code is None:
            return "running"
        return "stopped" if code in STOPPED else "failed" if code else "completed"

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "job": self.id,
            "words": command_line([*Program.words, *self.words]),
            "about": self.about,
            "status": self.status,
            "exit": self.process.poll(),
            "lines": last_lines(self.log, self.root),
        }

    def stop(self) -> int:
        """Ask it to stop, as Ctrl-C does. Returns the number of its process."""
        self.process.send_signal(stopping_signal(self.process.pid))
        return self.process.pid


class Jobs:
    """The commands of this server, the newest last. version: grows when one begins or ends."""

    def __init__(self) -> None:
        self.known: list[StartedCommand] = []
        self.ended: set[str] = set()
        self.version = 0
        self.turn = threading.Lock()

    def start(self, words: Sequence[str], place: Place, about: str) -> StartedCommand:
        """Start a command about a run or a sweep, by its id. Raises Refused where so many run that another one is refused."""
        with self.turn:
            if sum(job.status == "running" for job in self.known) >= MOST_RUNNING:
                raise Refused(f"{MOST_RUNNING} commands run already. Wait until one ends.", status=429, code="busy")
            id, root = str(time.time_ns()), place.lab.root  # the names of logs are sorted by time
            log = log_folder(place, about) / f"{id}.log"
            try:
                opened = append_file(log, root)
            except OSError as error:
                raise Refused(
                    f"{log} cannot be written: {error.strerror}", status=409, code="cannot_be_written"
                ) from None
            with opened as file:
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
            job = StartedCommand(id, tuple(words), about, log, root, started)
            self.known = [*self.known, job][-MOST_JOBS:]
            self.version += 1
            return job

    def look(self) -> None:
        """Note the jobs that have ended."""
        with self.turn:
            for job in self.known:
                if job.id not in self.ended and job.status != "running":
                    self.ended.add(job.id)
                    self.version += 1

    def running(self, *ids: str) -> StartedCommand | None:
        """The newest job with one of these ids, or about one of them, that runs."""
        found = (job for job in reversed(self.known) if {job.id, job.about} & set(ids) and job.status == "running")
        return next(found, None)

    def described(self) -> list[dict[str, Any]]:
        """All jobs as JSON, the newest first."""
        return [job.described() for job in reversed(self.known)]


def log_folder(place: Place, about: str) -> Path:
    """The folder with the logs of the commands for a run or a sweep, by its id."""
    return place.out / LOGS / about.removeprefix(f"{place.head}/")


def newest_log(place: Place, about: str) -> Path | None:
    """What the latest command for a run or a sweep has printed."""
    return max(log_folder(place, about).glob("*.log"), default=None, key=lambda path: path.name)


def last_lines(path: Path, root: Path | None) -> list[str]:
    """The last lines of what a command has printed."""
    try:
        with open_file(path, root) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_BYTES))
            return file.read(MOST_BYTES).decode("utf-8", "replace").splitlines()[-MOST_LINES:]
    except OSError:
        return []
