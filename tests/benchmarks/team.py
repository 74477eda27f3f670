"""What sharing a run costs and changes: one run on 1, 2 and 4 processes, with whole and divided weights, and with exact_across.

python -m tests.benchmarks.team [--layers 2 --width 64 --steps 40 --repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from core.training import checkpoints

ROOT = Path(__file__).parents[2]
PREPARE = r'''"""Put a space between the letters of a word."""

from core import Example


def documents(rng):
    while True:
        letters = rng.choices("abcdefgh", k=rng.randint(1, 6))
        yield Example(prompt="".join(letters) + ": ", completion=" ".join(letters) + "\n")
'''
CONFIG = """[train.model]
n_layer = {layers}
n_head = 4
n_embd = {width}
block_size = 32
[train.data]
batch_size = 8
grad_accum_steps = 4
[train.schedule]
max_iters = {steps}
[train.runtime]
eval_interval = {steps}
checkpoint_interval = {steps}
dtype = "float32"
attention = "explicit"
device = "cpu"
threads = 1
trackers = []
"""


def train(root: Path, world: int, run: str, *more: str) -> tuple[float, Path]:
    """Milliseconds per step, and the run's folder."""
    command = ["-m", "core.cli", "train", "tiny", "-q", "--fresh", *more]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, *(torchrun if world > 1 else []), *command[:2], *command[2:]]
    start += ["-s", f"train.runtime.out_dir={root / run}"]
    subprocess.run(start, cwd=root, env=environment, check=True, timeout=600, capture_output=True)
    folder = root / run / "default"
    return json.loads((folder / "summary.json").read_text())["ms_per_step"], folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"layers": 2, "width": 64, "steps": 40, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = root / "experiments" / "tiny"
        folder.mkdir(parents=True)
        (folder / "prepare.py").write_text(PREPARE)
        (folder / "config.toml").write_text(CONFIG.format(**vars(given)))
        ways = {
            "plain": [],
            "fsdp": ["-s", "train.runtime.parallel=fsdp"],
            "exact": ["-s", "train.runtime.exact_across=true"],
        }
        times: dict[tuple[str, int], list[float]] = {}
        weights, losses = {}, {}
        for _ in range(given.repeats):
            for world in (1, 2, 4):
                for way, more in ways.items():
                    took, found = train(root, world, f"{way}{world}", *more)
                    times.setdefault((way, world), []).append(took)
                    weights[way, world] = checkpoints.read(found / "checkpoints" / "last").model
                    losses[way, world] = json.loads((found / "summary.json").read_text())["final_val_loss"]
        for (way, world), found_times in times.items():
            one = weights["plain", 1]
            apart = max(float((one[name] - each).abs().max()) for name, each in weights[way, world].items())
            print(f"{way} on {world}: {statistics.median(found_times):.1f} ms/step ({min(found_times):.1f} to {max(found_times):.1f}), "
                  f"val loss {losses[way, world]:.7f}, weights differ by {apart:.2g}")  # fmt: skip


if __name__ == "__main__":
    main()
