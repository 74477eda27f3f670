"""prepare: a kill, an error or a full disk leaves the old dataset whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import (
    FROM_FILE,
    SMALL,
    SPACES,
    TEXT,
    content,
    run,
    write,
)

from core import durable, files
from core.data import encode
from core.errors import RunFailed


class Stop(Exception):
    """Stands for anything that ends prepare early."""


@settings(max_examples=25)
@given(st.integers(0, 60))
def test_an_interrupted_prepare_leaves_the_old_dataset_whole(
    tmp_path_factory: pytest.TempPathFactory, calls: int
) -> None:
    folder = write(tmp_path_factory.mktemp("stop") / "one", SPACES, SMALL)
    dataset = run(folder)
    new = run(write(folder.parent / "two", SPACES, SMALL), ["prepare.seed=2"])
    whole = [content(dataset.folder), content(new.folder)]
    left = calls

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Stop):
        for module, name in (
            (durable, "sync_path"),
            (encode.BinFile, "add"),
            (encode.Side, "open"),
            (files, "write_json"),
        ):
            original = getattr(module, name)
            patch.setattr(module, name, lambda *a, original=original, **k: (count(), original(*a, **k))[1])
        run(folder, ["prepare.seed=2"])
    assert content(dataset.folder) in whole
    assert (left < 0) or content(dataset.folder) == whole[1]
    assert not list(folder.rglob(".tmp-*"))
    assert content(run(folder).folder) == whole[0]


def test_a_killed_prepare_leaves_the_old_dataset_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(TEXT * 3000)
    before = content(run(folder).folder)
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from preparing import run
print("ready", flush=True)
run(Path({str(folder)!r}), ["prepare.val_fraction=0.2"])
"""
    for delay in (0.0, 0.02, 0.06, 0.1):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        dataset = run(folder)  # the lock of a killed process is free
        assert content(dataset.folder) == before
    run(folder, force=True)
    assert not list(folder.rglob(".tmp-*"))


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    before = content(run(folder).folder)

    def full(self: Any, values: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encode.BinFile, "add", full)
    with pytest.raises(
        RunFailed,
        match=r"the disk is full: more than 0 bytes are needed, and .*B are free; the dataset is unchanged",
    ):
        run(folder, force=True)
    assert content(folder / "datasets/basic") == before


def test_two_processes_do_not_prepare_at_once(tmp_path: Path) -> None:
    """The second one waits for the first."""
    folder = write(tmp_path / "one", SPACES, SMALL)
    with ThreadPoolExecutor(1) as pool:
        with files.lock(folder / "datasets" / ".lock-basic", "dataset basic"):
            second = pool.submit(run, folder)
            with pytest.raises(TimeoutError):
                second.result(0.5)
        assert second.result(60).train.tokens


def test_dataset_json_says_what_is_in_the_files(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", SPACES, SMALL))
    info = json.loads((dataset.folder / "dataset.json").read_text())
    assert info["encoder"] == {"kind": "char", **dataset.encoder.state()}
    assert set(info["files"]) == {path.name for path in dataset.folder.iterdir()} - {"dataset.json"}
    for name, entry in info["files"].items():
        assert entry["sha256"] == hashlib.sha256((dataset.folder / name).read_bytes()).hexdigest()
    assert info["train"]["tokens"] == dataset.train.tokens
    assert info["split"] == {"kind": "hash", "val_fraction": 0.1, "test_fraction": 0.1, "seed": 1337, "overlap": 0}
    assert info["vocab_size"] == dataset.encoder.vocab_size
