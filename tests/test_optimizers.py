"""Muon and AdamW: orthogonal steps, who gets which rate, learning, and saving."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.config import Config, Optim
from core.defaults import resolve
from core.models.gpt import GPT
from core.training import optimizers
from core.training.muon import Muon, polar_express, product_dtype

MUON = Optim(
    name="muon",
    learning_rate=0.02,
    embedding_lr=0.3,
    head_lr=0.004,
    ngram_lr=0.05,
    weight_decay=0.0,
    beta1=0.8,
    beta2=0.99,
    momentum=0.85,
    grad_clip=0.0,
)
ADAMW = MUON.model_copy(update={"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1, "beta1": 0.9})
ADAM = ADAMW.model_copy(update={"name": "adam", "weight_decay": 0.0})
SGD = ADAMW.model_copy(update={"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.9})
# Three steps of Polar Express take singular values from 0.005 of the norm on into here; bfloat16 adds some noise.
BAND = (0.17, 1.88)
BFLOAT16_BAND = (0.12, 2.0)

Build = Callable[[nn.Module, Optim], torch.optim.Optimizer]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.norm = nn.LayerNorm(width)


class Toy(nn.Module):
    """A language model with every kind of parameter."""

    def __init__(self, tied: bool = False, width: int = 16) -> None:
        super().__init__()
        self.wte = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.lm_head = nn.Linear(width, 11, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens)
        for block in self.blocks:
            q, k, v = block.c_attn(block.norm(x)).chunk(3, dim=-1)
            x = x + q * k.sigmoid() + v
        logits: Tensor = self.lm_head(self.lstm(x)[0])
        return logits


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list[float]:
    """Losses of a task that depends on the step alone: say the token before last."""
    losses = []
    for step in range(first, first + steps):
        tokens = torch.randint(11, (16, 8), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(model(tokens)[:, 1:].flatten(0, 1), tokens[:, :-1].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def toy(**settings: bool) -> Toy:
    torch.manual_seed(0)
    return Toy(**settings)


def names_in(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, set[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {group["name"]: {names[id(p)] for p in group["params"]} for group in optimizer.param_groups}


# Polar Express


@pytest.mark.parametrize(("dtype", "band"), [(torch.float32, BAND), (torch.bfloat16, BFLOAT16_BAND)])
@pytest.mark.parametrize("shape", [(32, 32), (32, 128), (3, 200)])
def test_a_step_is_nearly_orthogonal(shape: tuple[int, int], dtype: torch.dtype, band: tuple[float, float]) -> None:
    torch.manual_seed(0)
    rows, columns = shape
    left, _ = torch.linalg.qr(torch.randn(4, rows, rows))
    right, _ = torch.linalg.qr(torch.randn(4, columns, rows))
    values = torch.logspace(-1, 0, rows)  # the smallest is at least 0.01 of the Frobenius norm
    matrices = (left * values) @ right.mT
    found = polar_express(matrices.to(dtype)).float()
    singular = torch.linalg.svdvals(found)
    assert band[0] < singular.min() and singular.max() < band[1]
    # The singular vectors are kept: the product with the true orthogonal factor is symmetric and positive.
    assert ((left @ right.mT) * found).sum(dim=(-2, -1)).min() > 0.5 * rows


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-15, 1e-6, 1.0, 1e6]))
def test_the_size_of_the_gradient_does_not_matter(seed: int, scale: float) -> None:
    matrix = torch.randn(1, 6, 10, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(polar_express(matrix * scale), polar_express(matrix), rtol=1e-3, atol=1e-4)


def test_a_zero_gradient_gives_a_zero_step() -> None:
    assert polar_express(torch.zeros(2, 4, 6)).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stack_equals_its_matrices_one_by_one(dtype: torch.dtype) -> None:
    matrices = torch.randn(5, 16, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    alone = torch.cat([polar_express(matrix[None]) for matrix in matrices])
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(polar_express(matrices), alone, rtol=0, atol=tolerance)


# Muon's step


def one_step(
    p: nn.Parameter, gradient: Tensor, *, pieces: int | list[int] = 1, decay: float = 0.0, lr: float = 0.1
) -> Tensor:
    """What one step of Muon adds to a parameter."""
    before = p.detach().clone()
    optimizer = Muon(
        [{"params": [p], "muon": True, "lr": lr, "momentum": 0.9, "weight_decay": decay, "pieces": [pieces]}]
    )
    p.grad = gradient.clone()
    optimizer.step()
    return p.detach() - before


def test_a_tall_matrix_takes_longer_steps_than_a_wide_one() -> None:
    gradient = torch.randn(24, 6, generator=torch.Generator().manual_seed(2))
    tall, wide = (
        one_step(nn.Parameter(torch.zeros(24, 6)), gradient),
        one_step(nn.Parameter(torch.zeros(6, 24)), gradient.T),
    )
    torch.testing.assert_close(tall, 2 * wide.T, rtol=1e-3, atol=1e-5)  # sqrt(24 / 6) times as long
    assert (tall * gradient).sum() < 0


def test_the_pieces_of_a_fused_matrix_are_orthogonalised_apart() -> None:
    gradient = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
    gradient[:4] *= 1000
    fused = one_step(nn.Parameter(torch.zeros(12, 4)), gradient, pieces=3)
    apart = torch.cat([one_step(nn.Parameter(torch.zeros(4, 4)), piece) for piece in gradient.chunk(3)])
    torch.testing.assert_close(fused, apart, rtol=0, atol=2e-3)


def test_pieces_of_unequal_heights_are_orthogonalised_apart() -> None:
    gradient = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    gradient[:4] *= 1000
    fused = one_step(nn.Parameter(torch.zeros(8, 4)), gradient, pieces=[4, 2, 2])
    apart = [one_step(nn.Parameter(torch.zeros(len(piece), 4)), piece) for piece in gradient.split([4, 2, 2])]
    torch.testing.assert_close(fused, torch.cat(apart), rtol=0, atol=2e-3)


def test_weight_decay_is_decoupled_from_the_gradient() -> None:
    p = nn.Parameter(torch.full((3, 3), 2.0))
    torch.testing.assert_close(one_step(p, torch.zeros(3, 3), decay=0.5), torch.full((3, 3), -0.1 * 0.5 * 2.0))


def test_parameters_without_a_gradient_are_left_alone() -> None:
    model = toy()
    before = copy.deepcopy(model.state_dict())
    optimizers.muon(model, MUON.model_copy(update={"weight_decay": 0.5})).step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_adam_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(7)) for _ in range(2))
    a = Muon([{"params": [ours], "muon": False, "lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-10}])
    b = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.99), eps=1e-10)
    for _ in range(20):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        a.step(), b.step()
    torch.testing.assert_close(ours, theirs)


def test_a_closure_is_called_with_gradients_on() -> None:
    model = toy()

    def closure() -> Tensor:
        loss: Tensor = model(torch.zeros(1, 3, dtype=torch.long)).square().mean()
        loss.backward()
        return loss

    before = model.wte.weight.detach().clone()
    assert optimizers.muon(model, MUON).step(closure).requires_grad
    assert not torch.equal(before, model.wte.weight)


def test_products_are_in_bfloat16_only_where_that_is_fast() -> None:
    fast = torch.cpu._is_avx512_bf16_supported()
    assert product_dtype(torch.device("cpu")) == (torch.bfloat16 if fast else torch.float32)
    assert product_dtype(torch.device("meta")) == torch.float32


# Who gets which rate


def test_muon_tells_matrices_embeddings_and_the_rest_apart() -> None:
    model = toy()
    optimizer = optimizers.muon(model, MUON)
    assert names_in(optimizer, model) == {
        "matrices": {"blocks.0.c_attn.weight", "blocks.1.c_attn.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"},
        "embeddings": {"wte.weight"},
        "others": {
            "lm_head.weight", "lstm.bias_ih_l0", "lstm.bias_hh_l0", *(f"blocks.{i}.{name}" for i in (0, 1)
            for name in ("c_attn.bias", "norm.weight", "norm.bias")),
        },
    }  # fmt: skip
    assert [group["peak_lr"] for group in optimizer.param_groups] == [0.02, 0.3, 0.004]
    assert optimizer.param_groups[0]["pieces"] == [3, 3, 4, 4]


def test_a_tied_embedding_moves_at_the_rate_of_the_head() -> None:
    model = toy(tied=True)
    names = names_in(optimizers.muon(model, MUON), model)
    assert "wte.weight" in names["others"] and "embeddings" not in names


def test_muon_leaves_single_rows_and_frozen_parameters_to_others() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1), nn.Conv1d(1, 2, 3))
    model[0].bias.requires_grad_(False)
    assert names_in(optimizers.muon(model, MUON), model) == {
        "matrices": {"0.weight"},
        "others": {"1.weight", "1.bias", "2.weight", "2.bias"},
    }


def test_attention_of_torch_counts_as_three_matrices() -> None:
    optimizer = optimizers.muon(nn.MultiheadAttention(8, 2), MUON)
    assert optimizer.param_groups[0]["pieces"] == [3, 1]


@pytest.mark.parametrize(("n_kv_head", "pieces"), [(4, 3), (2, [16, 8, 8]), (1, [16, 4, 4])])
def test_grouped_queries_are_three_matrices_too(n_kv_head: int, pieces: int | list[int]) -> None:
    keys = {"n_layer": 1, "n_head": 4, "n_embd": 16, "n_kv_head": n_kv_head}
    model = GPT(resolve(Config.model_validate({"train": {"model": keys}})).train.model, 7)
    optimizer = optimizers.muon(model, MUON)
    assert optimizer.param_groups[0]["pieces"] == [pieces, 1, 1, 1]  # c_attn, c_proj, and those of the feed-forward
    model(torch.zeros(1, 3, dtype=torch.long)).sum().backward()
    optimizer.step()
    json.dumps(optimizer.state_dict()["param_groups"])


@pytest.mark.parametrize("build", [optimizers.adamw, optimizers.adam, optimizers.sgd])
def test_matrices_alone_decay(build: Build) -> None:
    model = toy()
    groups = build(model, ADAMW).param_groups
    assert [(group["weight_decay"], {p.dim() >= 2 for p in group["params"]}) for group in groups] == [
        (0.1, {True}),
        (0.0, {False}),
    ]
    assert all(group["peak_lr"] == group["lr"] == 1e-3 for group in groups)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_adam_and_sgd_are_those_of_torch(name: str) -> None:
    """With weight decay in the gradient."""
    optim = {"adam": ADAM, "sgd": SGD}[name].model_copy(update={"weight_decay": 1.0})
    ours, theirs = toy(), toy()
    matrices = [p for p in theirs.parameters() if p.dim() >= 2]
    vectors = [p for p in theirs.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 1.0}, {"params": vectors}]
    reference = (
        torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.99))
        if name == "adam"
        else torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    )
    assert learn(ours, getattr(optimizers, name)(ours, optim), 5) == pytest.approx(
        learn(theirs, reference, 5), rel=1e-4
    )


def test_decay_in_the_gradient_is_not_decay_of_the_weights() -> None:
    """Adam scales it by the size of the gradient; AdamW shrinks each matrix by the same share."""
    shrunk = {}
    for name in ("adam", "adamw"):
        model = toy()
        optimizer = getattr(optimizers, name)(model, ADAMW.model_copy(update={"weight_decay": 0.5}))
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        before = model.wte.weight.detach().clone()
        optimizer.step()
        shrunk[name] = model.wte.weight.detach() / before
    torch.testing.assert_close(shrunk["adamw"], torch.full_like(shrunk["adamw"], 1 - 1e-3 * 0.5))
    assert shrunk["adam"].std() > 1e-4


# Learning and saving

LEARNING = [
    (optimizers.muon, MUON),
    (optimizers.adamw, ADAMW.model_copy(update={"learning_rate": 0.02})),
    (optimizers.adam, ADAM.model_copy(update={"learning_rate": 0.02})),
]
PLAIN = [(optimizers.sgd, SGD), (optimizers.sgd, SGD.model_copy(update={"momentum": 0.0}))]
EACH = pytest.mark.parametrize(("build", "optim"), [*LEARNING, *PLAIN])


@pytest.mark.parametrize(("build", "optim"), LEARNING)
@pytest.mark.parametrize("tied", [False, True])
def test_a_small_model_learns(build: Build, optim: Optim, tied: bool) -> None:
    model = toy(tied=tied)
    losses = learn(model, build(model, optim), 150)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("build", "optim"), PLAIN)
def test_sgd_goes_downhill(build: Build, optim: Optim) -> None:
    """The same batch over and over: what sgd takes long to learn otherwise."""
    model = toy()
    optimizer = build(model, optim)
    losses = [learn(model, optimizer, 1)[0] for _ in range(60)]
    assert losses[-1] < 0.95 * losses[0]


@EACH
def test_two_runs_are_the_same_to_the_bit(build: Build, optim: Optim) -> None:
    first, second = toy(), toy()
    assert learn(first, build(first, optim), 5) == learn(second, build(second, optim), 5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@EACH
def test_going_on_from_a_saved_state_changes_nothing(build: Build, optim: Optim) -> None:
    model = toy()
    optimizer = build(model, optim)
    learn(model, optimizer, 3)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    entries = [value for entry in state["state"].values() for value in entry.values()]
    assert all(isinstance(value, Tensor | int) for value in entries)
    json.dumps(state["param_groups"])  # plain values only
    unbroken = learn(model, optimizer, 4, first=3)

    resumed = toy()
    resumed.load_state_dict(weights)
    other = build(resumed, optim)
    other.load_state_dict(state)
    assert learn(resumed, other, 4, first=3) == unbroken
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_a_copy_of_muon_keeps_the_precision_of_its_state() -> None:
    model = torch.nn.Linear(4, 4, bias=False)
    group = {"params": [model.weight], "pieces": [1], "muon": True, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    twin, optimizer = copy.deepcopy((model, Muon([group], torch.bfloat16)))
    twin.weight.grad = torch.ones(4, 4)
    optimizer.step()
    assert optimizer.state[twin.weight]["momentum"].dtype == torch.bfloat16
