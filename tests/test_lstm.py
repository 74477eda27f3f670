"""core.models.lstm: the LSTM computes the gate equations, learns, and remembers through its cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.config import Config
from core.defaults import resolve
from core.errors import UserError
from core.models.build import parameter_count
from core.models.loss import token_loss
from core.models.lstm import LSTM
from core.sampling.generate import generate

VOCAB = 9


def build(*, vocab_size: int = VOCAB, **keys: Any) -> LSTM:
    model_keys = {"kind": "lstm", "n_layer": 2, "n_embd": 12, "block_size": 8, **keys}
    config = Config.model_validate({"train": {"model": model_keys}})
    torch.manual_seed(1)
    model = LSTM(resolve(config).train.model, vocab_size, **resolve(config).train.model.params)
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


PARAMS: list[dict[str, Any]] = [{}, {"hidden": 20}, {"single_bias": True}, {"head_bias": True, "hidden": 5}]


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("keys", [{"tie_weights": False}, {"tie_weights": True}, {"dropout": 0.3}], ids=str)
def test_cache_remembers(keys: dict[str, Any], params: dict[str, Any]) -> None:
    if keys.get("tie_weights") and "hidden" in params:
        return
    model, tokens = build(**keys, params=params), tokens_of()
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


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_sampling_with_a_cache_is_recomputation(params: dict[str, Any]) -> None:
    model, prompts = build(params=params).double(), tokens_of(length=5)
    cached, whole = (
        torch.stack(list(generate(model, prompts, max_new_tokens=20, temperature=1.0, use_cache=use)), dim=1)
        for use in (True, False)
    )
    assert torch.equal(cached, whole)


def test_the_study_of_modular_addition_has_as_many_parameters() -> None:
    """IFT6135, p = 31: 36 ids (31 numbers, an operator, =, start, end, padding), 2 layers of 128; embeddings not counted."""
    lstm = build(n_embd=128, tie_weights=False, params={"single_bias": True, "head_bias": True}, vocab_size=36)
    assert parameter_count(lstm, embeddings=False) == 267_812
    assert parameter_count(lstm) == 267_812 + 36 * 128
    assert parameter_count(build(n_embd=128, tie_weights=True), embeddings=False) == 2 * 4 * (2 * 128 * 128 + 2 * 128)


def test_a_single_bias_is_the_sum_of_two() -> None:
    two, one = build(n_layer=2), build(n_layer=2, params={"single_bias": True})
    names = {name for name, _ in one.named_parameters()}
    assert {name for name, _ in two.named_parameters()} - names == {"lstm.bias_hh_l0", "lstm.bias_hh_l1"}
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            parameter.copy_(two.get_parameter(name))
        for layer in ("l0", "l1"):
            moved = two.get_parameter(f"lstm.bias_hh_{layer}").normal_()
            one.get_parameter(f"lstm.bias_ih_{layer}").add_(moved)
    torch.testing.assert_close(one(tokens_of()), two(tokens_of()))
    torch.testing.assert_close(one.double()(tokens_of()), two.double()(tokens_of()))
    assert set(one.state_dict()) == names | {"lm_head.weight"}


@pytest.mark.parametrize(
    ("keys", "message", "remedy"),
    [
        ({"params": {"hidden": 0}}, "a layer needs at least one channel", "Raise it, or leave it out."),
        (
            {"params": {"hidden": 20}, "tie_weights": True},
            "a tied head takes the width of the embedding, n_embd = 12",
            "Leave it out, or set train.model.tie_weights = false.",
        ),
    ],
)
def test_widths_that_cannot_be(keys: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(UserError) as error:
        build(**keys)
    assert (error.value.message, error.value.remedy) == (message, remedy)
    assert error.value.place == f"train.model.params.hidden = {keys['params']['hidden']}"
