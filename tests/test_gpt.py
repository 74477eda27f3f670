"""core.models.gpt: the GPT of every preset and override computes what the equations say, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.config import Config, Model
from core.defaults import resolve
from core.models.attention import Scheme, attend, choose_attention, rotary_tables, rotate
from core.models.build import parameter_count
from core.models.gpt import GPT
from core.models.layers import RmsNormFunction, rms_norm, softcap, squared_relu
from core.models.loss import token_loss

VOCAB, BLOCK = 11, 16
PRESETS = ("modern", "gpt2", "llama", "portable")
OVERRIDES: list[dict[str, Any]] = [
    {"bias": True},
    {"norm": "rmsnorm"},
    {"norm": "rmsnorm_scale"},
    {"norm": "layernorm", "bias": True},
    {"position": "rope"},
    {"position": "learned"},
    {"position": "alibi"},
    {"position": "none"},
    {"rope_base": 100.0},
    {"norm_eps": 0.1},
    {"n_kv_head": 1},
    {"window": 3},
    {"window": 3, "window_pattern": "SL"},
    {"qk_norm": True},
    {"qk_norm": False},
    {"activation": "relu2"},
    {"activation": "gelu"},
    {"activation": "gelu_tanh"},
    {"head_width": 6},
    {"head_width": 12, "n_embd": 15},
    {"qkv_bias": True},
    {"qk_norm": True, "qk_scale": True},
    {"activation": "swiglu"},
    {"tie_weights": True},
    {"tie_weights": False},
    {"zero_init": False},
    {"zero_init": True},
    {"softcap": 5.0},
    {"softcap": 0.0},
    {"n_ff": 24},
    {"dropout": 0.25},
    {"n_head": 1},
    {"smear": True},
    {"smear": False},
    {"ngram": 2},
    {"ngram": 4},
]


def config_of(preset: str = "modern", **keys: Any) -> Model:
    model = {"preset": preset, "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": BLOCK, **keys}
    return resolve(Config.model_validate({"train": {"model": model}})).train.model


def build(preset: str = "modern", *, noise: float = 0.1, dtype: torch.dtype = torch.float32, **keys: Any) -> GPT:
    """A model off its start, where zero projections would hide most of it."""
    torch.manual_seed(3)
    model = GPT(config_of(preset, **keys), VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model.to(dtype).eval()


def tokens_of(rows: int = 3, length: int = BLOCK, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def gpt2_logits(weights: dict[str, Tensor], tokens: Tensor, n_head: int) -> Tensor:
    """GPT-2 from the equations (Radford et al., 2019), one head and one sum at a time."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]
        return scaled + weights.get(f"{name}.bias", torch.zeros(1))

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.einsum("btc,dc->btd", x, weights[f"{name}.weight"]) + weights.get(f"{name}.bias", torch.zeros(1))

    length = tokens.shape[1]
    x = weights["transformer.wte.weight"][tokens] + weights["transformer.wpe.weight"][:length]
    layer = 0
    while (block := f"transformer.h.{layer}") + ".ln_1.weight" in weights:
        q, k, v = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").chunk(3, dim=-1)
        mixed = []
        for qh, kh, vh in zip(q.chunk(n_head, -1), k.chunk(n_head, -1), v.chunk(n_head, -1), strict=True):
            scores = torch.einsum("bid,bjd->bij", qh, kh) / math.sqrt(qh.shape[-1])
            odds = scores.exp() * torch.ones(length, length).tril()
            mixed.append(torch.einsum("bij,bjd->bid", odds / odds.sum(-1, keepdim=True), vh))
        x = x + linear(torch.cat(mixed, dim=-1), f"{block}.attn.c_proj")
        h = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(h * (1 + torch.erf(h / math.sqrt(2))) / 2, f"{block}.mlp.c_proj")
        layer += 1
    return torch.einsum("btc,vc->btv", norm(x, "transformer.ln_f"), weights["lm_head.weight"])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", ["explicit", "sdpa"])
def test_gpt2_preset_computes_the_equations(bias: bool, form: str) -> None:
    model = build("gpt2", bias=bias)
    model.attention = form
    expected = gpt2_logits(dict(model.state_dict()), tokens_of(), model.n_head)
    torch.testing.assert_close(model(tokens_of()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("keys", OVERRIDES, ids=str)
def test_every_override_learns(preset: str, keys: dict[str, Any]) -> None:
    """Forward and backward reach every parameter, and a later token changes no earlier logits."""
    model = build(preset, **keys)
    tokens = tokens_of()
    logits = model(tokens)
    assert logits.shape == (3, BLOCK, VOCAB)
    nats, count = token_loss(logits, tokens_of(seed=1))
    (nats / count).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % VOCAB
    with torch.no_grad():
        after = model(changed)
    torch.testing.assert_close(after[:, :9], logits[:, :9].detach(), rtol=0, atol=1e-6)
    assert (after[:, 9] - logits[:, 9]).abs().max() > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_first_loss_is_that_of_a_uniform_guess(preset: str) -> None:
    torch.manual_seed(0)
    nats, count = token_loss(GPT(config_of(preset), VOCAB)(tokens_of()), tokens_of(seed=1))
    assert count == 3 * BLOCK
    assert nats.item() / count.item() == pytest.approx(math.log(VOCAB), abs=0.05)


def test_gpt2_start_has_the_published_deviations() -> None:
    torch.manual_seed(0)
    model = GPT(config_of("gpt2", n_embd=128, n_layer=2), 512)
    state = model.state_dict()
    for name, deviation in {
        "transformer.wte.weight": 0.02,
        "transformer.wpe.weight": 0.02,
        "transformer.h.0.attn.c_attn.weight": 0.02,
        "transformer.h.1.mlp.c_fc.weight": 0.02,
        "transformer.h.0.attn.c_proj.weight": 0.01,
        "transformer.h.1.mlp.c_proj.weight": 0.01,
    }.items():
        assert state[name].std().item() == pytest.approx(deviation, rel=0.06), name
    assert model.lm_head.weight is model.transformer["wte"].weight


def test_modern_start() -> None:
    torch.manual_seed(0)
    state = GPT(config_of("modern", n_embd=128), 512).state_dict()
    assert state["transformer.h.0.attn.c_proj.weight"].abs().max() == 0
    assert state["transformer.h.0.mlp.c_proj.weight"].abs().max() == 0
    assert state["transformer.h.0.attn.c_attn.weight"].std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert state["transformer.wte.weight"].std().item() == pytest.approx(1.0, rel=0.02)
    assert state["lm_head.weight"].std().item() == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("preset", PRESETS)
def test_attention_forms_agree_forward_and_backward(preset: str) -> None:
    results = {}
    for form in ("explicit", "sdpa", "sdpa32"):
        model = build(preset)
        model.attention = form
        nats, _ = token_loss(model(tokens_of()), tokens_of(seed=1))
        nats.backward()
        results[form] = [nats.detach(), *(parameter.grad for parameter in model.parameters())]
    for form in ("sdpa", "sdpa32"):
        torch.testing.assert_close(results[form], results["explicit"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", [
    Scheme(2, 2, 4), Scheme(2, 2, 4, qk_norm=True, norm_eps=0.01), Scheme(4, 2, 2), Scheme(2, 1, 4, qk_norm=True),
    Scheme(2, 2, 4, window=2), Scheme(3, 3, 2, alibi=True), Scheme(4, 2, 2, qk_norm=True, window=3, alibi=True),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("rope", [False, True])
def test_gradient_of_explicit_attention(scheme: Scheme, rope: bool) -> None:
    torch.manual_seed(0)
    cos, sin = rotary_tables(5, scheme.head_width, 10_000.0) if rope else (None, None)
    qkv = torch.randn(2, 5, sum(scheme.rows), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: attend(x, scheme, cos, sin, "explicit"), qkv)


def test_gradients_of_norm_and_activation() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, 1e-6), x)
    assert torch.autograd.gradcheck(squared_relu, x)
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x, 0.1), RmsNormFunction.apply(x, 0.1))
        torch.testing.assert_close(rms_norm(x, 0.1), x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt())
        torch.testing.assert_close(squared_relu(x), x.clamp(min=0) ** 2)
    zero = torch.zeros(2, 6, requires_grad=True)
    rms_norm(zero, 1e-6).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    cos, sin = rotary_tables(12, 8, 10_000.0)
    q, k = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = rotate(q.expand(12, 8), cos, sin), rotate(k.expand(12, 8), cos, sin)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(12))
    scores = turned_q @ turned_k.T
    for distance in range(-11, 12):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-6)
    torch.testing.assert_close(rotate(turned_q, cos, -sin), q.expand(12, 8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sizes", [[5, 1, 1, 6, 1, 2], [1] * BLOCK, [1, 15]])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "keys", [{}, {"smear": True, "ngram": 4}, {"bias": True, "ngram": 2}, {"smear": False, "ngram": 3}]
)
def test_cache_gives_the_same_logits(preset: str, keys: dict[str, Any], sizes: list[int]) -> None:
    model, tokens = build(preset, **keys), tokens_of()
    cache = model.new_cache(3)
    with torch.inference_mode():
        parts = [model(piece, cache) for piece in tokens.split(sizes, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=0, atol=1e-5)
    assert cache.length == BLOCK


@pytest.mark.parametrize("preset", PRESETS)
def test_trace_sees_what_forward_computes(preset: str) -> None:
    model, tokens = build(preset), tokens_of()
    trace = model.trace(tokens)
    torch.testing.assert_close(trace.logits, model(tokens).detach(), rtol=0, atol=1e-5)
    assert [tuple(hidden.shape) for hidden in trace.hidden] == [(3, BLOCK, 16)] * 3
    for attention in trace.attention:
        assert attention.shape == (3, 2, BLOCK, BLOCK)
        torch.testing.assert_close(attention.sum(-1), torch.ones(3, 2, BLOCK))
        assert attention.triu(1).abs().max() == 0


def test_trace_of_attention_explains_the_output() -> None:
    model, tokens = build("llama", n_layer=1), tokens_of()
    block, trace = model.blocks[0], model.trace(tokens)
    with torch.no_grad():
        x = block.ln_1(trace.hidden[0])
        v = block.attn.c_attn(x)[..., 32:].view(3, BLOCK, 2, 8).transpose(1, 2)
        y = trace.hidden[0] + block.attn.c_proj((trace.attention[0] @ v).transpose(1, 2).reshape(3, BLOCK, 16))
        torch.testing.assert_close(y + block.mlp(block.ln_2(y)), trace.hidden[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("form", ["explicit", "sdpa", "sdpa32"])
def test_bfloat16_autocast_stays_near_float32(preset: str, form: str) -> None:
    model, tokens = build(preset), tokens_of()
    exact, _ = token_loss(model(tokens), tokens_of(seed=1))
    model.attention = form
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
    nats, _ = token_loss(logits, tokens_of(seed=1))
    nats.backward()
    assert nats.dtype == torch.float32
    assert nats.item() == pytest.approx(exact.item(), rel=0.01)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_dropout_acts_in_training_alone() -> None:
    model, tokens = build(dropout=0.5), tokens_of()
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


def test_softcap_bounds_the_logits() -> None:
    z = torch.tensor([-1000.0, -0.01, 0.0, 0.01, 1000.0])
    torch.testing.assert_close(softcap(z, 15.0), torch.tensor([-15.0, -0.01, 0.0, 0.01, 15.0]), rtol=1e-5, atol=1e-5)
    assert build(softcap=2.0, noise=3.0)(tokens_of()).abs().max() <= 2.0


def test_too_long_a_context_is_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens do not fit the model's block_size = 16"):
        build()(tokens_of(1, BLOCK + 1))


def test_token_loss_ignores_what_is_no_target() -> None:
    logits = torch.randn(2, 3, VOCAB, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, -1, 4], [-1, -1, 2]])
    nats, count = token_loss(logits, targets)
    log_p = F.log_softmax(logits, dim=-1)
    expected = -(log_p[0, 0, 1] + log_p[0, 2, 4] + log_p[1, 2, 2])
    assert count == 3
    torch.testing.assert_close(nats, expected)
    nats, count = token_loss(logits.bfloat16(), torch.full((2, 3), -1))
    assert (nats.dtype, nats.item(), count.item()) == (torch.float32, 0.0, 0)


def test_attention_form_is_chosen_by_shape_and_device() -> None:
    assert choose_attention(torch.device("cpu"), torch.bfloat16, 64, 32, 48) == "explicit"
    assert choose_attention(torch.device("cpu"), torch.float32, 2048, 64, 12) == "sdpa"
    assert choose_attention(torch.device("cuda"), torch.bfloat16, 64, 32, 48) == "sdpa"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_compiler_sees_the_model_as_one_graph(preset: str) -> None:
    """What a GPU compiles: a break would cost it a wait in every step. Traced only; code for a CPU would take a minute."""
    torch.compiler.reset()  # which gives up after a few models in one process
    model, tokens = build(preset, ngram=3), tokens_of()
    model.attention = "sdpa"
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected, found = model(tokens), compiled(tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


PARAMS: dict[str, Any] = {"post_norm": True, "ff_bias": False, "head_bias": True}


@pytest.mark.parametrize("params", [{"post_norm": True}, {"ff_bias": True}, {"head_bias": True}, PARAMS], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_params_learn_look_back_only_and_keep_their_cache(params: dict[str, bool], dropout: float) -> None:
    torch.manual_seed(0)
    model = GPT(config_of("gpt2", bias=True, dropout=dropout), VOCAB, **params).train()
    tokens = tokens_of()
    nats, count = token_loss(model(tokens), tokens_of(seed=1))
    (nats / count).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    whole = model(tokens)
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB
    torch.testing.assert_close(model(changed)[:, :4], whole[:, :4])
    cache = model.new_cache(3)
    with torch.inference_mode():
        parts = [model(piece, cache) for piece in tokens.split([3, *[1] * (BLOCK - 3)], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.trace(tokens).logits, whole, rtol=1e-4, atol=1e-5)


def test_norms_after_the_sums() -> None:
    torch.manual_seed(0)
    model = GPT(config_of("gpt2", bias=True, n_layer=1), VOCAB, post_norm=True).eval()
    x, place = model.embed(tokens_of(), BLOCK, 0)
    block = model.blocks[0]
    middle = block.ln_1(x + block.attn(x, place, "explicit"))
    torch.testing.assert_close(block(x, place, "explicit"), block.ln_2(middle + block.mlp(middle)))
    torch.testing.assert_close(model.trace(tokens_of()).attention[0], block.attn.weights(x, place))
    assert "transformer.ln_f.weight" not in model.state_dict()


def test_the_study_of_modular_addition_has_as_many_parameters() -> None:
    """IFT6135, p = 31: 36 ids, 2 layers of 128, biases in attention, norms after the sums; embeddings not counted."""
    model = GPT(config_of("gpt2", n_embd=128, n_head=4, bias=True, tie_weights=False), 36, **PARAMS)
    assert parameter_count(model, embeddings=False) == 399_908
