"""The loss in chunks that a compiled step takes: the plain one's value and gradients, in one graph that never holds all logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chunked_loss import VOCAB, ids, model_of, targets_of
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from core.models import loss
from core.models.gpt import GPT
from core.models.layers import softcap
from core.models.loss import next_token_loss, token_loss, tokens_within, use_loss_chunks
from core.models.product_loss import CutAtProduct, product_loss
from core.training.machine import Machine
from core.training.objectives import policy_gradient, tokens
from core.training.step import add_gradients

# torch's compiler makes an object of an autograd function, which torch itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
CPU = torch.device("cpu")
PRESETS = ("modern", "gpt2", "llama", "portable")


@given(
    rows=st.integers(1, 3), size=st.integers(1, 7), chunk=st.integers(1, 30), none=st.booleans(), bias=st.booleans(),
    cap=st.sampled_from([0.0, 0.5, 15.0]),
)  # fmt: skip
@settings(max_examples=40)
def test_value_and_gradients_are_those_of_whole_logits(
    rows: int, size: int, chunk: int, none: bool, bias: bool, cap: float
) -> None:
    random = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, size, 5, dtype=torch.float64, generator=random).requires_grad_()
    weight = torch.randn(VOCAB, 5, dtype=torch.float64, generator=random).requires_grad_()
    added = torch.randn(VOCAB, dtype=torch.float64, generator=random).requires_grad_() if bias else None
    targets = torch.full((rows, size), -1) if none else targets_of(rows, size)
    logits = torch.nn.functional.linear(hidden, weight, added)
    one, _ = token_loss(softcap(logits, cap) if cap else logits, targets)
    other = product_loss(CutAtProduct(hidden, weight, added, cap), targets, chunk)
    assert torch.isclose(one, other, rtol=1e-12)
    parts = (hidden, weight) if added is None else (hidden, weight, added)
    wanted, got = (torch.autograd.grad(0.3 * nats, parts) for nats in (one, other))
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(wanted, got, strict=True))


def collecting(sizes: list[int]) -> Any:
    """A backend that notes the sizes of all tensors of the graphs, forward and backward."""

    def note(graph: Any, _: Any) -> Any:
        for node in graph.graph.nodes:
            value = node.meta.get("val")
            sizes.extend(each.numel() for each in (value if isinstance(value, tuple | list) else (value,)) if isinstance(each, Tensor))  # fmt: skip
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=note, bw_compiler=note)


def gradients(model: GPT, compute: Callable[..., Tensor], *batch: Tensor) -> list[Tensor]:
    model.zero_grad()
    nats = compute(*batch)
    (0.25 * nats).backward()  # type: ignore[no-untyped-call]
    return [nats.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("preset", "more"), [*((preset, {}) for preset in PRESETS), ("modern", {"softcap": 2.0, "tie_weights": True})]
)
def test_model_loss_and_gradient_are_one_graph_without_all_logits(preset: str, more: dict[str, Any]) -> None:
    """Dynamo refuses a second graph (fullgraph). Of 64 tokens, 16 are computed at once."""
    torch.compiler.reset()
    model, inputs, targets = model_of(preset, **more), ids(4, 16, 0), targets_of(4, 16)
    expected = gradients(model, lambda *batch: token_loss(model(batch[0]), batch[1])[0], inputs, targets)
    for size, holds_all in ((0, True), (16, False), (64, True)):
        model.loss_chunk = size
        sizes: list[int] = []
        step = torch.compile(lambda *batch: tokens(model, *batch), backend=collecting(sizes), fullgraph=True)
        for one, other in zip(gradients(model, step, inputs, targets), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert (64 * VOCAB in sizes) is holds_all
        assert size != 16 or 16 * VOCAB in sizes


def test_as_a_machine_takes_it_in_bfloat16() -> None:
    torch.compiler.reset()
    model, inputs, targets = model_of("gpt2"), ids(4, 16, 0), targets_of(4, 16)
    machine, found = Machine(CPU, torch.bfloat16), []
    for size in (0, 16):
        model.loss_chunk = size
        model.zero_grad()
        step = torch.compile(lambda *batch: tokens(model, *batch), backend="aot_eager", fullgraph=True)
        mean = add_gradients(step, [(inputs, targets)], 40, machine)
        found.append([mean, *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 0.03 * one.norm()  # bfloat16 sums of other lengths


def test_other_objectives_are_one_graph_too() -> None:
    torch.compiler.reset()
    model, inputs, targets = model_of("modern"), ids(4, 16, 0), targets_of(4, 16)
    objective, advantages = policy_gradient(0.7), torch.tensor([1.0, -1.0, 0.5, 0.0])
    step = torch.compile(lambda *batch: objective(model, *batch), backend="aot_eager", fullgraph=True)
    expected = gradients(model, lambda *batch: objective(model, *batch), inputs, targets, advantages)
    for one, other in zip(gradients(model, step, inputs, targets, advantages), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_who_computes_something_else_is_left_alone() -> None:
    class Own(GPT):
        def forward(self, *arguments: Any) -> Tensor:
            return 2 * super().forward(*arguments)

    ours, own = model_of("modern"), Own(model_of("modern").config, VOCAB)
    for model in (ours, own, torch.nn.Linear(2, 2)):
        use_loss_chunks(model, 100 * VOCAB)
    assert ours.loss_chunk == 64 and own.loss_chunk == 0
    tables = model_of("modern", ngram=2)
    use_loss_chunks(tables, 8 * VOCAB)
    torch.compiler.reset()
    step = torch.compile(lambda *batch: next_token_loss(tables, *batch)[0], backend="eager", fullgraph=True)
    inputs, targets = ids(2, 16, 0), targets_of(2, 16)
    torch.testing.assert_close(step(inputs, targets), token_loss(tables(inputs), targets)[0])


def test_a_chunk_is_chosen_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for memory, expected in ((80e9, 4096), (24e9, 1024), (141e9, 8192), (1e6, 1)):
        properties = type("Properties", (), {"total_memory": int(memory)})()
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        model = model_of("gpt2")
        model.vocab_size = 50_304
        use_loss_chunks(model, loss.gpu_logits(torch.device("cuda")))
        assert model.loss_chunk == expected
    assert tokens_within(10, 100) == 1
