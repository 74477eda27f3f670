"""Do the shipped learning rates hold from small to large? Each width with each batch, at half, once and twice the rates.

    python -m tests.benchmarks.rates --text FILE [--widths 64,128] [--batches 4,16] [--steps 100] [--threads 1]

Prints the loss on the whole validation file, for each shape with the shipped rates, and how far that is above the best
of the three. One seed: differences below 0.02 mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from core.toml import load_config

ROOT = Path(__file__).resolve().parents[2]
FACTORS = (0.5, 1.0, 2.0)
RATES = ("learning_rate", "embedding_lr", "head_lr")


def val_loss(folder: Path, settings: dict[str, object], factor: float) -> float:
    """Train one run with the default rates for its shape times a factor."""
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    optim = load_config(folder / "experiments" / "rates", "", overrides)[0].train.optim
    overrides += [f"train.optim.{name}={factor * getattr(optim, name)!r}" for name in RATES]
    run = "-".join(map(str, [*settings.values(), factor]))
    subprocess.run(
        [sys.executable, "-m", "core.cli", "train", "rates", "--quiet", "--run", run]
        + [part for text in overrides for part in ("-s", text)],
        cwd=folder, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    summary = json.loads((folder / "experiments" / "rates" / "out" / run / "summary.json").read_text())
    return float(summary["final_val_loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--widths", default="64,128,256,512")
    parser.add_argument("--batches", default="4,16,64,256")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        experiment = Path(name) / "experiments" / "rates"
        experiment.mkdir(parents=True)
        (experiment / "config.toml").write_text(f"[prepare]\ninput = {json.dumps(str(options.text.resolve()))}\n")
        print(
            f"{'n_embd':>6} {'batch':>6}   "
            + "".join(f"{f'x {factor:g}':>8}" for factor in FACTORS)
            + "   above the best"
        )
        for width in map(int, options.widths.split(",")):
            for batch in map(int, options.batches.split(",")):
                settings = {
                    "train.model.n_embd": width, "train.model.n_head": max(1, width // 64), "train.data.batch_size": batch,
                    "train.schedule.max_iters": options.steps, "train.runtime.eval_interval": options.steps,
                    "train.runtime.threads": options.threads,
                }  # fmt: skip
                losses = [val_loss(Path(name), settings, factor) for factor in FACTORS]
                cells = "".join(f"{loss:8.3f}" for loss in losses)
                print(f"{width:>6} {batch:>6}   {cells}   {losses[1] - min(losses):.3f}", flush=True)


if __name__ == "__main__":
    main()
