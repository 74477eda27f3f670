"""What a GPU is used for: training, sampling and long contexts, beside nanoGPT where it is given. Under 5 minutes on an H100.

python -m tests.benchmarks.gpu [--nanogpt FOLDER] [--minutes 4.5]

Bfloat16 with float32 weights. nanoGPT's model is compiled and has its fused AdamW and gradient clipping, as in its train.py. Each row
is measured alone: 3 + 3 steps before, then the median of 12. Memory is the most that torch held for it. Rows that would begin after
`--minutes` are left out. `--tiny` runs the same lines with tiny shapes, on a CPU too, where nothing is compiled or recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.bench.cases import GPT2
from core.bench.cases import SMALL as TOY
from core.bench.training import Shape, config_of, random_batch
from core.config import replaced
from core.models.attention import Scheme, attend
from core.models.build import flops_per_token
from core.models.recorded import REHEARSALS
from core.plugins.manager import plugins
from core.sampling.generate import generate
from core.training.graphed import step_of
from core.training.machine import Machine, model_on
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.peak import peak_or_none, synchronise
from tests.benchmarks.measure import nanogpt_model, print_table

LARGE = replace(GPT2, batch_size=32)
SMALL = Shape(6, 6, 384, block_size=256, batch_size=64)  # nanoGPT's setting for Shakespeare on a GPU
TINY = Shape(1, 2, 32, block_size=16, batch_size=2)
REPEATS = 12
LONG = 8192  # tokens
Take = Callable[[], Any]
Ways = dict[str, tuple[str, dict[str, Any]]]  # name of a row -> preset and what `our_step` is told


@dataclass(frozen=True)
class Bench:
    """Where and until when is measured. end: on the monotonic clock."""

    device: torch.device
    nanogpt: Path | None
    end: float
    tiny: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def machine(self, **choices: Any) -> Machine:
        chosen = {name: value and self.on_gpu for name, value in choices.items()}
        return Machine(self.device, torch.bfloat16, **chosen)

    def measured(self, make: Callable[[], Take]) -> tuple[float, float] | None:
        """Median seconds of what is made, and GiB that it held at most; None without time."""
        gc.collect()
        if time.monotonic() > self.end:
            return None
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if self.on_gpu else 0
        take, times = make(), []
        for number in range(3 + REHEARSALS + REPEATS):
            begin = time.perf_counter()
            take()
            synchronise(self.device)
            if number >= 3 + REHEARSALS:
                times.append(time.perf_counter() - begin)
        held = torch.cuda.max_memory_allocated() - before if self.on_gpu else 0
        torch.compiler.reset()
        return statistics.median(times), held / 2**30


def our_step(
    bench: Bench, preset: str, shape: Shape, *, whole: bool = False, state: str = "float32", **choices: Any
) -> Take:
    """whole: all logits at once. state: the precision of the optimizer's state. choices: of the machine."""
    config = replaced(config_of(preset, shape), {"train.optim.state_dtype": state}).train
    machine = bench.machine(**choices)
    torch.manual_seed(0)
    model = model_on(machine, config.model, shape.vocab_size, plugins())
    if whole:
        model.loss_chunk = 0  # type: ignore[assignment]
    step = step_of(model, build_optimizer(model, config.optim, plugins()), machine, config.optim.grad_clip, tokens)
    batch = random_batch(shape)
    return lambda: step(*batch)


def peer_step(bench: Bench, shape: Shape) -> Take:
    sizes = {name: getattr(shape, name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")}
    assert bench.nanogpt is not None
    with contextlib.redirect_stdout(io.StringIO()):
        model = nanogpt_model(bench.nanogpt, **sizes).to(bench.device)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), bench.device.type)
    compiled: Any = torch.compile(model) if bench.on_gpu else model
    x, y = (torch.from_numpy(part[0]).to(bench.device) for part in random_batch(shape))

    def take() -> None:
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            _, loss = compiled(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take


def training(bench: Bench, shape: Shape, ways: Ways, peak: float | None, reference: float | None = None) -> float:
    """A table of steps. reference: seconds of nanoGPT's step, if it was measured; else it is the first row. Returns it."""
    makes: dict[str, Callable[[], Take]] = (
        {} if bench.nanogpt is None or reference is not None else {"nanoGPT": partial(peer_step, bench, shape)}
    )
    reference, rows = reference or 0.0, dict[str, dict[str, str]]()
    makes |= {name: partial(our_step, bench, preset, shape, **told) for name, (preset, told) in ways.items()}
    count = shape.batch_size * shape.block_size
    with torch.device("meta"):
        model = model_on(
            Machine(torch.device("meta"), torch.bfloat16),
            config_of("gpt2", shape).train.model,
            shape.vocab_size,
            plugins(),
        )
    per_token = flops_per_token(model, shape.block_size)
    for name, make in makes.items():
        if (found := bench.measured(make)) is None:
            continue
        seconds, held = found
        reference = reference or seconds
        rows[name] = {
            "ms": f"{seconds * 1e3:.2f} ({reference / seconds:.2f}x)",
            "tokens/s": f"{count / seconds:,.0f}",
            "share of the peak": f"{per_token * count / seconds / peak:.0%}" if peak else "",
            "memory": f"{held:.1f} GiB",
        }
    print_table(shape.name, rows)
    return reference


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(10):
        synchronise(device)
        begin = time.perf_counter()
        target.copy_(source)
        synchronise(device)
        times.append(time.perf_counter() - begin)
    return 2 * size / min(times)


def sampling(bench: Bench, shape: Shape, bytes_per_second: float) -> None:
    """Tokens per second from one token to half a block, recording included; the median of a token; and its share of what reading
    weights, keys and values alone would take."""
    config = config_of("gpt2", shape).train.model
    machine = bench.machine(cuda_graphs=bench.on_gpu)
    model = model_on(machine, config, shape.vocab_size, plugins()).eval()
    weights = 4 * sum(p.numel() for name, p in model.named_parameters() if "wpe" not in name)
    rows: dict[str, dict[str, str]] = {}
    length = shape.block_size // 2
    for batch in (1, 64):
        if time.monotonic() > bench.end:
            break
        prompts = torch.zeros(batch, 1, dtype=torch.long, device=bench.device)

        def write(prompts: torch.Tensor = prompts) -> list[float]:
            times = [time.perf_counter()]
            for chosen in generate(model, prompts, max_new_tokens=length, temperature=0.8, top_k=200):
                chosen.tolist()  # as showing the text does
                times.append(time.perf_counter())
            return times

        write()
        times = write()
        seconds = statistics.median(after - before for before, after in itertools.pairwise(times))
        cached = 4 * 2 * shape.n_layer * shape.n_embd * batch * length / 2
        rows[f"batch {batch}"] = {
            "tokens/s": f"{batch * length / (times[-1] - times[0]):,.0f}",
            "ms of a token": f"{seconds * 1e3:.2f}",
            "share of the bandwidth's limit": f"{(weights + cached) / bytes_per_second / seconds:.0%}",
        }
    print_table(f"sampling, {shape.model_name}, float32", rows)


def long_context(bench: Bench, length: int) -> None:
    """One layer's attention over a long context, forward and backward."""
    rows: dict[str, dict[str, str]] = {}
    for name, scheme in {
        "whole context": Scheme(12, 12, 64),
        "4 heads of keys": Scheme(12, 4, 64),
        "a window of 1,024": Scheme(12, 12, 64, window=min(1024, length // 2)),
    }.items():

        def make(scheme: Scheme = scheme) -> Take:
            qkv = torch.randn(
                1, length, sum(scheme.rows), device=bench.device, dtype=torch.bfloat16, requires_grad=True
            )

            def take() -> None:
                y = attend(qkv, scheme, None, None, "sdpa")
                torch.autograd.grad(y, qkv, y.detach())

            return take

        if (found := bench.measured(make)) is not None:
            operations = 3.5 * 2 * 2 * length**2 * 12 * 64 / 2  # backward is 2.5 of forward, and half is masked
            rows[name] = {
                "ms": f"{found[0] * 1e3:.2f}",
                "TFLOP/s": f"{operations / found[0] / 1e12:.0f}",
                "memory": f"{found[1]:.2f} GiB",
            }
    print_table(f"attention over {length:,} tokens, 12 heads of 64", rows)


def large_ways() -> Ways:
    return {"gpt2": ("gpt2", {"compile": True}), "modern": ("modern", {"compile": True})}


def other_large_ways() -> Ways:
    return {
        "gpt2, all logits at once": ("gpt2", {"compile": True, "whole": True}),
        "gpt2, state in bfloat16": ("gpt2", {"compile": True, "state": "bfloat16"}),
        "gpt2, float8": ("gpt2", {"compile": True, "float8": True}),
        "gpt2, not compiled": ("gpt2", {}),
    }


def small_ways() -> Ways:
    kinds = {
        "as it is": {},
        "recorded": {"cuda_graphs": True},
        "recorded, compiled": {"cuda_graphs": True, "compile": True},
    }
    return {f"{preset}, {kind}": (preset, told) for preset in ("gpt2", "modern") for kind, told in kinds.items()}


def tables(bench: Bench) -> None:
    """All tables, the most important ones first: what is cut off is at the end."""
    peak = peak_or_none(bench.device, torch.bfloat16)
    speed = bandwidth(bench.device, 1 << (20 if bench.tiny else 30))
    what = torch.cuda.get_device_name() if bench.on_gpu else "CPU"
    print(
        f"{what}, torch {torch.__version__}, products {(peak or 0) / 1e12:,.0f} TFLOP/s, copies {speed / 1e12:.2f} TB/s"
    )
    small, toy, large = (TINY, TINY, replace(TINY, vocab_size=300)) if bench.tiny else (SMALL, TOY, LARGE)
    reference = training(bench, large, large_ways(), peak)
    training(bench, toy, small_ways(), peak)
    training(bench, small, small_ways(), peak)
    sampling(bench, large, speed)
    long_context(bench, 64 if bench.tiny else LONG)
    training(bench, large, other_large_ways(), peak, reference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--minutes", type=float, default=4.5, help="no row begins after this time")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try whether it runs")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # each table is there, whatever ends the next one
    tables(Bench(device, options.nanogpt, end, options.tiny))


if __name__ == "__main__":
    main()
