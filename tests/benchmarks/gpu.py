"""A training step on a GPU: ours and nanoGPT's model in nanoGPT's loop, side by side in one process.

python -m tests.benchmarks.gpu [--nanogpt PATH] [--rows 32] [--large]

Both are compiled and compute in bfloat16 with float32 weights; nanoGPT has its fused AdamW and gradient clipping, as its
train.py. The steps take turns. Memory is the most that torch held for one of them beyond what the others already held.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.bench.cases import GPT2
from core.bench.training import Shape, config_of, random_batch
from core.plugins.manager import plugins
from core.training.machine import Machine, model_on
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.peak import peak_or_none
from core.training.step import Step
from tests.benchmarks.measure import Step as Timed
from tests.benchmarks.measure import medians, nanogpt_model, print_table

CUDA = torch.device("cuda")
SMALL = Shape(6, 6, 384, block_size=256, batch_size=64)  # nanoGPT's setting for Shakespeare on a GPU
REPEATS = 12


def our_step(preset: str, shape: Shape) -> Timed:
    config = config_of(preset, shape).train
    machine = Machine(CUDA, torch.bfloat16, compile=True)
    model = model_on(machine, config.model, shape.vocab_size, plugins())
    optimizer = build_optimizer(model, config.optim, plugins())
    step, batch = Step(model, optimizer, machine, config.optim.grad_clip, tokens), random_batch(shape)

    def run() -> None:
        step(*batch)
        torch.cuda.synchronize()

    return run


def peer_step(folder: Path, shape: Shape) -> Timed:
    sizes = {name: getattr(shape, name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")}
    with contextlib.redirect_stdout(io.StringIO()):
        model = nanogpt_model(folder, **sizes).to(CUDA)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cuda")
    compiled: Any = torch.compile(model)
    x, y = (torch.from_numpy(part[0]).to(CUDA) for part in random_batch(shape))

    def run() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            _, loss = compiled(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()

    return run


def steps_of(shape: Shape, folder: Path | None) -> Iterator[tuple[str, Callable[[], Timed]]]:
    if folder is not None:
        yield "nanoGPT", partial(peer_step, folder, shape)
    for preset in ("gpt2", "modern", "llama"):
        yield f"ours, {preset}", partial(our_step, preset, shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--rows", type=int, default=32, help="of the smallest GPT-2's batch")
    parser.add_argument("--large", action="store_true", help="the smallest GPT-2 alone")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    peak = peak_or_none(CUDA, torch.bfloat16)
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, matrix products {(peak or 0) / 1e12:,.0f} TFLOP/s"
    )
    large = Shape(12, 12, 768, GPT2.block_size, options.rows, GPT2.vocab_size)
    for shape in (large,) if options.large else (SMALL, large):
        rows: dict[str, dict[str, str]] = {}
        steps, memory = {}, {}
        for name, make in steps_of(shape, options.nanogpt):
            gc.collect()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            steps[name] = make()
            for _ in range(3):
                steps[name]()
            memory[name] = torch.cuda.max_memory_allocated() - before
        times = medians(steps, REPEATS, warmup=1)
        reference, count = next(iter(times.values())), shape.batch_size * shape.block_size
        for name, seconds in times.items():
            rows[name] = {
                "ms": f"{seconds * 1e3:.1f} ({reference / seconds:.2f}x)",
                "tokens/s": f"{count / seconds:,.0f}",
                "memory": f"{memory[name] / 2**30:.1f} GiB",
            }
        print_table(shape.name, rows)


if __name__ == "__main__":
    main()
