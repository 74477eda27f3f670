"""A cache of keys and values, so that a new token costs the work of one token. Its memory is allocated once.

Shapes: L layers, B rows, K heads of keys and values, G queries that share a key, T new tokens, S tokens in all, D channels
of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.models.attention import Scheme, mix


def memory_for(n_layer: int, scheme: Scheme, batch_size: int, block_size: int, like: Tensor) -> Tensor:
    """Room for `block_size` tokens of `batch_size` rows, not initialised. scheme: gives heads and width; `like` gives dtype
    and device."""
    return like.new_empty(2, n_layer, batch_size * scheme.n_kv_head, block_size, scheme.head_width)


class KVCache:
    """The keys and values of `length` tokens of B rows.

    memory (2, L, B K, S, D): keys, then values, so that one copy stores both of a new token; see `memory_for`.
    recent (B, R): the last ids, as many as the model looks back for apart from attention; None at the beginning.
    """

    def __init__(self, memory: Tensor) -> None:
        self.length = 0  # tokens held
        self.memory = memory
        self.recent: Tensor | None = None

    @property
    def longest(self) -> int:
        """The most tokens that a row holds."""
        return self.length

    def clear(self) -> None:
        """Forget all tokens; the memory stays."""
        self.length, self.recent = 0, None

    def take(self, other: KVCache) -> None:
        """Hold what another cache of as many rows holds."""
        self.memory[:, :, :, : other.length].copy_(other.memory[:, :, :, : other.length])
        self.length, self.recent = other.length, other.recent

    def row(self, row: int, heads: int) -> KVCache:
        """What is held of one row. heads: of keys and values that a row has."""
        found = KVCache(self.memory[:, :, row * heads : (row + 1) * heads])
        found.length, found.recent = self.length, None if self.recent is None else self.recent[row : row + 1]
        return found

    def recall(self, tokens: Tensor, lookback: int) -> Tensor:
        """Put the last `lookback` ids in front of new ids (B, T), and remember the last ones of the result."""
        if not lookback:
            return tokens
        recent = tokens if self.recent is None else torch.cat((self.recent, tokens), dim=1)
        self.recent = recent[:, -lookback:]
        return recent

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scheme: Scheme) -> Tensor:
        """Store k and v (B K, T, D), then attend with q (B K, G T, D). The model raises `length` after its last layer."""
        keys, values = self.memory[:, layer, :, : self.length + k.shape[1]]  # (B K, S, D) each
        keys[:, self.length :].copy_(k)
        values[:, self.length :].copy_(v)
        return mix(q, keys, values, scheme)
