"""Time of one optimizer step: prints a table of milliseconds. Run: python -m tests.benchmarks.optimizers [layers width]...

For each shape the parameters are those of a GPT with fused attention, 65 tokens and no biases. AdamW updates all
parameters; torch's Muon, with five iterations and one matrix at a time, the hidden matrices only.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from core.config import Config
from core.defaults import resolve
from core.training import optimizers

OPTIM = resolve(Config()).train.optim
WARM_UP, REPEATS = 10, 100


class Parameters(nn.Module):
    """The parameters of a GPT, with gradients."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.wte, self.lm_head = nn.Embedding(65, width), nn.Linear(width, 65, bias=False)
        self.blocks = nn.ModuleList()
        for _ in range(layers):
            block = nn.Module()
            for name, rows, columns in (("c_attn", 3, 1), ("c_proj", 1, 1), ("c_fc", 4, 1), ("c_out", 1, 4)):
                block.add_module(name, nn.Linear(columns * width, rows * width, bias=False))
            self.blocks.append(block)
        for p in self.parameters():
            p.grad = torch.randn_like(p)


def torch_muon(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Muon([p for name, p in model.named_parameters() if name.startswith("blocks")], lr=0.02)


BUILDERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "core muon": lambda model: optimizers.muon(model, OPTIM),
    "torch Muon": torch_muon,
    "core adamw (fused)": lambda model: optimizers.adamw(model, OPTIM),
    "torch AdamW, foreach": lambda model: torch.optim.AdamW(model.parameters(), foreach=True),
    "torch AdamW, plain": lambda model: torch.optim.AdamW(model.parameters(), foreach=False),
}


def milliseconds(step: Callable[[], object]) -> tuple[float, float]:
    """Fastest and median time of a step."""
    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - begin))
    return min(times), statistics.median(times)


def main(shapes: list[tuple[int, int]]) -> None:
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds per step, fastest and median of {REPEATS}"
    )
    for layers, width in shapes:
        for name, build in BUILDERS.items():
            torch.manual_seed(0)
            fastest, median = milliseconds(build(Parameters(layers, width)).step)
            print(f"{layers} layers x {width:<5} {name:<22} {fastest:8.2f} {median:8.2f}")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]] or [4, 128, 6, 384]
    main(list(zip(numbers[::2], numbers[1::2], strict=True)))
