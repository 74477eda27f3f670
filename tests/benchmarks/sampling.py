"""Tokens per second of sampling by batch, with the cache and without, against nanoGPT's `generate` where it is given.

python -m tests.benchmarks.sampling [--nanogpt PATH] [--large]
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path

import torch

from core.config import Config
from core.defaults import resolve
from core.models.gpt import GPT
from core.sampling.generate import generate
from tests.benchmarks.measure import Step, medians, nanogpt_model, print_table

VOCAB = 65


def our_sampling(preset: str, shape: tuple[int, int, int, int], rows: int, use_cache: bool) -> Step:
    n_layer, n_head, n_embd, block_size = shape
    shape = {"preset": preset, "n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "block_size": block_size}
    config = Config.model_validate({"train": {"model": shape}})
    model = GPT(resolve(config).train.model, VOCAB)
    prompts = torch.zeros(rows, 1, dtype=torch.long)

    def step() -> None:
        for tokens in generate(model, prompts, max_new_tokens=block_size - 1, temperature=0.8, use_cache=use_cache):
            tokens.tolist()

    return step


def peer_sampling(folder: Path, shape: tuple[int, int, int, int], rows: int) -> Step:
    n_layer, n_head, n_embd, block_size = shape
    with contextlib.redirect_stdout(io.StringIO()):
        model = nanogpt_model(
            folder, n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=VOCAB
        ).eval()
    prompts = torch.zeros(rows, 1, dtype=torch.long)
    return lambda: model.generate(prompts, block_size - 1, temperature=0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument(
        "--large", action="store_true", help="6 layers of width 384 and block 256 instead of 4, 128 and 64"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    shape = (6, 6, 384, 256) if options.large else (4, 4, 128, 64)
    table: dict[str, dict[str, str]] = {}
    for rows in (1, 10) if options.large else (1, 10, 64):
        steps: dict[str, Step] = {}
        if options.nanogpt:
            steps["nanoGPT"] = peer_sampling(options.nanogpt, shape, rows)
        for preset in ("gpt2", "modern", "llama"):
            steps[f"{preset}, cache"] = our_sampling(preset, shape, rows, True)
        if not options.large:
            steps["modern, no cache"] = our_sampling("modern", shape, rows, False)
        times = medians(steps, 2 if options.large else 7, warmup=1)
        reference = next(iter(times.values()))
        for name, seconds in times.items():
            speed = rows * (shape[-1] - 1) / seconds
            table.setdefault(name, {})[f"batch {rows}"] = f"{speed:,.0f} tokens/s ({reference / seconds:.1f}x)"
    print_table(f"{shape[0]} x {shape[2]}, block {shape[3]}", table)


if __name__ == "__main__":
    main()
