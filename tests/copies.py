"""A tiny run that is killed and finished many times over: copies of one prepared experiment go in, equal outcomes must come out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from conftest import PREPARE
from cutting import Forks, outcome

from core import files
from core.tracking.run import PIPELINE

# Dropout, so that the state of the random numbers counts; a save per step, so that many kills land inside one.
CONFIG = """[prepare]
size = 300
val_fraction = 0.3

[train.model]
n_layer = 1
n_head = 1
n_embd = 4
block_size = 16
dropout = 0.1

[train.data]
batch_size = 2

[train.schedule]
max_iters = {steps}

[train.runtime]
eval_interval = 4
log_interval = 1
checkpoint_interval = 1
dtype = "float32"
device = "cpu"
threads = 1
trackers = []
"""


def write(root: Path, steps: int) -> Path:
    """Make the experiment in root/experiments. Returns its folder."""
    folder = root / "experiments" / "tiny"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(CONFIG.format(steps=steps))
    return folder


def tiny(root: Path, steps: int, more: str = "") -> Path:
    """The tiny experiment, with more added to its config.toml, and its dataset. Returns its folder."""
    folder = write(root / "original", steps)
    with (folder / "config.toml").open("a") as config:
        config.write(more)
    return folder


class Lab:
    """A prepared experiment to copy, a warm process, and what an unbroken run of it comes to.

    original: the experiment's folder, in a folder `experiments`. command: with its arguments. run: that the command makes.
    """

    def __init__(
        self, original: Path, forks: Forks, command: str = "train", *arguments: str, run: str = "default"
    ) -> None:
        self.original, self.forks, self.copies, self.run = original, forks, 0, run
        self.root = original.parent.parent.parent
        self.command = (command, original.name, *arguments)
        code, printed = forks.run(original.parent.parent, "prepare", *self.command[1:])
        assert code == 0, printed
        whole = self.copy()
        began = time.monotonic()
        job = forks.start(whole, *self.command)
        code, printed = job.wait()
        self.seconds = time.monotonic() - began
        assert code == 0, printed
        self.operations, self.saves = job.operations, job.saves
        self.unbroken = self.outcome(whole)

    def copy(self, of: Path | None = None) -> Path:
        """A folder with the experiment in it, and what `of` has trained."""
        self.copies += 1
        target = self.root / f"copy-{self.copies}"
        shutil.copytree(of or self.original.parent.parent, target)
        return target

    def outcome(self, folder: Path) -> dict[str, Any]:
        """What a finished copy has come to."""
        experiment = folder / "experiments" / self.original.name
        run = experiment / "out" / self.run
        if not (run / PIPELINE).exists():
            return outcome(run)
        pipeline = json.loads((run / PIPELINE).read_bytes())
        found = {stage: outcome(run / stage, experiment) for stage in pipeline["stages"]}
        return found | {"table": pipeline["table"]}

    def finish(self, folder: Path) -> None:
        """Train again, compare, and remove the folder."""
        code, printed = self.forks.run(folder, *self.command)
        assert code == 0, printed
        assert "warning" not in printed  # nothing that a kill leaves is taken for damage
        assert self.outcome(folder) == self.unbroken
        assert [path for mark in (files.TEMPORARY, ".old-") for path in folder.rglob(f"{mark}*")] == []
        shutil.rmtree(folder)


class AtOnce(ThreadPoolExecutor):
    """Does what it is given in the thread that gives it."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **options))
        return future
