"""Ours and nanoGPT side by side: a checkout of nanoGPT goes in; speeds, ratios and, with a text, learning times come out.

    python tests/benchmarks/against_nanogpt.py --nanogpt PATH [--text FILE] [--quick] [--threads N] [--seeds 11,12,13]

Each side lives in a process of its own, set up as its users have it: ours starts as the command line does (it sets how
threads wait and how memory is kept, which one process could not have both ways), nanoGPT's imports torch and its
model.py, in float32, as its train.py does on a CPU. The two take turns of about half a second, and only the one whose
turn it is works. A ratio is that of two turns next to each other, so what slows the machine slows both; stated are the
median of the ratios and their range. The order within a pair alternates. "compiled" is ours with torch.compile, as long
runs use it where it pays, beside nanoGPT as its Readme trains on a CPU, which is not compiled.

"learning" trains nanoGPT's CPU setting, and then ours with RECIPE, on the characters of the text. Both sides' losses
are those of our evaluation over the whole validation file, each in the precision that it was trained in; both sides' seconds are those of steps alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TURN = 0.5  # seconds
PAIRS = 7
Call = Callable[[], Any]

# Ours in the section "learning": what is laid over the defaults. As many parameters as nanoGPT's model; rates for a run
# of a hundred steps, chosen on the last tenth of the training text (docs/LOG.md).
RECIPE = [
    "train.model.n_layer=4", "train.model.n_head=2", "train.model.n_embd=128", "train.model.block_size=64",
    "train.data.batch_size=24", "train.optim.learning_rate=0.03", "train.optim.head_lr=0.02",
    "train.schedule.max_iters=100", "train.runtime.eval_interval=100", "train.runtime.checkpoint_interval=100",
]  # fmt: skip
SEEDS = (11, 12, 13, 14, 15)


@dataclass(frozen=True)
class Case:
    """One measure of both sides. rows: of a batch, or texts written at once; vocab_size as nanoGPT pads it."""

    kind: str  # step, compiled (ours alone, as its long runs do) or sample
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    rows: int
    vocab_size: int = 65

    @property
    def name(self) -> str:
        batch = str(self.rows) if self.kind == "sample" else f"{self.rows} x {self.block_size}"
        return f"{self.n_layer} x {self.n_embd}, batch {batch}"

    @property
    def tokens(self) -> int:
        """Tokens of one call: those of a batch, or those that are written within one block."""
        return self.rows * (self.block_size - (self.kind == "sample"))


SMALL, MIDDLE = (4, 4, 128, 64), (6, 6, 384, 256)
QUICK = [
    Case("step", *SMALL, 12),
    Case("step", *SMALL, 64),
    Case("compiled", *SMALL, 12),
    *(Case("sample", *SMALL, rows) for rows in (1, 10, 64)),
]
REST = [
    Case("step", *MIDDLE, 16), *(Case("sample", *MIDDLE, rows) for rows in (1, 10)),
    *(Case(kind, 12, 12, 768, 1024, 1, 50304) for kind in ("step", "compiled")),
]  # fmt: skip


def our_call(case: Case, threads: int) -> Call:
    """Ours with preset gpt2, the same architecture, in the precision that it chooses for itself."""
    import torch

    from core.bench.training import Shape, config_of, random_batch
    from core.models.build import build_model
    from core.plugins.manager import plugins
    from core.sampling.generate import generate
    from core.training.machine import choose_machine
    from core.training.objectives import tokens
    from core.training.step import Step

    machine = choose_machine("cpu", "auto", case.kind == "compiled", threads or "auto")
    shape = Shape(case.n_layer, case.n_head, case.n_embd, case.block_size, case.rows, case.vocab_size)
    config = config_of("gpt2", shape).train
    torch.manual_seed(0)
    model = build_model(config.model, case.vocab_size)
    if case.kind != "sample":
        optimizer = plugins().get("optimizers", str(config.optim.name), "")(model, config.optim)
        inputs, targets = random_batch(shape)
        step = Step(model, optimizer, machine, config.optim.grad_clip, tokens)
        return lambda: step(inputs, targets)
    start = torch.zeros(case.rows, 1, dtype=torch.long)
    return lambda: list(generate(model, start, max_new_tokens=case.block_size - 1, temperature=1.0))


def their_model(case: Case) -> Any:
    """nanoGPT's GPT, as its train.py makes it for a CPU: no dropout, no biases."""
    from model import GPT, GPTConfig  # of the checkout, whose folder is first in sys.path

    return GPT(
        GPTConfig(
            block_size=case.block_size, vocab_size=case.vocab_size, n_layer=case.n_layer, n_head=case.n_head,
            n_embd=case.n_embd, dropout=0.0, bias=False,
        )
    )  # fmt: skip


def their_step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    """One optimizer step of nanoGPT. Returns the loss."""
    import torch

    _, loss = model(x, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def their_call(case: Case) -> Call:
    """nanoGPT's step, or its own `generate`."""
    import torch

    torch.manual_seed(0)
    model = their_model(case)
    if case.kind != "sample":
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
        x, y = torch.randint(case.vocab_size, (2, case.rows, case.block_size))
        return lambda: their_step(model, optimizer, x, y)
    model.eval()
    start = torch.zeros(case.rows, 1, dtype=torch.long)
    return lambda: model.generate(start, case.block_size - 1, temperature=1.0, top_k=None)


def their_learning(dataset: Path, steps: int, report_every: int) -> dict[str, Any]:
    """nanoGPT's CPU setting on a dataset: training seconds, loss on the whole validation file, parameters, seconds by part."""
    import numpy as np
    import torch

    train = np.fromfile(dataset / "train.bin", np.uint16).astype(np.int64)
    vocab_size = json.loads((dataset / "dataset.json").read_text())["vocab_size"]
    case, warmup, peak, lowest = Case("step", *SMALL, 12, vocab_size), 100, 1e-3, 1e-4
    torch.manual_seed(1337)
    model = their_model(case)
    optimizer = model.configure_optimizers(0.1, peak, (0.9, 0.99), "cpu")
    window, parts = torch.arange(case.block_size + 1), []
    tokens = torch.from_numpy(train)
    begin = last = time.perf_counter()
    for step in range(steps):
        if step < warmup:
            rate = peak * (step + 1) / (warmup + 1)
        else:
            rate = lowest + (peak - lowest) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        drawn = tokens[torch.randint(len(tokens) - case.block_size, (case.rows, 1)) + window]  # (rows, block_size + 1)
        loss = their_step(model, optimizer, drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous())
        if (step + 1) % report_every == 0:
            now = time.perf_counter()
            parts.append(now - last)
            last = now
            print(
                f"  nanoGPT, step {step + 1}: loss {loss.item():.4f}, {now - begin:.1f} s", file=sys.stderr, flush=True
            )
    seconds = time.perf_counter() - begin
    model.eval()
    return {
        "seconds": seconds,
        "val_loss": whole_file_loss(
            lambda ids: model(ids, ids)[0], dataset
        ),  # without targets it gives the last place only
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "parts": parts,
    }


def whole_file_loss(logits_of: Callable[[Any], Any], dataset: Path) -> float:
    """Nats per token by the evaluation of this package, in float32: consecutive windows, every token but the first once."""
    import torch

    from core.config import Data
    from core.data.batches import validation_rows
    from core.data.dataset import load_dataset
    from core.evaluation.loss import mean_loss
    from core.training.machine import Machine

    data = Data(batch_size=64, block_size=SMALL[3], layout="stream")
    machine = Machine(torch.device("cpu"), torch.float32)
    return mean_loss(logits_of, validation_rows(load_dataset(dataset).val, data), machine)


def work(side: str, threads: int) -> None:
    """A side's process: orders come in on stdin, one JSON object a line, answers go out on stdout."""
    answers, call, stack = sys.stdout, None, contextlib.ExitStack()
    if side == "ours":
        import core.cli.main  # noqa: F401  # sets, before torch is imported, how threads wait
        from core import process
        from core.training.machine import choose_machine

        stack.enter_context(process.owned())
        stack.enter_context(choose_machine("cpu", "auto", False, threads or "auto").computing())
    elif threads:
        import torch

        torch.set_num_threads(threads)
    with stack, contextlib.redirect_stdout(io.StringIO()):  # nanoGPT prints while it builds a model
        for line in sys.stdin:
            order = json.loads(line)
            if "make" in order:
                call = None  # room for the next one
                case = Case(**order["make"])
                call = our_call(case, threads) if side == "ours" else their_call(case)
                call()
                answer: Any = seconds_of(call, 2)
            elif "learn" in order:
                answer = their_learning(Path(order["learn"]), order["steps"], order["report_every"])
            else:
                assert call is not None
                answer = seconds_of(call, order["calls"])
            print(json.dumps(answer), file=answers, flush=True)


def seconds_of(call: Call, calls: int) -> float:
    """Seconds of one of several calls in a row."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


class Side:
    """A side's process, which is given orders."""

    def __init__(self, side: str, nanogpt: Path, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", side, "--nanogpt", str(nanogpt), "--threads", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, **order: Any) -> Any:
        """Give an order and wait for the answer. Raises RuntimeError where the process ends instead; it has said why."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise RuntimeError("a side's process has ended; what it said stands above")
        return json.loads(line)

    def end(self) -> None:
        """Let the process end by itself."""
        self.process.communicate()


@contextlib.contextmanager
def both_sides(nanogpt: Path, threads: int) -> Iterator[tuple[Side, Side]]:
    """The processes of ours and of theirs."""
    ours, theirs = Side("ours", nanogpt, threads), Side("theirs", nanogpt, threads)
    try:
        yield ours, theirs
    finally:
        ours.end()
        theirs.end()


def compare(case: Case, ours: Side, theirs: Side, pairs: int = PAIRS, turn: float = TURN) -> list[tuple[float, float]]:
    """Seconds of one call of ours and of theirs, pair by pair. A turn is as many calls as fit into it, one at least."""
    sides = (ours, theirs)
    estimates = [side.ask(make=asdict(case)) for side in sides]
    calls = [max(1, round(turn / estimate)) for estimate in estimates]
    results = []
    for number in range(pairs if max(estimates) < 10 * turn else min(pairs, 3)):
        pair = [0.0, 0.0]
        for index in (0, 1) if number % 2 else (1, 0):
            pair[index] = sides[index].ask(calls=calls[index])
            time.sleep(0.05)  # until its threads have stopped waiting for more
        results.append((pair[0], pair[1]))
    return results


def spread(values: list[float], form: str = ".2f") -> str:
    """`2.31 (2.20..2.45)`: median and range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def show(case: Case, pairs: list[tuple[float, float]]) -> None:
    """One line: tokens per second of both sides, and the ratio."""
    speeds = [statistics.median(case.tokens / seconds for seconds in side) for side in zip(*pairs, strict=True)]
    ratio = spread([theirs / ours for ours, theirs in pairs])
    title = {"step": "training", "compiled": "compiled", "sample": "sampling"}[case.kind]
    print(f"{title}  {case.name:<28} {speeds[0]:>10,.0f} {speeds[1]:>10,.0f}   {ratio}", flush=True)


def command(folder: Path, *arguments: str) -> None:
    """A command of this package in a folder. Raises CalledProcessError; what went wrong stands on stderr."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-m", "core.cli", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip


def learning(text: Path, nanogpt: Path, threads: int, seeds: list[int], steps: int = 2000) -> None:
    """Prints training seconds and losses: nanoGPT's, then those of ours for each seed."""
    with tempfile.TemporaryDirectory() as name:
        experiment = Path(name) / "experiments" / "learn"
        experiment.mkdir(parents=True)
        (experiment / "config.toml").write_text(
            f"[prepare]\ninput = {json.dumps(str(text.resolve()))}\n[train.runtime]\nthreads = {json.dumps(threads or 'auto')}\n"
        )
        command(Path(name), "prepare", "learn")
        theirs = Side("theirs", nanogpt, threads)
        try:
            peer = theirs.ask(
                learn=str(experiment / "datasets" / "basic"), steps=steps, report_every=max(1, steps // 5)
            )
        finally:
            theirs.end()
        print(
            f"\nlearning  nanoGPT: {peer['parameters']:,} parameters, {steps} steps, {peer['seconds']:.1f} s, "
            f"val loss {peer['val_loss']:.4f}; seconds of a fifth: {spread(peer['parts'], '.1f')}",
            flush=True,
        )
        overrides = [part for setting in RECIPE for part in ("-s", setting)]
        ratios = []
        for seed in seeds:
            seeded = ("--run", f"seed{seed}", "-s", f"train.runtime.seed={seed}", *overrides)
            command(Path(name), "train", "learn", *seeded)
            ours = json.loads((experiment / "out" / f"seed{seed}" / "summary.json").read_text())
            reached = ours["final_val_loss"] <= peer["val_loss"]
            ratio = peer["seconds"] / ours["train_seconds"]
            ratios += [ratio] if reached else []
            print(
                f"learning  ours, seed {seed}: {ours['parameters']:,} parameters, {ours['steps']} steps, {ours['train_seconds']:.2f} s "
                f"in {ours['dtype']}, val loss {ours['final_val_loss']:.4f}: "
                + (f"{ratio:.1f}x sooner" if reached else "not as low as nanoGPT's"),
                flush=True,
            )
        if ratios:
            print(f"learning  {len(ratios)} of {len(seeds)} seeds reach it; times sooner: {spread(ratios, '.1f')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of https://github.com/karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, help="text file to learn from, such as Tiny Shakespeare")
    parser.add_argument("--quick", action="store_true", help="the small model's speeds alone")
    parser.add_argument("--threads", type=int, default=0, help="threads of each side; 0: torch's choice")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds of ours in the section learning")
    parser.add_argument("--worker", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        sys.path.insert(0, str(ROOT if options.worker == "ours" else options.nanogpt))
        work(options.worker, options.threads)
        return
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.5:
        # torch's threads wait by spinning; on a busy machine that alone can make nanoGPT ten times slower.
        print(f"the machine is busy (load {load:.1f}): do not trust these figures", file=sys.stderr)
    print(f"{'':9} {'tokens/s':<28} {'ours':>10} {'nanoGPT':>10}   ratio: median (range)")
    with both_sides(options.nanogpt, options.threads) as (ours, theirs):
        for case in QUICK if options.quick else QUICK + REST:
            show(case, compare(case, ours, theirs))
    if options.text and not options.quick:
        learning(options.text, options.nanogpt, options.threads, [int(seed) for seed in options.seeds.split(",")])


if __name__ == "__main__":
    main()
