"""Causal self-attention in two forms that compute the same: in go queries, keys and values, out comes their mix (B, T, C).

"explicit" writes out the matrix products and their gradient: on a CPU it beats torch's fused kernel at the short contexts
of small models, in bfloat16 by far. "sdpa" is torch.nn.functional.scaled_dot_product_attention: long contexts, GPUs,
dropout. docs/LOG.md has the figures behind `choose_attention`.

Shapes: B rows, T tokens, C channels, H heads, D channels of a head (C = H D), S tokens of context before and with the T.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from core.models.layers import inverse_rms, rms_norm

QK_NORM_SCALE = 1.2 * 1.2  # on the logits: unit-norm queries and keys alone attend too evenly


def choose_attention(
    device: torch.device, dtype: torch.dtype, T: int, D: int, heads: int
) -> Literal["explicit", "sdpa"]:
    """The faster form, "explicit" or "sdpa", for `heads` = B H problems of T tokens and D channels."""
    if device.type != "cpu":
        return "sdpa"
    longest = 512 if dtype == torch.bfloat16 else 256
    return "explicit" if longest >= T else "sdpa"


def split_heads(qkv: Tensor, n_head: int) -> Tensor:
    """(B, T, 3C) to a new (3, B, H, T, D): the memory of each head in one piece."""
    B, T, channels = qkv.shape
    heads = qkv.view(B, T, 3, n_head, channels // (3 * n_head))  # (B, T, 3, H, D)
    return heads.permute(2, 0, 3, 1, 4).contiguous()


def merge_heads(y: Tensor) -> Tensor:
    """(B, H, T, D) to (B, T, C)."""
    B, H, T, D = y.shape
    return y.transpose(1, 2).reshape(B, T, H * D)


def rotary_tables(block_size: int, head_width: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """cos and sin, each (T, D), for `rotate` (RoPE, arXiv:2104.09864); the sign of the sine is in the table."""
    frequency = base ** -(torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.outer(torch.arange(block_size, dtype=torch.float64), frequency)  # (T, D/2)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=1).float(), torch.cat((-sin, sin), dim=1).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """Turn channel i of (..., T, D) with channel i + D/2, by the angle of the token's place; -sin turns back."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin, out=out)


def prepare(qk: Tensor, cos: Tensor | None, sin: Tensor | None, qk_norm: bool) -> Tensor:
    """Queries and keys (2, B, H, T, D) as attention compares them: normalised and rotated where the model does so."""
    if qk_norm:
        qk = rms_norm(qk)
    return qk if cos is None or sin is None else rotate(qk, cos, sin)


def causal_mask(T: int, S: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(T, S): 0 where a token may look, -inf at those after it. The last of the T tokens is the last of the S."""
    if torch.compiler.is_compiling():  # which works it out where it is used
        return torch.full((T, S), -torch.inf, dtype=dtype, device=device).triu(S - T + 1)
    return kept_mask(T, S, dtype, device)


@lru_cache(maxsize=16)
def kept_mask(T: int, S: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a mask first made while sampling must serve training too
        return torch.full((T, S), -torch.inf, dtype=dtype, device=device).triu_(S - T + 1)


def attend(
    qkv: Tensor, n_head: int, cos: Tensor | None, sin: Tensor | None, qk_norm: bool, form: str, dropout: float
) -> Tensor:
    """Causal attention within the T tokens: qkv (B, T, 3C), tables (T, D) in qkv's dtype, out (B, T, C).

    form: "explicit", "sdpa" or "sdpa32" (computed in float32). dropout: probability for an attention weight, sdpa only.
    """
    by_hand = form == "explicit" and not torch.compiler.is_compiling()  # a compiler finds the gradient itself
    if by_hand:
        return ExplicitAttention.apply(qkv, n_head, cos, sin, qk_norm)  # type: ignore[no-any-return, no-untyped-call]
    heads = split_heads(qkv, n_head)
    q, k = prepare(heads[:2], cos, sin, qk_norm)
    v, scale = heads[2], logit_scale(q.shape[-1], qk_norm)
    if form == "explicit":
        weights = attention_weights(q.flatten(0, 1), k.flatten(0, 1), scale)
        return merge_heads(torch.bmm(weights, v.flatten(0, 1)).view(v.shape))
    if form == "sdpa32":
        with torch.autocast(qkv.device.type, enabled=False):
            y = F.scaled_dot_product_attention(
                q.float(), k.float(), v.float(), dropout_p=dropout, is_causal=True, scale=scale
            )
        return merge_heads(y.to(qkv.dtype))
    return merge_heads(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale))


def logit_scale(head_width: int, qk_norm: bool) -> float:
    """What multiplies q k^T before the softmax."""
    return float((QK_NORM_SCALE if qk_norm else 1.0) * head_width**-0.5)


def attention_weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) over the tokens up to a token's own: q and k (BH, T, D), out (BH, T, T)."""
    mask = causal_mask(q.shape[1], q.shape[1], q.dtype, q.device)
    return torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale).softmax(-1)


class ExplicitAttention(torch.autograd.Function):
    """Attention as baddbmm, softmax and bmm, with the gradient by hand.

    Autograd spends half of such a step on copies and scalings of small tensors; here both directions work on one tensor of
    queries, keys and values. With P = softmax(a Q K^T + mask) and Y = P V, from dY come dV = P^T dY, dP = dY V^T,
    dS = P * (dP - sum_j P dP), dQ = a dS K, dK = a dS^T Q; then the rotation is undone and the norm differentiated.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_head: int, cos: Tensor | None, sin: Tensor | None, qk_norm: bool) -> Tensor:
        B, T, channels = qkv.shape
        D = channels // (3 * n_head)
        heads = split_heads(qkv, n_head).view(3, B * n_head, T, D)
        qk, v = heads[:2], heads[2]
        inverse = None
        if qk_norm:
            inverse = inverse_rms(qk)  # (2, BH, T, 1)
            qk = qk * inverse
        if cos is not None and sin is not None:
            qk = rotate(qk, cos, sin)
        weights = attention_weights(qk[0], qk[1], logit_scale(D, qk_norm))
        ctx.save_for_backward(weights, qk, v, inverse, cos, sin)
        return merge_heads(torch.bmm(weights, v).view(B, n_head, T, D))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, qk, v, inverse, cos, sin = ctx.saved_tensors
        (BH, T, D), (B, _, C) = v.shape, grad.shape
        H = C // D
        dy = grad.view(B, T, H, D).transpose(1, 2).reshape(BH, T, D)
        dqkv = grad.new_empty(3, BH, T, D)
        dqk = dqkv[:2]
        torch.bmm(weights.transpose(1, 2), dy, out=dqkv[2])
        ds = torch._softmax_backward_data(torch.bmm(dy, v.transpose(1, 2)), weights, -1, weights.dtype)
        scale = logit_scale(D, inverse is not None)
        torch.baddbmm(dqk[0], ds, qk[1], beta=0, alpha=scale, out=dqk[0])
        torch.baddbmm(dqk[1], ds.transpose(1, 2), qk[0], beta=0, alpha=scale, out=dqk[1])
        if inverse is not None:  # a rotation keeps inner products: the norm's gradient may be taken before it is undone
            along = torch.linalg.vecdot(dqk, qk).unsqueeze(-1)
            dqk.addcmul_(qk, along, value=-1 / D).mul_(inverse)
        if cos is not None:
            rotate(dqk, cos, -sin, out=dqk)
        return dqkv.view(3, B, H, T, D).permute(1, 3, 0, 2, 4).reshape(B, T, 3 * C), None, None, None, None
