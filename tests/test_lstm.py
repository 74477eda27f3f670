"""core.models.lstm: the LSTM computes the gate equations, learns, and remembers through its cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.config import Config
from core.defaults import resolve
from core.models.loss import token_loss
from core.models.lstm import LSTM

VOCAB = 9


def build(**keys: Any) -> LSTM:
    model_keys = {"kind": "lstm", "n_layer": 2, "n_embd": 12, "block_size": 8, **keys}
    config = Config.model_validate({"train": {"model": model_keys}})
    torch.manual_seed(1)
    model = LSTM(resolve(config).train.model, VOCAB)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.3)
    return model.eval()


def tokens_of(length: int = 8, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB, (3, length), generator=torch.Generator().manual_seed(seed))


def test_one_layer_computes_the_gates() -> None:
    model = build(n_layer=1, softcap=0.0)
    weights = dict(model.lstm.named_parameters())
    h = c = torch.zeros(3, 12)
    logits = []
    for tokens in tokens_of().unbind(1):
        x = model.wte.weight[tokens]
        gates = (
            x @ weights["weight_ih_l0"].T
            + weights["bias_ih_l0"]
            + h @ weights["weight_hh_l0"].T
            + weights["bias_hh_l0"]
        )
        i, f, g, o = gates.chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        logits.append(h @ model.lm_head.weight.T)
    torch.testing.assert_close(model(tokens_of()), torch.stack(logits, dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "keys", [{}, {"dropout": 0.2}, {"n_layer": 1, "dropout": 0.2}, {"tie_weights": True}, {"softcap": 0.0}], ids=str
)
def test_learns_and_looks_back_only(keys: dict[str, Any]) -> None:
    model, tokens = build(**keys).train(), tokens_of()
    nats, count = token_loss(model(tokens), tokens_of(seed=1))
    (nats / count).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % VOCAB
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:])


def test_cache_remembers() -> None:
    model, tokens = build(), tokens_of()
    cache = model.new_cache(3)
    parts = [model(piece, cache) for piece in tokens.split([3, 1, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=0, atol=1e-6)
    assert cache.length == 8


def test_forget_gates_start_open() -> None:
    model = build()
    for layer in ("l0", "l1"):
        bias = getattr(model.lstm, f"bias_ih_{layer}")
        assert bias[12:24].eq(1).all() and bias[:12].eq(0).all() and bias[24:].eq(0).all()


def test_works_in_bfloat16() -> None:
    model, tokens = build(), tokens_of()
    exact, _ = token_loss(model(tokens), tokens_of(seed=1))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
    nats, _ = token_loss(logits, tokens_of(seed=1))
    nats.backward()
    assert nats.item() == pytest.approx(exact.item(), rel=0.02)
