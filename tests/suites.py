"""What the tests of suites share: a bundle in a folder, small models with random weights, and obvious ways to measure them."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core.encoders.base import Encoder
from core.encoders.bytes import BytesEncoder
from core.evaluation.suites.task import Item, Task
from core.models.build import build_model
from core.toml import Settings, check
from core.training.machine import Machine

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT.parent / "shared" / "data" / "eval_bundle"
CPU = Machine(torch.device("cpu"), torch.float32)
HEAD = ("Eval Task", "Task Category", "Task Type", "#shots", "Random baseline")
CAPITALS = [{"query": f"{place}?", "choices": ["yes", "no"], "gold": gold} for place, gold in (("a", 0), ("b", 1), ("c", 0), ("d", 1))]  # fmt: skip
PRONOUNS = [{"context_options": ["he ran so he", "he ran so she"], "continuation": "won.", "gold": 0}] * 3
SUMS = [{"context": f"{a}+{a}=", "continuation": f"{2 * a}"} for a in range(5)]
TASKS: Mapping[str, tuple[str, int, float, Sequence[Mapping[str, Any]]]] = {
    "capitals": ("multiple choice", 2, 50, CAPITALS),
    "pronouns": ("schema", 0, 50, PRONOUNS),
    "sums": ("language modeling", 1, 0, SUMS),
}


def write_bundle(folder: Path, tasks: Mapping[str, Any] = TASKS) -> Path:
    """A folder in the form of DCLM's bundle. tasks: name -> kind, shots, baseline in percent, items."""
    (folder / "eval_data" / "all").mkdir(parents=True)
    with (folder / "eval_meta_data.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(HEAD)
        for name, (kind, shots, baseline, items) in tasks.items():
            table.writerow([name, "a, b", kind, shots, baseline])
            lines = "".join(f"{json.dumps(item)}\n" for item in items)
            (folder / "eval_data" / "all" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def random_model(
    seed: int, *, kind: str = "gpt", block_size: int = 24, **changes: Any
) -> tuple[torch.nn.Module, Encoder]:
    """A model whose weights are random everywhere, and an encoder of bytes."""
    encoder = BytesEncoder.fit([], vocab_size=0)
    model = {"kind": kind, "n_layer": 2, "n_embd": 16, "block_size": block_size} | changes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = build_model(check(Settings({"train": {"model": model}})).train.model, encoder.vocab_size).eval()
        with torch.no_grad():
            for parameter in built.parameters():  # some begin with zeros
                parameter.add_(0.2 * torch.randn_like(parameter))
    return built, encoder


def slow_losses(
    model: torch.nn.Module, prompt: Sequence[int], continuation: Sequence[int]
) -> tuple[list[float], list[bool]]:
    """The loss of each token of a continuation, and whether it is the likeliest one: one token after the other, one row."""
    size = int(model.block_size)  # type: ignore[arg-type]
    ids = [*prompt, *continuation][-(size + 1) :]
    nats, greedy = [], []
    for place in range(max(len(ids) - len(continuation), 1), len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:place]]))[0, -1].double()
        nats.append(-logits.log_softmax(0)[ids[place]].item())
        greedy.append(int(logits.argmax()) == ids[place])
    return nats, greedy


def slow_answer(model: torch.nn.Module, encoder: Encoder, options: Sequence[tuple[str, str]]) -> tuple[int, bool]:
    """The option with the lowest mean loss, and whether the first one's continuation is what greedy decoding writes."""
    means, written = [], []
    for prompt, continuation in options:
        ids = encoder.encode(" " + continuation).tolist()
        nats, greedy = slow_losses(model, encoder.encode(prompt).tolist(), ids)
        means.append(math.fsum(nats) / len(nats))
        written.append(len(nats) == len(ids) and all(greedy))
    return means.index(min(means)), written[0]


def random_task(seed: int, kind: str, *, items: int = 12, shots: int = 2) -> Task:
    """Random letters: contexts of up to 12, continuations of up to 5."""
    rng = random.Random(seed)

    def text(most: int) -> str:
        return "".join(rng.choices("abcde", k=rng.randint(1, most)))

    def options() -> tuple[tuple[str, str], ...]:
        if kind == "multiple choice":
            context = text(12)
            return tuple((context, text(5)) for _ in range(rng.randint(2, 4)))
        if kind == "schema":
            continuation = text(5)
            return tuple((text(12), continuation) for _ in range(2))
        return ((text(12), text(1)),)

    made = [options() for _ in range(items)]
    return Task("random", kind, [Item(each, rng.randrange(len(each))) for each in made], shots, 0.1)
