"""GPT for JAX: weights by torch's names and ids (B, T) -> the sum of -ln p(target). What core.models.gpt computes, to the letter.

Shapes: B rows, T tokens, C channels, H heads of queries, K of keys and values, G = H / K, D channels of a head, V ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

from core.config import Model
from core.models.attention import Scheme, alibi_slopes, rotary_tables, scheme_of
from core.models.loss import WHOLE

Weights = Mapping[str, Array]
LONG = 512  # tokens: of longer rows, the (T, T) attention weights are computed again for the gradient, not kept
CPU = torch.device("cpu")
ATTENTION, BRANCH, EMBEDDING = 0, 1, 3  # places of dropout; BRANCH + 0 behind attention, BRANCH + 1 behind feed-forward


@dataclass(frozen=True)
class Gpt:
    """The model of a resolved [train.model]. dtype: of matrix products and hidden states; weights keep their own."""

    config: Model
    vocab_size: int
    dtype: Any = jnp.float32
    constrain: Callable[[Array], Array] = lambda x: x  # (B, ...) -> the same, laid out over devices by its rows

    def nats(self, weights: Weights, ids: Array, targets: Array, key: Array | None = None) -> Array:
        """The sum of -ln p(target) over targets (B, T), -1 where there is none. key: of dropout's random numbers.

        Where all logits together would be large, they are computed in parts of a row, again for the gradient.
        """
        x = self.hidden(weights, ids, key)
        parts = parts_of(x.shape[1], x.shape[0] * x.shape[1] * self.vocab_size)
        if parts == 1 or self.config.ngram:
            return nats_of(self.head(weights, x, ids), targets)
        head = jax.checkpoint(lambda x, wanted: nats_of(self.head(weights, x, ids), wanted))
        cut = [jnp.moveaxis(each.reshape(each.shape[0], parts, -1, *each.shape[2:]), 1, 0) for each in (x, targets)]
        found, _ = jax.lax.scan(lambda total, part: (total + head(*part), None), jnp.zeros((), wide(x.dtype)), cut)
        return found

    def hidden(self, weights: Weights, ids: Array, key: Array | None) -> Array:
        """The last block's output (B, T, C)."""
        x, config = weights["transformer.wte.weight"][ids], self.config
        assert config.norm_eps is not None and config.head_width and config.block_size
        T = ids.shape[1]
        if config.norm == "rmsnorm":
            x = rms_norm(x, config.norm_eps)
        if config.smear:
            x = x + jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0))) * weights["smear.share"].astype(x.dtype)
        if config.position == "learned":
            x = x + weights["transformer.wpe.weight"][:T]
        x = self.dropped(x, key, config.n_layer, EMBEDDING).astype(self.dtype)
        place = None
        if config.position == "rope":
            tables = rotary_tables(config.block_size, config.head_width, config.rope_base)
            place = [jnp.asarray(table[:T].float().numpy(), self.dtype)[:, None] for table in tables]  # (T, 1, D)
        for layer in range(config.n_layer):
            x = self.block(weights, f"transformer.h.{layer}", layer, x, place, key)
        return x

    def block(self, weights: Weights, name: str, layer: int, x: Array, place: Any, key: Array | None) -> Array:
        """A block's output (B, T, C)."""
        x = self.constrain(x)
        y = self.attention(weights, f"{name}.attn", layer, self.norm(weights, f"{name}.ln_1", x), place, key)
        x = x + self.dropped(y, key, layer, BRANCH)
        y = self.linear(weights, f"{name}.mlp.c_fc", self.norm(weights, f"{name}.ln_2", x))
        y = self.linear(weights, f"{name}.mlp.c_proj", activated(y, str(self.config.activation)))
        return x + self.dropped(y, key, layer, BRANCH + 1)

    def attention(self, weights: Weights, name: str, layer: int, x: Array, place: Any, key: Array | None) -> Array:
        """Attention's output (B, T, C) for a block's normalised input."""
        scheme = scheme_of(self.config, layer)
        (B, T, _), K, G, D = x.shape, scheme.n_kv_head, scheme.group, scheme.head_width
        qkv = self.linear(weights, f"{name}.c_attn", x).reshape(B, T, -1, D)
        q, k, v = jnp.split(qkv, [scheme.n_head, scheme.n_head + K], axis=2)
        if scheme.qk_norm:
            q, k = rms_norm(q, scheme.norm_eps), rms_norm(k, scheme.norm_eps)
        if scheme.qk_scale:
            q, k = (x * weights[f"{name}.{which}_norm.weight"].astype(x.dtype) for x, which in ((q, "q"), (k, "k")))
        if place is not None:
            q, k = rotate(q, *place), rotate(k, *place)

        def mixed(q: Array, k: Array, v: Array) -> Array:
            scores = jnp.einsum("btkgd,bskd->bkgts", q, k, preferred_element_type=wide(q.dtype)) * scheme.scale
            shares = jax.nn.softmax(scores + bias(scheme, T, scores.dtype), axis=-1)
            shares = self.dropped(shares, key, layer, ATTENTION).astype(v.dtype)
            return jnp.einsum("bkgts,bskd->btkgd", shares, v)

        y = (jax.checkpoint(mixed) if T > LONG else mixed)(q.reshape(B, T, K, G, D), k, v)
        return self.linear(weights, f"{name}.c_proj", y.reshape(B, T, -1))

    def head(self, weights: Weights, x: Array, ids: Array) -> Array:
        """Logits (B, T, V), float32 at least."""
        tied = "transformer.wte" if self.config.tie_weights else "lm_head"
        logits = product(self.norm(weights, "transformer.ln_f", x), weights[f"{tied}.weight"])
        logits = logits.astype(wide(logits.dtype))
        if self.config.ngram:
            logits = logits + ngram_logits(weights, ids, self.config.ngram, self.vocab_size)
        cap = self.config.softcap
        return jnp.tanh(logits / cap) * cap if cap else logits

    def norm(self, weights: Weights, name: str, x: Array) -> Array:
        assert self.config.norm_eps is not None
        if self.config.norm == "layernorm":
            high = x.astype(wide(x.dtype))
            high = high - high.mean(-1, keepdims=True)
            y = high * jax.lax.rsqrt((high * high).mean(-1, keepdims=True) + self.config.norm_eps)
            y = y * weights[f"{name}.weight"]
            return (y + weights[f"{name}.bias"] if self.config.bias else y).astype(x.dtype)
        y = rms_norm(x, self.config.norm_eps)
        return y if self.config.norm == "rmsnorm" else y * weights[f"{name}.weight"].astype(x.dtype)

    def linear(self, weights: Weights, name: str, x: Array) -> Array:
        y = product(x, weights[f"{name}.weight"])
        return y + weights[f"{name}.bias"].astype(y.dtype) if f"{name}.bias" in weights else y

    def dropped(self, x: Array, key: Array | None, layer: int, place: int) -> Array:
        """Some numbers set to zero, in training. Which ones: by the step's key, the layer and the place in it."""
        share = 1 - self.config.dropout
        if share == 1 or key is None:
            return x
        kept = jax.random.bernoulli(jax.random.fold_in(key, 4 * layer + place), share, x.shape)
        return jnp.where(kept, x / share, 0).astype(x.dtype)


def wide(dtype: Any) -> Any:
    """float32 for bfloat16, else the dtype itself."""
    return jnp.promote_types(dtype, jnp.float32)


def product(x: Array, weight: Array) -> Array:
    """x (..., C) times weight (F, C) transposed, in the precision of x."""
    return jnp.einsum("...c,fc->...f", x, weight.astype(x.dtype))


def rms_norm(x: Array, eps: float) -> Array:
    """x / sqrt(mean of squares + eps) over the last dimension."""
    high = x.astype(wide(x.dtype))
    return (high * jax.lax.rsqrt((high * high).mean(-1, keepdims=True) + eps)).astype(x.dtype)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """core.models.attention.rotate for (B, T, H, D) and tables (T, 1, D)."""
    return x * cos + jnp.roll(x, x.shape[-1] // 2, axis=-1) * sin


def activated(x: Array, activation: str) -> Array:
    """The feed-forward layer's non-linearity."""
    if activation == "relu2":
        return jnp.square(jax.nn.relu(x))
    if activation == "swiglu":
        gate, value = jnp.split(x, 2, axis=-1)
        return jax.nn.silu(gate) * value
    return jax.nn.gelu(x, approximate=activation == "gelu_tanh")


def bias(scheme: Scheme, T: int, dtype: Any) -> Array:
    """What is added to the scores: -inf where a token must not look, and what alibi takes off: (T, T), or (K, G, T, T)."""
    distance = np.arange(T) - np.arange(T)[:, None]  # 0 for a token itself, -1 for the one before
    seen = (distance <= 0) & ((distance > -scheme.window) if scheme.window else True)
    added = jnp.where(seen, 0.0, -jnp.inf).astype(dtype)
    if not scheme.alibi:
        return added
    slopes = jnp.asarray(alibi_slopes(scheme.n_head, torch.float64, CPU).numpy(), dtype)
    return added + slopes.reshape(scheme.n_kv_head, scheme.group, 1, 1) * distance


def ngram_logits(weights: Weights, ids: Array, order: int, vocab_size: int) -> Array:
    """core.models.ngrams.NGrams: logits (B, T, V) by the last id, by the last two, and so on."""
    row, logits = ids, weights["ngrams.tables.0.weight"][ids]
    for length in range(2, order):
        earlier = jnp.pad(ids, ((0, 0), (length - 1, 0)), constant_values=-1)[:, : ids.shape[1]]
        row = row + vocab_size ** (length - 1) * earlier
        known = jnp.where(earlier < 0, vocab_size**length, row)
        learnt = (earlier >= 0)[..., None]  # the table's last row stays zero
        logits = logits + jnp.where(learnt, weights[f"ngrams.tables.{length - 1}.weight"][known], 0.0)
    return logits


def nats_of(logits: Array, targets: Array) -> Array:
    """Sum of -ln p(target) of logits (B, T, V) and targets (B, T)."""
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(targets >= 0, jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0).sum()


def parts_of(T: int, logits: int) -> int:
    """Into how many parts a row is cut so that the logits of each are at most WHOLE, as far as T can be divided."""
    least = math.ceil(logits / WHOLE)
    return next((parts for parts in range(least, T) if T % parts == 0), T) if least > 1 else 1
