"""Tokens per second of `serve` by the number of clients at once, over HTTP, each answer streamed.

python -m tests.benchmarks.serving [--tokens 200] [--repeats 3]

Beside the server's figures stands the engine alone, and `generate` with one text, which has nothing to share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from core import open_experiment
from core.lab.model import LoadedModel
from core.sampling.engine import Continuation, Engine
from core.sampling.generate import generate
from tests.benchmarks.measure import print_table

CLIENTS = (1, 2, 4, 8, 16)
# Running text in 1,500 words of an invented language: no end token, so that every answer has the length that is asked for.
PREPARE = """
def documents(rng):
    words = ["".join(rng.choices("aeioubdgklmnprst", k=rng.randint(2, 7))) for _ in range(1500)]
    for _ in range(200):
        yield " ".join(rng.choices(words, k=200))
"""
CONFIG = """[prepare]
encoder = "bpe"
vocab_size = 1024
[train.model]
n_layer = {n_layer}
n_head = 4
n_embd = {n_embd}
block_size = 512
[train.schedule]
max_iters = 20
[train.data]
batch_size = 4
"""


@contextmanager
def server(lab: Path, concurrency: int) -> Iterator[int]:
    """A server of the experiment `text` in a process of its own. Gives its port."""
    command = [sys.executable, "-m", "core.cli", "serve", "text", "--port", "0", "--concurrency", str(concurrency)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=lab, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = next(int(found[1]) for line in process.stdout if (found := re.search(r"http://127.0.0.1:(\d+)/", line)))
        try:
            yield port
        finally:
            process.terminate()


async def ask(port: int, prompt: str, tokens: int) -> int:
    """Ask for a streamed continuation. Returns how many tokens it had."""
    body = {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + data)
    answer = await reader.read()
    writer.close()
    return int(re.findall(rb'"completion_tokens": (\d+)', answer)[-1])


def rate(port: int, clients: int, tokens: int) -> float:
    """Tokens per second of all clients together."""

    async def everybody() -> int:
        return sum(await asyncio.gather(*(ask(port, "na" * (1 + number % 8), tokens) for number in range(clients))))

    begin = time.perf_counter()
    written = asyncio.run(everybody())
    return written / (time.perf_counter() - begin)


def engine_rate(model: LoadedModel, rows: int, tokens: int) -> float:
    """Tokens per second of the engine alone."""
    with model.trained.machine.computing():
        engine = Engine(model.module, 16)
        for number in range(rows):
            engine.join(Continuation(tuple(range(3, 6 + number % 8)), tokens, temperature=0))
        begin = time.perf_counter()
        for _ in range(tokens):
            engine.step()
        return rows * tokens / (time.perf_counter() - begin)


def generate_rate(model: LoadedModel, tokens: int) -> float:
    """Tokens per second of `generate` with one text."""
    with model.trained.machine.computing():
        begin = time.perf_counter()
        for chosen in generate(model.module, torch.tensor([[3, 4, 5]]), max_new_tokens=tokens, temperature=0):
            chosen.tolist()
        return tokens / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for n_layer, n_embd in ((4, 128), (4, 192), (6, 384)):
        with tempfile.TemporaryDirectory() as folder:
            lab = Path(folder)
            experiment = lab / "experiments" / "text"
            experiment.mkdir(parents=True)
            (experiment / "prepare.py").write_text(PREPARE)
            (experiment / "config.toml").write_text(CONFIG.format(n_layer=n_layer, n_embd=n_embd))
            run = open_experiment(str(experiment)).train()
            model = run.load()
            table = {"serve": {}, "engine": {}, "generate": {}}
            table["generate"]["1"] = f"{generate_rate(model, options.tokens):,.0f}"
            with server(lab, max(CLIENTS)) as port:
                rate(port, 2, options.tokens)
                found = {
                    clients: statistics.median(rate(port, clients, options.tokens) for _ in range(options.repeats))
                    for clients in CLIENTS
                }
            for clients in CLIENTS:
                table["serve"][str(clients)] = f"{found[clients]:,.0f} ({found[clients] / found[1]:.1f}x)"
                table["engine"][str(clients)] = f"{engine_rate(model, clients, options.tokens):,.0f}"
            print_table(f"{n_layer} layers of {n_embd}, tokens/s by clients", table)


if __name__ == "__main__":
    main()
