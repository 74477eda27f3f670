"""One writer per run folder and per dataset: of two processes one wins, the other is told who, and the dead hold nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PREPARE, TINY

from core import files

ROOT = Path(__file__).parent.parent
# A racer is told of a lock by its path, waits until both are ready, takes it, and holds it until it is told to go on.
RACER = """
import sys, time
from pathlib import Path
from core import files
from core.errors import UserError
print("ready", flush=True)
for line in sys.stdin:
    path, start = line.split()
    while time.monotonic() < float(start):
        pass
    try:
        with files.lock(Path(path), "run x"):
            print("won", flush=True)
            sys.stdin.readline()
    except UserError as error:
        print(f"lost {error.message}", flush=True)
        sys.stdin.readline()
    print("free", flush=True)
"""
SLOW = """
import time


def on_train_start(run):
    print("training", flush=True)
    time.sleep(60)
"""


class Racer:
    """A process that takes locks. A context manager."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self.hear() == "ready"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def racers() -> Iterator[list[Racer]]:
    both = [Racer(), Racer()]
    yield both
    for racer in both:
        racer.end()


def test_of_two_that_race_one_wins_and_the_other_is_told_who(racers: list[Racer], tmp_path: Path) -> None:
    wins = [0, 0]
    for number in range(200):
        path = tmp_path / "lock"
        if number % 4 == 1:  # the name of one that was killed
            path.write_text(f"process {2**22 + 1} since 2020-01-01 00:00:00")
        start = time.monotonic() + 0.002
        for racer in racers:
            racer.tell(f"{path} {start}")
        heard = [racer.hear() for racer in racers]
        assert sorted(text.split()[0] for text in heard) == ["lost", "won"]
        winner, loser = (heard.index("won"), 1 - heard.index("won"))
        wins[winner] += 1
        assert re.fullmatch(
            rf"lost run x is in use by process {racers[winner].process.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d",
            heard[loser],
        )
        for racer in racers:
            racer.tell("go on")
        assert [racer.hear() for racer in racers] == ["free", "free"]
    print(f"200 races, won {wins[0]} to {wins[1]}")


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    slowest = 0.0
    for _ in range(3):
        racer = Racer()
        racer.tell(f"{tmp_path / 'lock'} 0")
        assert racer.hear() == "won"
        racer.process.send_signal(signal.SIGKILL)
        racer.process.wait()
        began = time.monotonic()
        with files.lock(tmp_path / "lock", "run x"):
            slowest = max(slowest, time.monotonic() - began)
        racer.end()
    print(f"free after {slowest * 1000:.1f} ms at most")
    assert slowest < 0.5 * files.PATIENCE  # nobody waited for a name


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "core.cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=folder
    )


def slow_first(folder: Path, command: str, code: str) -> tuple[subprocess.Popen[str], dict[Path, bytes]]:
    """A process that is in the midst of a command on experiment `spaces`, and the experiment's files then."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(TINY)
    (folder / "prepare.py").write_text(code)
    first = start(folder.parents[1], command, "spaces")
    assert first.stdout is not None
    while "ing\n" not in (line := first.stdout.readline()) or " " in line:
        assert line
    return first, {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_process_is_told_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "spaces"
    first, before = slow_first(folder, "train", PREPARE + SLOW)
    second = start(tmp_path, "train", "spaces")
    _, told = second.communicate()
    assert second.returncode == 2
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.search(rf"run spaces/default is in use by process {first.pid} since {since}\n", told)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    first.kill()
    first.communicate()


@pytest.mark.slow
def test_a_second_prepare_waits_for_the_first_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "spaces"
    slow = "    print('drawing', flush=True); open('go').read() if __import__('os').path.exists('go') else "
    slow += "__import__('time').sleep(60)\n"
    first, before = slow_first(folder, "prepare", PREPARE.replace("    while True:", slow + "    while True:"))
    second = start(tmp_path, "prepare", "spaces")
    assert second.stdout is not None
    told = second.stdout.readline()
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    wanted = f"spaces: dataset basic is in use by process {first.pid} since {since}; waiting until it ends"
    assert re.fullmatch(wanted, told.rstrip())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (tmp_path / "go").touch()  # the second one need not sleep
    first.kill()
    first.communicate()
    said, _ = second.communicate()
    assert second.returncode == 0 and "the dataset is ready" in said


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    write = f"""
from pathlib import Path
from core import files
for number in range(300):
    files.write_text(Path({str(tmp_path / "log")!r}), str(number % 10) * 5000)
"""
    both = [subprocess.Popen([sys.executable, "-c", write], env=environment()) for _ in range(2)]
    while any(process.poll() is None for process in both):
        if (tmp_path / "log").exists():
            text = (tmp_path / "log").read_text()
            assert len(text) == 5000 and len(set(text)) == 1
    assert [process.returncode for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    dead, alive = tmp_path / f".tmp-{2**22 + 1}-summary.json", tmp_path / f".tmp-{os.getpid()}-summary.json"
    own = tmp_path / ".tmp-notes"
    for path in (dead, alive, own):
        path.touch()
    files.tidy(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, own])
