"""Causal self-attention: queries, keys and values -> a weighted mean of the values for each token (B, T, C).

A `Scheme` says what a layer's attention computes, and every way of computing it reads it there: training in three forms,
the cache, the decoder of single tokens and `GPT.trace`. They share one function each for the cut into heads
(`split_heads`), norm and rotation (`prepare`), mask and bias (`bias`) and the mix (`mix`).

The forms compute the same. "explicit" writes out the matrix products and their gradient: on a CPU it beats torch's fused
kernel at the short contexts of small models, in bfloat16 by far. "sdpa" is torch's scaled_dot_product_attention: long
contexts, GPUs, dropout; "sdpa32" is that in float32. docs/LOG.md has the figures behind `choose_attention`.

Shapes: B rows, T tokens, C channels, H heads of queries, K heads of keys and values, G = H / K queries that share a key,
D channels of a head (H D in all, mostly C), S tokens of context before and with the T. Head h of the queries goes with head h // G of
the keys, so (B H, T, D) read as (B K, G T, D) has all that meets one key in one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from core.config import Model
from core.models.layers import inverse_rms, rms_norm

QK_NORM_SCALE = 1.2 * 1.2  # on the logits: unit-norm queries and keys alone attend too evenly
Scales = tuple[Tensor, Tensor] | None  # learnt factors of the channels (D,) of normalised queries, and of keys


@dataclass(frozen=True)
class Scheme:
    """What attention computes in one layer."""

    n_head: int
    n_kv_head: int  # fewer than n_head: grouped queries (arXiv:2305.13245)
    head_width: int  # channels
    qk_norm: bool = False
    qk_scale: bool = False  # normalised queries and keys have learnt factors, in place of QK_NORM_SCALE
    norm_eps: float = 1e-6
    window: int = 0  # tokens that a token sees, itself included; 0: all up to its own
    alibi: bool = False  # logits fall with the distance (arXiv:2108.12409)

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return self.n_head // self.n_kv_head

    @property
    def scale(self) -> float:
        """What multiplies q k^T before the softmax."""
        return float((QK_NORM_SCALE if self.qk_norm and not self.qk_scale else 1.0) * self.head_width**-0.5)

    @property
    def rows(self) -> list[int]:
        """Rows of queries, keys and values in the matrix that makes them, from top to bottom."""
        return [heads * self.head_width for heads in (self.n_head, self.n_kv_head, self.n_kv_head)]

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(projections, heads of each): neighbours with as many heads are cut as one, which is one copy instead of two."""
        return ((3, self.n_head),) if self.group == 1 else ((1, self.n_head), (2, self.n_kv_head))


def scheme_of(config: Model, layer: int) -> Scheme:
    """The scheme of one layer of a resolved config."""
    assert config.n_kv_head and config.block_size and config.head_width and config.norm_eps is not None
    short = config.window_pattern[layer % len(config.window_pattern)] == "S"
    return Scheme(
        config.n_head,
        config.n_kv_head,
        config.head_width,
        bool(config.qk_norm),
        bool(config.qk_scale),
        config.norm_eps,
        config.window if short and config.window < config.block_size else 0,
        config.position == "alibi",
    )


def choose_attention(
    device: torch.device, dtype: torch.dtype, T: int, D: int, heads: int
) -> Literal["explicit", "sdpa"]:
    """The faster form, "explicit" or "sdpa", for `heads` = B H problems of T tokens and D channels."""
    if device.type != "cpu":
        return "sdpa"
    longest = 512 if dtype == torch.bfloat16 else 256
    return "explicit" if longest >= T else "sdpa"


def rotary_tables(block_size: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin, each (T, D) in float64, for `rotate` (RoPE, arXiv:2104.09864); the sine's sign is in the table."""
    frequency = base ** -(torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.outer(torch.arange(block_size, dtype=torch.float64), frequency)  # (T, D/2)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """Turn channel i of (..., T, D) with channel i + D/2, by the angle of the token's place; -sin turns back."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin, out=out)


def split_heads(qkv: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """(B, T, (H + 2K) D) to queries above keys (B (H + K), T, D), and values (B K, T, D): each head in one piece of memory."""
    (B, T, _), D, slabs = qkv.shape, scheme.head_width, []
    parts = qkv.split_with_sizes([n * each * D for n, each in scheme.parts], dim=-1)
    for part, (n, each) in zip(parts, scheme.parts, strict=True):
        slab = part.view(B, T, n, each, D).permute(2, 0, 3, 1, 4)  # (n, B, each, T, D)
        slabs.append(slab.contiguous().view(n * B * each, T, D))
    heads = slabs[0] if len(slabs) == 1 else torch.cat(slabs)
    values = B * scheme.n_kv_head
    return heads[:-values], heads[-values:]


def join_heads(heads: Tensor, scheme: Scheme) -> Tensor:
    """Back from queries above keys above values, (B (H + 2K), T, D), to (B, T, (H + 2K) D)."""
    (_, T, D), B, parts = heads.shape, len(heads) // (scheme.n_head + 2 * scheme.n_kv_head), []
    slabs = heads.split_with_sizes([n * B * each for n, each in scheme.parts])
    for slab, (n, each) in zip(slabs, scheme.parts, strict=True):
        parts.append(slab.view(n, B, each, T, D).permute(1, 3, 0, 2, 4).reshape(B, T, n * each * D))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def grouped(qk: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Queries above keys (B (H + K), T, D) to queries (B K, G T, D) and keys (B K, T, D)."""
    (N, T, D), G = qk.shape, scheme.group
    keys = N // (G + 1)  # B K
    return qk[:-keys].view(keys, G * T, D), qk[-keys:]


def merge_heads(y: Tensor, scheme: Scheme) -> Tensor:
    """(B K, G T, D) to (B, T, C)."""
    D, B = y.shape[-1], len(y) // scheme.n_kv_head
    y = y.view(B, scheme.n_head, -1, D)  # (B, H, T, D)
    return y.transpose(1, 2).reshape(B, y.shape[2], scheme.n_head * D)


def prepare(qk: Tensor, cos: Tensor | None, sin: Tensor | None, scheme: Scheme, scales: Scales = None) -> Tensor:
    """Queries above keys (N, T, D) as attention compares them: normalised, scaled and rotated where the model does so."""
    return prepared(qk, cos, sin, scheme, None if scales is None else of_each_head(scales, len(qk), scheme))


def prepared(x: Tensor, cos: Tensor | None, sin: Tensor | None, scheme: Scheme, factors: Tensor | None) -> Tensor:
    """`prepare` for (..., T, D) with learnt factors that fit it."""
    if scheme.qk_norm:
        x = rms_norm(x, scheme.norm_eps)
    if factors is not None:
        x = x * factors.to(x.dtype)
    return x if cos is None or sin is None else rotate(x, cos, sin)


def of_each_head(scales: tuple[Tensor, Tensor], N: int, scheme: Scheme) -> Tensor:
    """The factors of N heads, queries above keys: (N, 1, D)."""
    keys = N // (scheme.group + 1)
    return torch.cat((scales[0].expand(N - keys, 1, -1), scales[1].expand(keys, 1, -1)))


def bias(scheme: Scheme, T: int, S: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to the logits of T tokens, the last of which is the last of the S: (T, S), with alibi (H, T, S).

    -inf where a token must not look: after itself, and before its window. Elsewhere 0, or what alibi takes off.
    """
    # A compiler works the mask out where it is used.
    masked = mask if torch.compiler.is_compiling() else kept_mask
    allowed = masked(T, S, scheme.window, dtype, device)
    if not scheme.alibi:
        return allowed
    wide = torch.promote_types(dtype, torch.float32)  # bfloat16 cannot count beyond 256
    place = torch.arange(S, dtype=wide, device=device)
    distance = place - place[S - T :, None]  # (T, S), 0 for a token itself, -1 for the one before
    return (allowed + alibi_slopes(scheme.n_head, wide, device)[:, None, None] * distance).to(dtype)


def mask(T: int, S: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(T, S): -inf where a token must not look, else 0."""
    never = torch.full((T, S), -torch.inf, dtype=dtype, device=device)
    after = never.triu(S - T + 1)
    return after + never.tril(S - T - window) if window else after


@lru_cache(maxsize=16)
def kept_mask(T: int, S: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`mask`, which most calls ask for again."""
    with torch.inference_mode(False):  # one that was first made while sampling must serve training too
        return mask(T, S, window, dtype, device)


def alibi_slopes(n_head: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a step of distance takes off the logits of each head, (H,): 2^(-8/n), 2^(-16/n), ... for n heads.

    Where H is no power of two, n is the one below, and the others are every second one of 2n heads (arXiv:2108.12409).
    """
    n = 2 ** (n_head.bit_length() - 1)
    first = torch.arange(1, n + 1, dtype=dtype, device=device) * (8 / n)
    rest = (2 * torch.arange(n_head - n, dtype=dtype, device=device) + 1) * (4 / n)
    return torch.exp2(-torch.cat((first, rest)))


def attention_weights(q: Tensor, k: Tensor, scheme: Scheme) -> Tensor:
    """softmax(scale q k^T + bias): q (B K, G T, D) and k (B K, S, D), out (B K, G T, S)."""
    (N, rows, _), S, G = q.shape, k.shape[1], scheme.group
    added = bias(scheme, rows // G, S, q.dtype, q.device)
    if scheme.alibi:
        added = added.view(scheme.n_kv_head, rows, S).repeat(N // scheme.n_kv_head, 1, 1)  # (B K, G T, S)
    elif G > 1:
        added = added.repeat(G, 1)  # (G T, S)
    return torch.baddbmm(added, q, k.transpose(1, 2), alpha=scheme.scale).softmax(-1)


def mix(q: Tensor, k: Tensor, v: Tensor, scheme: Scheme) -> Tensor:
    """Attention's output (B K, G T, D) for prepared queries (B K, G T, D), keys and values (B K, S, D)."""
    return torch.bmm(attention_weights(q, k, scheme), v)


def fused_mix(q: Tensor, k: Tensor, v: Tensor, scheme: Scheme, dropout: float) -> Tensor:
    """`mix` by scaled_dot_product_attention, for keys of the same T tokens as the queries."""
    (N, T, D), K = k.shape, scheme.n_kv_head
    heads, shared = (N // K, scheme.n_head, T, D), (N // K, K, T, D)
    y = fused(q.view(heads), k.view(shared), v.view(shared), scheme, dropout)
    return y.reshape(N, scheme.group * T, D)  # some kernels put tokens before heads


def fused(q: Tensor, k: Tensor, v: Tensor, scheme: Scheme, dropout: float) -> Tensor:
    """Attention's output (B, H, T, D) for queries (B, H, T, D), keys and values (B, K, T, D). On a GPU without windows and alibi, no
    kernel holds a (T, T) matrix."""
    T = q.shape[2]
    plain = not (scheme.window or scheme.alibi)
    added = None if plain else bias(scheme, T, T, q.dtype, q.device)
    if not plain and scheme.group > 1:  # no fused kernel takes both a mask and shared keys
        k, v = (x.repeat_interleave(scheme.group, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(
        q, k, v, added, dropout_p=dropout, is_causal=plain, scale=scheme.scale, enable_gqa=plain and scheme.group > 1
    )


def attend_in_views(
    qkv: Tensor, scheme: Scheme, cos: Tensor | None, sin: Tensor | None, dropout: float, scales: Scales
) -> Tensor:
    """`attend` by scaled_dot_product_attention, which on a GPU reads heads where they are: queries, keys and values are not copied."""
    (B, T, _), D = qkv.shape, scheme.head_width
    q, k, v = (part.view(B, T, -1, D).transpose(1, 2) for part in qkv.split_with_sizes(scheme.rows, dim=-1))
    q_scale, k_scale = scales or (None, None)
    q, k = prepared(q, cos, sin, scheme, q_scale), prepared(k, cos, sin, scheme, k_scale)
    y = fused(q, k, v, scheme, dropout)  # (B, H, T, D)
    return y.transpose(1, 2).reshape(B, T, scheme.n_head * D)


def attend(
    qkv: Tensor,
    scheme: Scheme,
    cos: Tensor | None,
    sin: Tensor | None,
    form: str,
    dropout: float = 0.0,
    scales: Scales = None,
) -> Tensor:
    """Attention within the T tokens: qkv (B, T, (H + 2K) D), tables (T, D) in qkv's dtype, out (B, T, H D).

    form: "explicit", "sdpa" or "sdpa32". dropout: probability for an attention weight; not for "explicit".
    """
    if form == "explicit" and not torch.compiler.is_compiling():  # a compiler finds the gradient itself
        return ExplicitAttention.apply(qkv, scheme, cos, sin, *(scales or (None, None)))  # type: ignore[no-any-return, no-untyped-call]
    if form == "sdpa" and qkv.is_cuda:
        return attend_in_views(qkv, scheme, cos, sin, dropout, scales)
    qk, v = split_heads(qkv, scheme)
    q, k = grouped(prepare(qk, cos, sin, scheme, scales), scheme)
    if form == "explicit":
        y = mix(q, k, v, scheme)
    elif form == "sdpa":
        y = fused_mix(q, k, v, scheme, dropout)
    else:
        with torch.autocast(qkv.device.type, enabled=False):
            y = fused_mix(q.float(), k.float(), v.float(), scheme, dropout).to(qkv.dtype)
    return merge_heads(y, scheme)


class ExplicitAttention(torch.autograd.Function):
    """Attention as baddbmm, softmax and bmm, with the gradient by hand.

    Autograd spends half of such a step on copies and scalings of small tensors; here both directions work on one tensor of
    queries, keys and values. With P = softmax(a Q K^T + bias) and Y = P V, from dY come dV = P^T dY, dP = dY V^T,
    dS = P * (dP - sum_j P dP), dQ = a dS K, dK = a dS^T Q; then the rotation is undone and the norm differentiated.
    Queries that share a key are rows of one matrix, so that these products sum over them.
    With learnt scales Z = N * s of the normalised N: dN = dZ * s, ds = sum over heads and tokens of dZ * N.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        scheme: Scheme,
        cos: Tensor | None,
        sin: Tensor | None,
        q_scale: Tensor | None,
        k_scale: Tensor | None,
    ) -> Tensor:
        qk, v = split_heads(qkv, scheme)
        inverse = unit = scales = None
        if scheme.qk_norm:
            inverse = inverse_rms(qk, scheme.norm_eps)  # (B (H + K), T, 1)
            qk = qk * inverse
        if q_scale is not None and k_scale is not None:
            unit, scales = qk, of_each_head((q_scale, k_scale), len(qk), scheme).to(qk.dtype)
            qk = unit * scales
        if cos is not None and sin is not None:
            qk = rotate(qk, cos, sin)
        weights = attention_weights(*grouped(qk, scheme), scheme)
        ctx.save_for_backward(weights, qk, v, inverse, cos, sin, unit, scales)
        ctx.scheme = scheme
        return merge_heads(torch.bmm(weights, v), scheme)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, qk, v, inverse, cos, sin, unit, scales = ctx.saved_tensors
        scheme, (N, T, D), (B, _, _) = ctx.scheme, v.shape, grad.shape
        q, k = grouped(qk, scheme)
        dy = grad.view(B, T, scheme.n_head, D).transpose(1, 2).reshape(q.shape)  # (B K, G T, D)
        heads = grad.new_empty(len(qk) + N, T, D)
        dqk, dv = heads[:-N], heads[-N:]
        dq, dk = grouped(dqk, scheme)
        torch.bmm(weights.transpose(1, 2), dy, out=dv)
        ds = torch._softmax_backward_data(torch.bmm(dy, v.transpose(1, 2)), weights, -1, weights.dtype)
        torch.baddbmm(dq, ds, k, beta=0, alpha=scheme.scale, out=dq)
        torch.baddbmm(dk, ds.transpose(1, 2), q, beta=0, alpha=scheme.scale, out=dk)
        if unit is None and inverse is not None:
            norm_backward_(dqk, qk, inverse)  # a rotation keeps inner products: this may be done before it is undone
        if cos is not None:
            rotate(dqk, cos, -sin, out=dqk)
        if unit is None:
            return join_heads(heads, scheme), None, None, None, None, None
        of_scales = dqk * unit
        norm_backward_(dqk.mul_(scales), unit, inverse)
        gradients = of_scales[:-N].sum((0, 1)), of_scales[-N:].sum((0, 1))
        return join_heads(heads, scheme), None, None, None, *gradients


def norm_backward_(grad: Tensor, unit: Tensor, inverse: Tensor) -> None:
    """Turn the gradient of the normalised `unit` = x * inverse (N, T, D) into that of x, in place."""
    along = torch.linalg.vecdot(grad, unit).unsqueeze(-1)
    grad.addcmul_(unit, along, value=-1 / grad.shape[-1]).mul_(inverse)
