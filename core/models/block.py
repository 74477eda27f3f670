"""A block of GPT: attention, then feed-forward, each added to the hidden states (B, T, C).

Shapes: B rows, T tokens, C channels, H heads of queries, K of keys and values, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from core.config import Model
from core.models.attention import (
    QK_NORM_SCALE,
    Scales,
    attend,
    attention_weights,
    grouped,
    merge_heads,
    prepare,
    scheme_of,
    split_heads,
)
from core.models.cache import KVCache
from core.models.layers import FeedForward, Norm, Scale

Place = tuple[Tensor | None, Tensor | None]  # tables of cos and sin, each (T, D), for rope


class Attention(nn.Module):
    """Queries, keys and values from one matrix ((H + 2K) D, C), attention by the layer's scheme, output projection."""

    def __init__(self, config: Model, layer: int) -> None:
        super().__init__()
        assert config.bias is not None and config.qkv_bias is not None
        self.scheme, self.dropout = scheme_of(config, layer), config.dropout
        self.c_attn = nn.Linear(config.n_embd, sum(self.scheme.rows), bias=config.qkv_bias)
        self.c_proj = nn.Linear(self.scheme.rows[0], config.n_embd, bias=config.bias)
        D, start = self.scheme.head_width, QK_NORM_SCALE**0.5
        scaled = self.scheme.qk_scale
        self.q_norm: Scale | None = Scale(D, start) if scaled else None
        self.k_norm: Scale | None = Scale(D, start) if scaled else None

    @property
    def scales(self) -> Scales:
        """The learnt factors of normalised queries and keys, each (D,)."""
        return None if self.q_norm is None or self.k_norm is None else (self.q_norm.weight, self.k_norm.weight)

    def forward(self, x: Tensor, place: Place, form: str) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        y = attend(self.c_attn(x), self.scheme, *place, "sdpa" if dropout else form, dropout, self.scales)
        return self.c_proj(y)  # type: ignore[no-any-return]

    def cached(self, x: Tensor, place: Place, cache: KVCache, layer: int) -> Tensor:
        """`forward` for tokens that follow those of the cache, which takes their keys and values in."""
        qk, v = split_heads(self.c_attn(x), self.scheme)
        q, k = grouped(prepare(qk, *place, self.scheme, self.scales), self.scheme)
        y = cache.attend(layer, q, k, v, self.scheme)
        return self.c_proj(merge_heads(y, self.scheme))  # type: ignore[no-any-return]

    def weights(self, x: Tensor, place: Place) -> Tensor:
        """The attention map (B, H, T, T)."""
        qk, _ = split_heads(self.c_attn(x), self.scheme)
        weights = attention_weights(*grouped(prepare(qk, *place, self.scheme, self.scales), self.scheme), self.scheme)
        return weights.view(x.shape[0], self.scheme.n_head, x.shape[1], x.shape[1])


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)). layer: its number, from 0.

    post_norm: norm(x + attention(x)), then norm(x + feed-forward(x)), as in arXiv:1706.03762. ff_bias: biases in the
    feed-forward layer; None: as train.model.bias says.
    """

    def __init__(self, config: Model, layer: int, *, post_norm: bool = False, ff_bias: bool | None = None) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.ln_1, self.attn = Norm(config), Attention(config, layer)
        self.ln_2, self.mlp = Norm(config), FeedForward(config, ff_bias)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None

    def forward(self, x: Tensor, place: Place, form: str) -> Tensor:
        if self.post_norm:
            return self.after(x, lambda x: self.attn(x, place, form))
        if self.dropout is None:
            x = x + self.attn(self.ln_1(x), place, form)
            return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]
        x = x + self.dropout(self.attn(self.ln_1(x), place, form))
        return x + self.dropout(self.mlp(self.ln_2(x)))  # type: ignore[no-any-return]

    def cached(self, x: Tensor, place: Place, cache: KVCache, layer: int) -> Tensor:
        if self.post_norm:
            return self.after(x, lambda x: self.attn.cached(x, place, cache, layer))
        x = x + self.attn.cached(self.ln_1(x), place, cache, layer)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]

    def after(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """The block with norms after the sums."""
        x = self.ln_1(x + self.dropped(attention(x)))
        return cast(Tensor, self.ln_2(x + self.dropped(self.mlp(x))))

    def dropped(self, x: Tensor) -> Tensor:
        """Some channels of a branch, in training."""
        return x if self.dropout is None else self.dropout(x)

    def attended(self, x: Tensor) -> Tensor:
        """What attention sees of the block's input."""
        return x if self.post_norm else self.ln_1(x)
