"""Grouped queries, windows, positions and epsilons: every way through the model equals plain loops, in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.config import Config, Model
from core.defaults import resolve
from core.models import attention
from core.models.attention import Scheme
from core.models.block import Block
from core.models.build import flops_per_token
from core.models.decode import Decoder
from core.models.gpt import GPT
from core.models.loss import token_loss
from core.sampling.generate import generate

VOCAB, LENGTH = 7, 10
PRESETS = ("modern", "gpt2", "llama", "portable")
KEYS: list[dict[str, Any]] = [
    {},
    {"n_kv_head": 1},
    {"n_kv_head": 2, "bias": True},
    {"window": 1},
    {"window": 4},
    {"window": 3, "window_pattern": "SL"},
    {"window": 3, "window_pattern": "LSS", "n_kv_head": 2, "qk_norm": True},
    {"window": LENGTH},
    {"position": "alibi"},
    {"position": "alibi", "n_head": 6, "n_kv_head": 3, "n_embd": 24},
    {"position": "alibi", "window": 4, "window_pattern": "SSL", "n_kv_head": 1, "qk_norm": True},
    {"position": "none", "n_kv_head": 2},
    {"position": "rope", "rope_base": 50.0, "window": 5, "n_kv_head": 2},
    {"position": "learned", "qk_norm": True, "window": 4},
    {"norm_eps": 0.3, "qk_norm": True, "position": "rope", "n_kv_head": 2},
    {"norm_eps": 0.3, "norm": "layernorm", "bias": True},
    {"norm_eps": 0.3, "norm": "rmsnorm_scale", "qk_norm": True},
    {"head_width": 6, "n_kv_head": 2},
    {"head_width": 2, "qkv_bias": True, "activation": "gelu_tanh"},
    {"bias": True, "qkv_bias": False, "head_width": 6, "n_embd": 15, "position": "rope"},
    {"qk_norm": True, "qk_scale": True, "n_kv_head": 2, "window": 4},
    {"qk_norm": True, "qk_scale": True, "position": "alibi", "n_kv_head": 1},
]
every_architecture = pytest.mark.parametrize(
    ("preset", "keys"), [(preset, keys) for preset in PRESETS for keys in KEYS], ids=str
)


def config_of(preset: str, **keys: Any) -> Model:
    model = {"preset": preset, "n_layer": 3, "n_head": 4, "n_embd": 16, "n_ff": 20, "block_size": LENGTH, **keys}
    return resolve(Config.model_validate({"train": {"model": model}})).train.model


def build(preset: str, **keys: Any) -> GPT:
    """A float64 model off its start, where zero projections would hide most of it."""
    torch.manual_seed(5)
    model = GPT(config_of(preset, **keys), VOCAB).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if model.config.position == "rope":  # whose tables are float32 otherwise
        model.cos, model.sin = attention.rotary_tables(LENGTH, model.head_width, model.config.rope_base)
    return model.eval()


def tokens_of(rows: int = 2, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


# The plain reference: one row, one head, one token at a time


def published_slopes(n: int) -> list[float]:
    """get_slopes of https://github.com/ofirpress/attention_with_linear_biases, which arXiv:2108.12409 refers to."""

    def powers(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(n).is_integer():
        return powers(n)
    closest = 2 ** math.floor(math.log2(n))
    return powers(closest) + published_slopes(2 * closest)[0::2][: n - closest]


class Reference:
    """The model that a config describes, from its weights (name -> tensor)."""

    def __init__(self, config: Model, weights: dict[str, Tensor]) -> None:
        self.config, self.weights = config, weights
        self.width = config.head_width or 0
        self.maps: list[Tensor] = []  # one (H, T, T) a layer

    def rms(self, x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).sum() / len(x) + self.config.norm_eps)

    def norm(self, x: Tensor, name: str) -> Tensor:
        if self.config.norm == "rmsnorm":
            return self.rms(x)
        weight = self.weights[f"{name}.weight"]
        if self.config.norm == "rmsnorm_scale":
            return self.rms(x) * weight
        y = self.rms(x - x.mean()) * weight
        return y + self.weights[f"{name}.bias"] if self.config.bias else y

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = self.weights[f"{name}.weight"] @ x
        biased = self.config.qkv_bias if name.endswith("c_attn") else self.config.bias
        return y + self.weights[f"{name}.bias"] if biased else y

    def placed(self, x: Tensor, place: int, scale: str) -> Tensor:
        """A query or key (D,) as it is compared. scale: name of its learnt factors."""
        if self.config.qk_norm:
            x = self.rms(x)
        if self.config.qk_scale:
            x = x * self.weights[scale]
        if self.config.position != "rope":
            return x
        half, turned = self.width // 2, [torch.empty(())] * self.width
        for i in range(half):
            angle = place * self.config.rope_base ** (-2 * i / self.width)
            cos, sin = math.cos(angle), math.sin(angle)
            turned[i] = x[i] * cos - x[i + half] * sin
            turned[i + half] = x[i + half] * cos + x[i] * sin
        return torch.stack(turned)

    def attention(self, hidden: list[Tensor], name: str, layer: int) -> list[Tensor]:
        c, D, T = self.config, self.width, len(hidden)
        assert c.n_kv_head is not None
        projected = [self.linear(x, f"{name}.c_attn") for x in hidden]
        windowed = c.window > 0 and c.window_pattern[layer % len(c.window_pattern)] == "S"
        scale = (1.44 if c.qk_norm and not c.qk_scale else 1.0) / math.sqrt(D)
        q_name, k_name = f"{name}.q_norm.weight", f"{name}.k_norm.weight"
        mixed: list[list[Tensor]] = [[] for _ in hidden]
        rows = []
        for head in range(c.n_head):
            shared = head // (c.n_head // c.n_kv_head)
            at = [head * D, (c.n_head + shared) * D, (c.n_head + c.n_kv_head + shared) * D]
            q, k, v = ([y[start : start + D] for y in projected] for start in at)
            slope = published_slopes(c.n_head)[head] if c.position == "alibi" else 0.0
            for i in range(T):
                seen = [j for j in range(i + 1) if not windowed or i - j < c.window]
                query, keys = self.placed(q[i], i, q_name), [self.placed(k[j], j, k_name) for j in seen]
                logits = [scale * (query @ key) - slope * (i - j) for key, j in zip(keys, seen, strict=True)]
                odds = torch.stack(logits).exp()
                shares = odds / odds.sum()
                mixed[i].append(sum((s * v[j] for s, j in zip(shares, seen, strict=True)), torch.zeros(D)))
                row = torch.zeros(T, dtype=torch.float64)
                row[seen] = shares.detach()
                rows.append(row)
        self.maps.append(torch.stack(rows).view(c.n_head, T, T))
        return [self.linear(torch.cat(parts), f"{name}.c_proj") for parts in mixed]

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        x = self.linear(x, f"{name}.c_fc")
        if self.config.activation == "relu2":
            x = x.clamp(min=0) ** 2
        elif self.config.activation == "gelu":
            x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
        elif self.config.activation == "gelu_tanh":
            x = x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        else:
            gate, value = x.chunk(2)
            x = gate * torch.sigmoid(gate) * value
        return self.linear(x, f"{name}.c_proj")

    def row(self, tokens: list[int]) -> Tensor:
        """Logits (T, V)."""
        c, w = self.config, self.weights
        self.maps = []
        hidden = [w["transformer.wte.weight"][token] for token in tokens]
        if c.norm == "rmsnorm":
            hidden = [self.rms(x) for x in hidden]
        if c.smear:
            hidden = [x + (w["smear.share"] * hidden[i - 1] if i else 0) for i, x in enumerate(hidden)]
        if c.position == "learned":
            hidden = [x + w["transformer.wpe.weight"][i] for i, x in enumerate(hidden)]
        for layer in range(c.n_layer):
            block = f"transformer.h.{layer}"
            mixed = self.attention([self.norm(x, f"{block}.ln_1") for x in hidden], f"{block}.attn", layer)
            hidden = [x + y for x, y in zip(hidden, mixed, strict=True)]
            hidden = [x + self.feed_forward(self.norm(x, f"{block}.ln_2"), f"{block}.mlp") for x in hidden]
        logits = torch.stack([w["lm_head.weight"] @ self.norm(x, "transformer.ln_f") for x in hidden])
        return c.softcap * torch.tanh(logits / c.softcap) if c.softcap else logits

    def __call__(self, tokens: Tensor) -> Tensor:
        return torch.stack([self.row(row) for row in tokens.tolist()])


def reference_of(model: GPT) -> Reference:
    """With weights that gradients can be taken for, a tied one once."""
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    if model.config.tie_weights:
        weights["lm_head.weight"] = weights["transformer.wte.weight"]
    return Reference(model.config, weights)


def assert_equal(found: Any, expected: Any, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@every_architecture
def test_logits_gradients_and_maps_are_those_of_the_reference(preset: str, keys: dict[str, Any]) -> None:
    model, tokens, targets = build(preset, **keys), tokens_of(), tokens_of(seed=1)
    reference = reference_of(model)
    expected = reference(tokens)
    maps = reference.maps
    token_loss(expected, targets)[0].backward()
    for form, atol in (("explicit", 1e-10), ("sdpa", 1e-10), ("sdpa32", 2e-4)):
        model.attention = form
        model.zero_grad()
        logits = model(tokens)
        token_loss(logits, targets)[0].backward()
        assert_equal(logits, expected, atol)
        for name, parameter in model.named_parameters():
            assert_equal(parameter.grad, reference.weights[name].grad, 10 * atol if form == "sdpa32" else atol)
    model.attention = "auto"
    trace = model.trace(tokens)
    for layer, seen in enumerate(maps):
        assert_equal(trace.attention[layer][-1], seen)


def test_a_layer_with_another_scheme_is_asked_for_it() -> None:
    """The short path for single tokens knows the config's schemes alone."""
    model, tokens = build("modern"), tokens_of()
    model.blocks[1].attn.scheme = replace(model.blocks[1].attn.scheme, qk_norm=False, window=2, alibi=True)
    cache = model.new_cache(2)
    with torch.inference_mode():
        parts = [model(piece, cache) for piece in tokens.split([3, 1, 1, 5], dim=1)]
        assert_equal(torch.cat(parts, dim=1), model(tokens))


class OwnBlock(Block):
    """A block that someone derived: the model calls it as it is, so it has no short path for single tokens."""


@every_architecture
def test_the_cache_gives_the_logits_of_the_reference(preset: str, keys: dict[str, Any]) -> None:
    model, tokens = build(preset, **keys), tokens_of()
    with torch.no_grad():
        expected = reference_of(model)(tokens)
    for decoder in (True, False):
        if not decoder:
            model.blocks[0].__class__ = OwnBlock
        cache = model.new_cache(2)
        assert isinstance(cache, Decoder) == decoder
        for sizes in ([4, 1, 1, 3, 1], [1] * LENGTH, [LENGTH], [1, LENGTH - 1]):
            with torch.inference_mode():
                parts = [model(piece, cache) for piece in tokens.split(sizes, dim=1)]
            assert_equal(torch.cat(parts, dim=1), expected)
            assert cache.length == LENGTH
            cache.clear()


@every_architecture
def test_what_is_written_with_the_cache_is_written_without(preset: str, keys: dict[str, Any]) -> None:
    """Past block_size too, where the cache is cleared and filled again."""
    model = build(preset, **keys)
    written = [
        torch.stack(list(generate(model, tokens_of(3, 4), max_new_tokens=15, use_cache=use_cache)))
        for use_cache in (True, False)
    ]
    assert torch.equal(*written)


@pytest.mark.parametrize("n", range(1, 21))
def test_alibi_slopes_are_the_published_ones(n: int) -> None:
    slopes = attention.alibi_slopes(n, torch.float64, torch.device("cpu"))
    assert_equal(slopes, torch.tensor(published_slopes(n), dtype=torch.float64))


def test_alibi_slopes_of_eight_heads() -> None:
    slopes = attention.alibi_slopes(8, torch.float32, torch.device("cpu"))
    assert slopes.tolist() == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_fewer_heads_of_keys_make_matrix_and_cache_smaller(n_kv_head: int) -> None:
    model = build("modern", n_kv_head=n_kv_head)
    assert model.blocks[0].attn.c_attn.weight.shape == ((4 + 2 * n_kv_head) * 4, 16)
    assert model.new_cache(5).memory.shape == (2, 3, 5 * n_kv_head, LENGTH, 4)


def test_as_many_heads_of_keys_as_of_queries_changes_nothing() -> None:
    given, left_out = build("modern", n_kv_head=4), build("modern")
    for (name, one), (other_name, other) in zip(given.state_dict().items(), left_out.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other)
    assert torch.equal(given(tokens_of()), left_out(tokens_of()))


@pytest.mark.parametrize("preset", ["modern", "llama"])
def test_a_window_ends_what_a_token_can_know(preset: str) -> None:
    """Three layers with a window of 2 reach three tokens back; a single L layer reaches all."""
    tokens = tokens_of(1)
    changed = tokens.clone()
    changed[:, 2] = (tokens[:, 2] + 1) % VOCAB
    for pattern, last in (("S", 5), ("SL", LENGTH - 1)):
        model = build(preset, window=2, window_pattern=pattern, smear=False)
        with torch.no_grad():
            moved = (model(tokens) - model(changed)).abs().amax(dim=(0, 2)) > 1e-12
        assert moved.nonzero().flatten().tolist() == list(range(2, last + 1))


@every_architecture
def test_bfloat16_stays_near(preset: str, keys: dict[str, Any]) -> None:
    model = build(preset, **keys).float()
    exact = token_loss(model(tokens_of()), tokens_of(seed=1))[0].item()
    for form in ("explicit", "sdpa", "sdpa32"):
        model.attention = form
        with torch.autocast("cpu", torch.bfloat16):
            nats, _ = token_loss(model(tokens_of()), tokens_of(seed=1))
        nats.backward()
        assert nats.item() == pytest.approx(exact, rel=0.02)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("form", ["explicit", "sdpa"])
@pytest.mark.parametrize("keys", [
    {"n_kv_head": 2}, {"window": 3, "window_pattern": "SL"}, {"position": "alibi", "n_kv_head": 1, "window": 4},
], ids=str)  # fmt: skip
def test_a_compiler_sees_the_model_as_one_graph(keys: dict[str, Any], form: str) -> None:
    torch.compiler.reset()  # which gives up after a few models in one process
    model, tokens = build("modern", **keys), tokens_of()
    model.attention = form
    expected = model(tokens)
    compiled = torch.compile(model, backend="eager", fullgraph=True)(tokens)
    assert_equal(compiled, expected)
    compiled.sum().backward()


SCHEMES = [
    Scheme(2, 2, 4), Scheme(4, 2, 6, qk_norm=True), Scheme(4, 1, 4, window=3), Scheme(3, 3, 2, alibi=True),
    Scheme(4, 2, 4, qk_norm=True, qk_scale=True, window=4, alibi=True),
]  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("rope", [False, True])
def test_attention_that_copies_no_heads_is_the_same(scheme: Scheme, rope: bool) -> None:
    """As a GPU computes it, here in float64 on a CPU."""
    torch.manual_seed(0)
    D = scheme.head_width
    cos, sin = attention.rotary_tables(LENGTH, D, 100.0) if rope else (None, None)
    qkv = torch.randn(2, LENGTH, sum(scheme.rows), dtype=torch.float64, requires_grad=True)
    scales = (torch.rand(D, dtype=torch.float64), torch.rand(D, dtype=torch.float64)) if scheme.qk_scale else None
    found = []
    for y in (
        attention.attend(qkv, scheme, cos, sin, "explicit", scales=scales),
        attention.attend_in_views(qkv, scheme, cos, sin, 0.0, scales),
    ):
        found.append([y, *torch.autograd.grad(y, qkv, torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_gpu_reads_heads_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches torch's kernel are views of one tensor, and the kernel is told to mask by itself: there is no (T, T) mask."""
    seen: list[Any] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, **how: Any) -> Tensor:
        seen.append((q, k, v, added, how))
        return q

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", kernel)
    qkv = torch.randn(2, LENGTH, 12 + 2 * 6)
    attention.attend_in_views(qkv, Scheme(4, 2, 3), None, None, 0.1, None)
    q, k, v, added, how = seen[0]
    assert q.shape == (2, 4, LENGTH, 3) and k.shape == v.shape == (2, 2, LENGTH, 3)
    assert all(each.untyped_storage().data_ptr() == qkv.untyped_storage().data_ptr() for each in (q, k, v))
    assert added is None and how["is_causal"] and how["enable_gqa"] and how["dropout_p"] == 0.1


def test_the_mask_is_added_where_torch_has_no_fused_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without window and alibi is_causal stays, which GPUs have their fastest kernels for."""
    asked: list[dict[str, Any]] = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def listen(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
        asked.append({"mask": mask, "heads": k.shape[1], **options})
        return fused(q, k, v, mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", listen)
    for keys in ({}, {"n_kv_head": 2}, {"n_kv_head": 2, "window": 3}):
        model = build("gpt2", n_layer=1, **keys)
        model.attention = "sdpa"
        model(tokens_of())
    plain, shared, masked = asked
    assert (plain["mask"], plain["is_causal"], plain["heads"], plain["enable_gqa"]) == (None, True, 4, False)
    assert (shared["mask"], shared["is_causal"], shared["heads"], shared["enable_gqa"]) == (None, True, 2, True)
    assert (masked["is_causal"], masked["heads"], masked["enable_gqa"]) == (False, 4, False)


def test_operations_of_grouped_queries_and_windows() -> None:
    C, V, T = 16, VOCAB, 10
    plain = flops_per_token(build("modern"), T)
    assert plain == 6 * (3 * (4 * C * C + 2 * C * 20) + V * C) + 12 * 3 * C * T
    grouped = flops_per_token(build("modern", n_kv_head=1), T)
    assert plain - grouped == 6 * 3 * 2 * 3 * 4 * C  # 3 layers, keys and values, 3 heads of 4 channels fewer
    windowed = flops_per_token(build("modern", window=4, window_pattern="SSL"), T)
    assert plain - windowed == 12 * C * 2 * (T - 4)
    assert flops_per_token(build("modern", window=4), 3) == flops_per_token(build("modern"), 3)
    wide = flops_per_token(build("modern", head_width=6), T)
    assert wide == 6 * (3 * (4 * C * 24 + 2 * C * 20) + V * C) + 12 * 3 * 24 * T


# Numbers that runs of earlier versions started from: their weights must come out of the same draws, in the same order.
FRESH = {
    "modern": (925.343416696, 0.238865122, 0.102493204),
    "gpt2": (166.606776899, 0.042866342, -0.000451250),
    "llama": (196.248842978, 0.019401653, 0.039797787),
}


@pytest.mark.parametrize("preset", FRESH)
def test_fresh_weights_are_drawn_as_ever(preset: str) -> None:
    config = config_of(preset, n_layer=2, n_head=2, n_ff=64, block_size=16)
    torch.manual_seed(7)
    state = GPT(config, 11).state_dict()
    found = (
        sum(tensor.double().abs().sum().item() for tensor in state.values()),
        state["transformer.h.1.attn.c_attn.weight"][40, 3].item(),
        state["transformer.h.1.mlp.c_fc.weight"][5, 7].item(),
    )
    assert found == pytest.approx(FRESH[preset], rel=1e-5)


def test_the_own_attention_of_the_documentation() -> None:
    """It is called as it is, its gradients arrive, and the cache agrees."""
    page = Path(__file__).parents[1] / "docs" / "how-to" / "compare-architectures.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {}
    exec(compile(code, page.name, "exec"), namespace)
    model, tokens = namespace["build_model"](config_of("llama"), VOCAB), tokens_of()
    model(tokens).sum().backward()
    assert all(block.attn.gate.weight.grad.abs().sum() > 0 for block in model.blocks)
    cache = model.new_cache(2)
    assert not isinstance(cache, Decoder)
    with torch.inference_mode():
        parts = [model(piece, cache) for piece in tokens.split([3, 1, 1, 5], dim=1)]
        assert_equal(torch.cat(parts, dim=1), model(tokens), 1e-5)
