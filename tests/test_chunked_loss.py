"""The loss of large vocabularies in chunks: equal to the plain one, gradients too, and never all logits at once."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.config import Config, replaced
from core.defaults import resolve
from core.models import loss
from core.models.gpt import GPT
from core.models.loss import CutAtHead, chunked_loss, next_token_loss, token_loss

VOCAB = 61


def model_of(preset: str, **more: Any) -> GPT:
    keys = {"train.model.preset": preset, "train.model.n_layer": 1, "train.model.n_head": 2, "train.model.n_embd": 16}
    model = GPT(
        resolve(replaced(Config(), keys | {f"train.model.{key}": value for key, value in more.items()})).train.model,
        VOCAB,
    )
    with torch.no_grad():
        for parameter in model.parameters():  # some begin at zero, where little has a gradient
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return model


def ids(rows: int, size: int, seed: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, size), generator=torch.Generator().manual_seed(seed))


def targets_of(rows: int, size: int) -> Tensor:
    return ids(rows, size, 1).masked_fill(ids(rows, size, 2) % 3 == 0, -1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 3 tokens, for any number of logits."""
    monkeypatch.setattr(loss, "WHOLE", 0)
    monkeypatch.setattr(loss, "LOGITS", 3 * VOCAB)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("preset", "more"), [("modern", {}), ("gpt2", {}), ("llama", {}), ("modern", {"softcap": 2.0, "tie_weights": True})]
)
def test_loss_and_gradients_are_those_of_whole_logits(preset: str, more: dict[str, Any]) -> None:
    model, inputs, targets = model_of(preset, **more), ids(4, 16, 0), targets_of(4, 16)
    found = []
    for compute in (lambda: token_loss(model(inputs), targets), lambda: next_token_loss(model, inputs, targets)):
        model.zero_grad()
        nats, count = compute()
        (0.25 * nats).backward()
        found.append([nats.detach(), count, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert loss.is_large(model, inputs)
    with torch.no_grad():
        torch.testing.assert_close(next_token_loss(model, inputs, targets)[0], found[0][0], rtol=1e-6, atol=0)


@pytest.mark.usefixtures("small")
def test_under_autocast_too() -> None:
    model, inputs, targets = model_of("modern"), ids(4, 16, 0), targets_of(4, 16)
    found = []
    for compute in (lambda: token_loss(model(inputs), targets), lambda: next_token_loss(model, inputs, targets)):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            nats, _ = compute()
        nats.backward()
        found.append([nats.detach(), *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 0.01 * one.norm()  # bfloat16 sums of other lengths


@given(rows=st.integers(1, 3), size=st.integers(1, 7), chunk=st.integers(1, 30), none=st.booleans())
@settings(max_examples=40)
def test_any_size_of_chunk(rows: int, size: int, chunk: int, none: bool) -> None:
    head = nn.Linear(5, VOCAB).double()
    hidden = torch.randn(
        rows, size, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(rows)
    ).requires_grad_()
    targets = torch.full((rows, size), -1) if none else targets_of(rows, size)
    one, count = token_loss(head(hidden), targets)
    other, again = chunked_loss(CutAtHead(hidden, head, tuple(head.parameters())), targets, chunk)
    assert count == again and torch.isclose(one, other, rtol=1e-12)
    wanted, got = (torch.autograd.grad(nats, (hidden, *head.parameters())) for nats in (one, other))
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(wanted, got, strict=True))


def test_a_frozen_head_gets_no_gradient() -> None:
    head = nn.Linear(5, VOCAB).requires_grad_(False)
    hidden = torch.randn(2, 4, 5).requires_grad_()
    nats, _ = chunked_loss(CutAtHead(hidden, head, ()), targets_of(2, 4), 3)
    nats.backward()
    assert hidden.grad is not None and head.weight.grad is None


@pytest.mark.usefixtures("small")
def test_who_computes_something_else_is_not_cut() -> None:
    """n-gram tables, a derived class with a forward of its own, a hook: their own logits count."""

    class Own(GPT):
        def forward(self, *arguments: Any) -> Tensor:
            return 2 * super().forward(*arguments)

    inputs, targets = ids(2, 16, 0), targets_of(2, 16)
    tables, hooked = model_of("modern", ngram=2), model_of("modern")
    own = Own(hooked.config, VOCAB)
    hooked.register_forward_hook(lambda _, __, logits: 2 * logits)
    for model in (tables, own, hooked):
        assert torch.equal(next_token_loss(model, inputs, targets)[0], token_loss(model(inputs), targets)[0])


def test_small_vocabularies_are_computed_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("modern")
    monkeypatch.setattr(GPT, "cut_at_head", None)
    assert not loss.is_large(model, ids(4, 16, 0)) and next_token_loss(model, ids(4, 16, 0), targets_of(4, 16))[1] > 0


PEAK = """
import sys, torch
from core.config import Config, replaced
from core.defaults import resolve
from core.models import loss
from core.models.gpt import GPT
from core.training import memory

if sys.argv[1] == "whole":
    loss.WHOLE = 1 << 62
config = {"train.model.n_layer": 1, "train.model.n_head": 1, "train.model.n_embd": 8, "train.model.block_size": 256}
model = GPT(resolve(replaced(Config(), config)).train.model, 150_000)
inputs = torch.randint(0, 150_000, (2, 256))
with memory.measuring(torch.device("cpu")) as training:
    loss.next_token_loss(model, inputs, inputs)[0].backward()
with torch.inference_mode(), memory.measuring(torch.device("cpu")) as evaluation:
    loss.next_token_loss(model, inputs, inputs)
print(training.rise, evaluation.rise)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_a_vocabulary_of_150_000_needs_no_memory_for_all_logits() -> None:
    """512 tokens: all logits are 307 MB, and several such tensors live at once. A chunk has at most 67 MB."""
    peaks = {}
    for form in ("chunks", "whole"):
        done = subprocess.run([sys.executable, "-c", PEAK, form], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks[form] = [int(number) for number in done.stdout.split()]
    assert max(peaks["chunks"]) < 450e6 and min(peaks["whole"]) > 650e6, peaks
