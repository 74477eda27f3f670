"""Durable file work: a name holds the old content or the new, whatever happens between."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core import files
from core.errors import UserError

ROOT = Path(__file__).parent.parent


def test_write_replaces_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "néw")
    assert path.read_bytes() == "néw".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk is full: 3 bytes are needed, and .* are free"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with files.new_folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), files.new_folder(target) as folder:
        (folder / "b").write_text("2")
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["a"]
    with files.new_folder(target) as folder:
        (folder / "c").write_text("3")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_recover_finishes_what_a_crash_left(tmp_path: Path) -> None:
    target = tmp_path / "data"
    files.previous_name(target).mkdir()
    (files.previous_name(target) / "old").touch()
    files.recover(target)
    assert [path.name for path in target.iterdir()] == ["old"]
    files.previous_name(target).mkdir()
    files.recover(target)
    assert not files.previous_name(target).exists()
    assert [path.name for path in target.iterdir()] == ["old"]


def link_to(path: Path, other: Path) -> None:
    other.write_text("a person's work")
    path.symlink_to(other)


@pytest.mark.parametrize(
    "make",
    [
        link_to,
        lambda path, other: path.symlink_to(other),
        lambda path, _: os.mkfifo(path),
        lambda path, _: path.mkdir(),
    ],
    ids=["link", "link to nothing", "pipe", "folder"],
)
def test_a_lock_is_a_file_and_nothing_else(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    """The holder's name is written into it: through a link it would take the place of what somebody else has written."""
    path, other = tmp_path / ".x.lock", tmp_path / "other"
    make(path, other)
    message = r"^run x cannot be locked: \.x\.lock is a link or no file$"
    with pytest.raises(UserError) as caught, files.lock(path, "run x"):
        pass
    assert re.fullmatch(message, caught.value.message) and caught.value.remedy == "Remove it."
    assert not files.is_locked(path) and files.read_holder(path) is None
    assert (other.read_text() == "a person's work") if make is link_to else not other.exists()


def test_little_is_read_of_a_lock_that_is_held(tmp_path: Path) -> None:
    """Whatever else stands in it, and in whatever encoding."""
    path = tmp_path / ".x.lock"
    path.write_bytes(b"process 1 since 2026-01-01 00:00:00 \xff")
    os.truncate(path, 1 << 30)
    holder = os.fork()
    if not holder:
        fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)
        signal.pause()
    try:
        while not files.is_locked(path):
            time.sleep(0.01)
        told = files.read_holder(path)
        assert told is not None and told.startswith("process 1 since 2026-01-01") and len(told) == files.HOLDER
        with pytest.raises(UserError, match="run x is in use by process 1 since"), files.lock(path, "run x"):
            pass
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


def test_a_lock_keeps_another_process_out_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    take = f"from pathlib import Path\nfrom core import files\nwith files.lock(Path({str(path)!r}), 'run x', 'Wait.'):\n    print('held', flush=True)\n    input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", take],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError) as caught, files.lock(path, "run x", "Wait."):
        pass
    assert f"run x is in use by process {holder.pid}" in str(caught.value)
    assert "Wait." in str(caught.value)
    holder.kill()
    holder.communicate()
    with files.lock(path, "run x"):
        assert re.fullmatch(rf"process {os.getpid()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", path.read_text())
    assert path.read_text() == ""
