"""The benchmark of a GPU runs, and prints its tables: with tiny shapes, on a CPU, beside a stand-in for nanoGPT."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the benchmark uses of nanoGPT's model.py.
MODEL = """
import torch
from dataclasses import dataclass
from torch import nn

@dataclass
class GPTConfig:
    dropout: float; bias: bool; n_layer: int; n_head: int; n_embd: int; block_size: int; vocab_size: int

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, x, y):
        logits = self.table(x)
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())

    def configure_optimizers(self, decay, rate, betas, device):
        return torch.optim.AdamW(self.parameters(), lr=rate)
"""


def benchmark(*options: str) -> list[str]:
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.gpu", "--tiny", *options], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]


@pytest.mark.slow
def test_it_prints_its_tables(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    small = [
        f"{preset}, {kind}" for preset in ("gpt2", "modern") for kind in ("as it is", "recorded", "recorded, compiled")
    ]
    shape = "1 x 32, batch 2 x 16"
    assert benchmark("--nanogpt", str(tmp_path)) == [
        shape, "nanoGPT", "gpt2", "modern",  # the most important one first, in case that it is cut off
        shape, "nanoGPT", *small, shape, "nanoGPT", *small,
        "sampling, 1 x 32, float32", "batch 1", "batch 64",
        "attention over 64 tokens, 12 heads of 64", "whole context", "4 heads of keys", "a window of 1,024",
        shape, "gpt2, all logits at once", "gpt2, state in bfloat16", "gpt2, float8", "gpt2, not compiled",
    ]  # fmt: skip


@pytest.mark.slow
def test_no_row_begins_when_the_time_is_over() -> None:
    assert [line for line in benchmark("--minutes", "0") if line.startswith(("gpt2", "batch", "whole"))] == []
