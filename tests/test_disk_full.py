"""A full disk: exit 1, a message with what is needed and what is free, nothing lost; with room, the run goes on exactly."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from copies import Lab, write
from cutting import OPERATIONS

from core import files
from core.training import checkpoints

Terrarium = Callable[..., Result]
ROOM = r"(more than )?[\d,.]+ (bytes|kB|MB) are needed, and [\d,.]+ (bytes|kB|MB) are free"
TOLD = re.compile(
    rf"^failed: .*the disk is full: {ROOM}.*(is whole|the dataset is unchanged)", re.MULTILINE | re.DOTALL
)


def full_everywhere(lab: Lab, needs_room: Sequence[str]) -> int:
    """Let one operation after another, and all after it, find the disk full. Returns how many there were."""
    for number in range(10_000):
        folder = lab.copy()
        shutil.rmtree(folder / "experiments" / "tiny" / "datasets")
        code, printed = lab.forks.run(folder, "train", "tiny", full=number, needs_room=needs_room)
        if code == 0:
            shutil.rmtree(folder)
            return number
        assert code == 1, printed
        assert TOLD.search(printed), printed
        assert "Traceback" not in printed
        run = folder / "experiments" / "tiny" / "out" / "default"
        for name in ("last", "best"):
            if checkpoints.candidates(run / "checkpoints", name):
                checkpoints.load(run / "checkpoints", name)  # the test fails if it warns of damage
        assert list(folder.rglob(f"{files.TEMPORARY}*")) == []  # what was begun is removed: that, too, is room
        lab.finish(folder)
    raise AssertionError("no end")


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write(short: Lab) -> None:
    writes = full_everywhere(short, ["write"])
    print(f"{writes} writes of prepare and train")
    assert writes > 30


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_operation(short: Lab) -> None:
    operations = full_everywhere(
        short, [name for name in OPERATIONS if name not in ("close", "unlink", "remove_folder")]
    )
    print(f"{operations} operations of prepare and train")
    assert operations > 150


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file system of its own, of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux":
        pytest.skip("needs Linux's tmpfs")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full(short: Lab, small_disk: Path) -> None:
    write(small_disk / "0", steps=4)
    failures = 0
    for kilobytes in range(64, 2000, 4):
        shutil.rmtree(small_disk / f"{failures}")
        write(small_disk / f"{failures + 1}", steps=4)
        resize(small_disk, f"{kilobytes}k")
        code, printed = short.forks.run(small_disk / f"{failures + 1}", "train", "tiny")
        if code == 0:
            break
        assert code == 1 and TOLD.search(printed), printed
        failures += 1
        resize(small_disk, "4m")
        shutil.copytree(small_disk / f"{failures}", small_disk / "copy")
        short.finish(small_disk / "copy")
    print(f"{failures} sizes were too small, {kilobytes} kB were enough")
    assert failures >= 10


def test_a_disk_without_room_for_two_checkpoints_is_warned_of(
    spaces: Path, terrarium: Terrarium, small_disk: Path
) -> None:
    out = ("-s", f"train.runtime.out_dir={small_disk}")
    with pytest.warns(
        UserWarning, match=r"a checkpoint of spaces/default takes about .*B, and .*B are free in .*: two will not fit"
    ):
        result = terrarium("train", "spaces", *out, "-s", "train.model.n_embd=64")
    assert result.exit_code == 1
    assert TOLD.search(result.stderr), result.stderr
    resize(small_disk, "8m")
    again = terrarium("train", "spaces", *out, "-s", "train.model.n_embd=64")
    assert again.exit_code == 0, again.output
