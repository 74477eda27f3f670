"""The engine: completions that come and go have the tokens that each would have alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.config import Config
from core.defaults import resolve
from core.models.gpt import GPT
from core.models.lstm import LSTM
from core.sampling.engine import Continuation, Engine
from core.sampling.generate import generate
from core.sampling.rows import Apart, Together, rows_of

VOCAB = 60
KINDS: dict[str, dict[str, Any]] = {
    "modern": {"preset": "modern"},
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama"},
    "alibi": {"position": "alibi"},
    "windows and n-grams": {"window": 6, "window_pattern": "SL", "ngram": 3, "smear": True},
    "shared keys": {"n_kv_head": 1, "position": "alibi", "window": 5, "window_pattern": "S"},
    "portable": {"preset": "portable", "n_kv_head": 2, "head_width": 12, "qkv_bias": True},
    "lstm": {"kind": "lstm"},
}


def model_of(kind: str, block_size: int = 24) -> Any:
    """A model whose logits differ from token to token."""
    torch.manual_seed(1)
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": block_size} | KINDS[kind]
    config = resolve(Config.model_validate({"train": {"model": shape}})).train.model
    model = LSTM(config, VOCAB) if kind == "lstm" else GPT(config, VOCAB)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.5 * (parameter.dim() == 1), std=0.3)
    return model.eval()


def alone(model: nn.Module, asked: Continuation) -> list[int]:
    """What `generate` gives."""
    steps = generate(
        model,
        torch.tensor([asked.ids]),
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        seeds=[asked.seed],
    )
    return [int(token) for token in steps]


def together(model: nn.Module, wanted: list[Continuation], rows: int) -> list[list[int]]:
    """All of them through one engine. They join as there is room, and leave when they are complete."""
    engine, waiting = Engine(model, rows), list(enumerate(wanted))
    found: dict[int, list[int]] = {}
    numbers: dict[int, int] = {}
    while waiting or engine.running:
        while waiting and engine.room:
            number, asked = waiting.pop(0)
            numbers[id(engine.join(asked))] = number
        for running in engine.step():
            if running.written == running.asked.max_new_tokens:
                engine.leave(running)
                found[numbers[id(running)]] = running.new
    return [found[number] for number in range(len(wanted))]


def wanted_of(number: int, block_size: int = 24) -> list[Continuation]:
    """Prompts of all lengths, from one token to more than the context; some go past it. Greedy and drawn."""
    rng = random.Random(number)
    return [
        Continuation(
            tuple(rng.choices(range(VOCAB), k=rng.choice((1, 2, 3, 8, 20, block_size, block_size + 5)))),
            rng.randint(1, 2 * block_size),
            temperature=rng.choice((0.0, 0.0, 0.7, 1.0)),
            top_k=rng.choice((0, 5)),
            top_p=rng.choice((1.0, 0.8)),
            seed=rng.randrange(1000),
        )
        for _ in range(12)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_that_each_would_have_alone(kind: str) -> None:
    model, wanted = model_of(kind), wanted_of(3)
    assert isinstance(rows_of(model, 5), Together)
    assert together(model, wanted, 5) == [alone(model, asked) for asked in wanted]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lstm"])
def test_the_logits_of_a_row_are_the_same_bits_whoever_else_is_there(kind: str) -> None:
    """On one CPU thread. See core/models/slots.py."""
    model, rng = model_of(kind, 96), random.Random(5)
    prompts = [rng.choices(range(VOCAB), k=rng.randint(1, 60)) for _ in range(9)]

    def logits(company: list[list[int]]) -> Tensor:
        rows = rows_of(model, 16)
        for ids in company:
            rows.begin(ids[:-1])
        return torch.stack([rows.step([ids[-1] for ids in company])[0] for _ in range(20)])

    with torch.inference_mode():
        lonely = logits(prompts[:1])
        for size in (2, 3, 5, 9):
            assert torch.equal(logits(prompts[:size]), lonely)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_one_length_are_read_together_with_the_bits_of_one_by_one(kind: str) -> None:
    model, rng, reads = model_of(kind, 96), random.Random(7), list[int]()
    prompts = [rng.choices(range(VOCAB), k=size) for size in (1, 2, 3, 3, 4, 4, 5, 9, 9, 9, 33, 33, 60)]
    wanted = [Continuation(tuple(ids), 12, seed=seed) for seed, ids in enumerate([*prompts, prompts[8], prompts[2]])]
    single = Engine(model, 16)
    for asked in wanted:
        single.join(asked)
    if kind != "lstm":
        read = model.read
        model.read = lambda tokens, cache: (reads.append(len(tokens)), read(tokens, cache))[1]
    together = Engine(model, 16)
    together.join_all(wanted)
    if kind != "lstm":
        # Without the last token: three of 8, two of 32. Two of 2 and two of 3 tokens are too short for that; 1, 4 and 59 are alone.
        assert sorted(reads) == [1, 1, 1, 1, 1, 1, 1, 2, 3]
    with torch.inference_mode():
        for step in range(12):
            next_ids = [(number + 7 * step) % VOCAB for number in range(len(wanted))]
            assert torch.equal(together.rows.step(next_ids), single.rows.step(next_ids))


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    model = model_of("modern")
    rows = rows_of(model, 4)
    with torch.inference_mode():
        for ids in ([1, 2, 3], [4, 5], [6]):
            rows.begin(ids)
        clean = rows.step([7, 8, 9])
        assert isinstance(rows, Together)
        view = rows.slots.views[1]
        view.memory[:, :, :, : view.length].fill_(torch.nan)
        rows.end(1)
        rows.begin([4, 5])
        assert rows.step([7, 9, 8]).isfinite().all() and clean.isfinite().all()


class Counter(nn.Module):
    """A model without a cache: the next id is the sum of all so far."""

    block_size = 10

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens.cumsum(1) % VOCAB, VOCAB).float()


def test_a_model_of_ones_own_is_asked_row_by_row() -> None:
    model, wanted = Counter(), [Continuation((number, 1), 9, temperature=0) for number in range(5)]
    assert isinstance(rows_of(model, 3), Apart)
    assert together(model, wanted, 3) == [alone(model, asked) for asked in wanted]


def test_blocks_that_were_changed_are_called_row_by_row() -> None:
    model, wanted = model_of("modern"), wanted_of(4)[:6]
    model.blocks[0].attn.c_proj = nn.Sequential(model.blocks[0].attn.c_proj)
    model.blocks[1].__class__ = type("Changed", (type(model.blocks[1]),), {})
    assert isinstance(rows_of(model, 3), Apart)
    assert together(model, wanted, 3) == [alone(model, asked) for asked in wanted]


def test_no_more_rows_than_there_is_room_for() -> None:
    engine = Engine(model_of("modern"), 1)
    assert engine.step() == []
    engine.join(Continuation((1,), 3))
    with pytest.raises(ValueError, match="all 1 rows are taken"):
        engine.join(Continuation((1,), 3))
