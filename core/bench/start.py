"""Measure the time from a command to its first training step, in a separate process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Ends the process after the first step, so that nothing else is timed. Steps before on_train_start do not count.
PREPARE = '''"""Notes when the first optimizer step is done, and ends."""

import os
import time

from core import Example
from core.training.optimizers import muon

begun = False


def documents(rng):
    while True:
        letters = rng.choices("abcde", k=rng.randint(1, 3))
        yield Example(prompt="".join(letters) + ": ", completion=" ".join(letters) + "\\n")


def on_train_start(run):
    global begun
    begun = True


def note(*_):
    if begun:
        with open("first_step", "w") as file:
            file.write(repr(time.monotonic()))
        os._exit(0)


def register_optimizers(register):
    def build(model, config):
        optimizer = muon(model, config)
        optimizer.register_step_post_hook(note)
        return optimizer

    register("noting", build)
'''
CONFIG = '[prepare]\nsize = 20_000\n[train.optim]\nname = "noting"\n[train.runtime]\nthreads = {threads}\n'


def first_step(threads: int = 0, repeats: int = 3, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Median seconds from `python -m core.cli train` to the end of a default model's first step, with a ready dataset.

    threads: torch's; 0: as a run chooses. more: arguments of `train`. Raises RuntimeError if the command fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "experiments" / "start"
        folder.mkdir(parents=True)
        (folder / "prepare.py").write_text(PREPARE)
        (folder / "config.toml").write_text(CONFIG.format(threads=threads or '"auto"'))
        command(Path(name), "prepare", "start")
        times = []
        for number in range(repeats):
            begin = time.monotonic()
            command(Path(name), "train", "start", "--run", f"run{number}", *more)
            times.append(float((Path(name) / "first_step").read_text()) - begin)
    return {"seconds": statistics.median(times), "fastest": min(times), "slowest": max(times)}


def command(folder: Path, *arguments: str) -> None:
    """Run a command of this package in a folder. Raises RuntimeError with its output if it fails."""
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "core.cli", *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
