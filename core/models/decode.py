"""Decode one token per row: embeddings (B, C) -> logits (B, V), the same as the blocks give.

For a single token, calling an operation costs more than computing it. So this code uses no modules, keeps the weights in
the layout that one token needs, copies a key and its value together, and leaves out every operation that a single token
does not need (docs/LOG.md has the figures).
Shapes: B rows, K heads of keys and values, G queries that share a key, D channels of a head, C channels, L layers,
S tokens with the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.attention import bias, rotate
from core.models.block import Attention, Block, Place
from core.models.cache import KVCache, memory_for
from core.models.layers import GELU, Norm

Apply = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """What a block does to one token (B, C)."""

    norm_1: Apply
    qkv: Apply
    scales: Tensor | None  # (G + 1, 1, D), of each query head of a group, then of the key
    project: Callable[[Tensor, Tensor], Tensor]  # (residual, mixed values) -> residual
    norm_2: Apply
    expand: Apply
    contract: Callable[[Tensor, Tensor], Tensor]


class Context(NamedTuple):
    """What a layer's attention reads and writes for one token of each row.

    keys (B K, D, S), values (B K, S, D): with the new token's. added: to the logits (B K, G, S), with factor `beta`.
    store: takes in the new token's keys and values, (B, 2, K, D).
    """

    keys: Tensor
    values: Tensor
    added: Tensor
    beta: int
    store: Callable[[Tensor], object]


class Decoder(KVCache):
    """A cache with the weights of its model as they are now, ready for single tokens.

    blocks, norm, head: the model's own; batch_size and block_size: rows, and tokens of each, that it has room for.
    """

    def __init__(self, blocks: Sequence[Block], norm: Norm, head: nn.Linear, batch_size: int, block_size: int) -> None:
        like, scheme = head.weight, blocks[0].attn.scheme
        super().__init__(memory_for(len(blocks), scheme, batch_size, block_size, like))
        # The layers differ in their window alone.
        self.scheme, self.windows = replace(scheme, window=0), [block.attn.scheme.window for block in blocks]
        self.group, self.scale = scheme.group, scheme.scale
        # What is added to the logits of the last of block_size tokens; of fewer tokens, it is the end of that.
        self.added = like.new_zeros(1, 1, 1)
        if scheme.alibi:
            added = bias(self.scheme, 1, block_size, like.dtype, like.device)  # (H, 1, S)
            self.added = added.view(scheme.n_kv_head, scheme.group, block_size).repeat(batch_size, 1, 1)  # (B K, G, S)
        self.layers = [
            Layer(
                normed(block.ln_1, like),
                product(block.attn.c_attn),
                scales_of(block.attn),
                residual_product(block.attn.c_proj),
                normed(block.ln_2, like),
                activated(str(block.mlp.activation), product(block.mlp.c_fc)),
                residual_product(block.mlp.c_proj),
            )
            for block in blocks
        ]
        self.norm, self.head, self.eps = normed(norm, like), product(head), like.new_tensor(scheme.norm_eps)

    def decode(self, x: Tensor, place: Place) -> Tensor:
        """Logits (B, V) of one token's embedding (B, C), which follows those of the cache and joins it."""
        scheme, (cos, sin), scale = self.scheme, place, self.scale
        B, G, K, D = x.shape[0], self.group, scheme.n_kv_head, scheme.head_width
        for layer, (keys, values, added, beta, store) in zip(self.layers, self.contexts(B), strict=True):
            qkv = layer.qkv(layer.norm_1(x)).view(B, G + 2, K, D)
            qk = qkv[:, : G + 1]
            if scheme.qk_norm:
                qk.mul_(inverse_rms(qk, self.eps))
            if layer.scales is not None:
                qk.mul_(layer.scales)
            if cos is not None and sin is not None:
                rotate(qk, cos, sin, out=qk)
            store(qkv[:, G:])
            q = qkv[:, :G].reshape(B * K, G, D)
            scores = torch.baddbmm(added, q, keys, beta=beta, alpha=scale)  # (B K, G, S)
            mixed = torch.bmm(torch.softmax(scores, -1), values).view(B, K * G * D)
            x = layer.project(x, mixed)
            x = layer.contract(x, layer.expand(layer.norm_2(x)))
        self.advance()
        return self.head(self.norm(x))

    def advance(self) -> None:
        """Count the token that `decode` has stored."""
        self.length += 1

    def contexts(self, B: int) -> Iterator[Context]:
        """What each layer of `decode` works on."""
        S, (_, L, heads, _, D), beta = self.length + 1, self.memory.shape, int(self.scheme.alibi)
        keys, values = self.memory[:, :, :, :S].unbind()
        new = self.memory[:, :, :, self.length].view(2, L, B, heads // B, D).transpose(0, 2)  # (B, L, 2, K, D)
        layers = zip(self.windows, keys.transpose(2, 3).unbind(), values.unbind(), new.unbind(1), strict=True)
        for window, key, value, place in layers:
            if 0 < window < S:
                key, value = key[:, :, -window:], value[:, -window:]
            added = self.added[:, :, -key.shape[2] :] if beta else self.added
            yield Context(key, value, added, beta, place.copy_)


def normed(module: Norm, like: Tensor) -> Apply:
    """The module's forward, without what its gradient would need. like: has the dtype and device of what is normalised."""
    weight, bias, shape, eps = module.weight, module.bias, module.shape, module.eps
    if module.centred:
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    added = torch.tensor(eps, dtype=like.dtype, device=like.device)
    if weight is None:
        return lambda x: x * inverse_rms(x, added)
    return lambda x: x * inverse_rms(x, added) * weight


def inverse_rms(x: Tensor, eps: Tensor) -> Tensor:
    """As that of core.models.layers, in half the time: a number of Python's becomes a tensor at each operation that takes one."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()


def scales_of(attention: Attention) -> Tensor | None:
    """The learnt factors of queries and keys, as `Layer` has them."""
    if attention.q_norm is None or attention.k_norm is None:
        return None
    queries = attention.q_norm.weight.expand(attention.scheme.group, -1)
    return torch.cat((queries, attention.k_norm.weight.unsqueeze(0))).detach().unsqueeze(1)


def product(linear: nn.Linear) -> Apply:
    """x -> x W' + b. A transposed copy of the weights halves the time of a product with few rows."""
    weight, bias = linear.weight.detach().t().contiguous(), linear.bias
    if bias is None:
        return lambda x: torch.mm(x, weight)
    return lambda x: torch.addmm(bias, x, weight)


def residual_product(linear: nn.Linear) -> Callable[[Tensor, Tensor], Tensor]:
    """(residual, x) -> residual + x W' + b."""
    apply = product(linear)
    return lambda residual, x: apply(x).add_(residual)


def activated(kind: str, apply: Apply) -> Apply:
    """A product and the non-linearity behind it."""
    if kind == "relu2":
        return lambda x: apply(x).relu_().square_()
    if kind in GELU:
        return lambda x: F.gelu(apply(x), approximate=GELU[kind])

    def swiglu(x: Tensor) -> Tensor:
        gate, value = apply(x).chunk(2, dim=-1)
        return F.silu(gate).mul_(value)

    return swiglu
