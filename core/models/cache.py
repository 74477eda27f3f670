"""Keys and values of the tokens seen so far, so that a new token costs one token's work; memory is taken once.

Shapes: B rows, H heads, T new tokens, S tokens in all, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.models.attention import causal_mask


class KVCache:
    """Room for `block_size` tokens of `batch_size` rows in each layer; `like` gives dtype and device."""

    def __init__(
        self, n_layer: int, batch_size: int, n_head: int, block_size: int, head_width: int, like: Tensor
    ) -> None:
        self.length = 0  # tokens held
        shape = (n_layer, batch_size * n_head, block_size, head_width)
        self.keys, self.values, self.nothing = like.new_empty(shape), like.new_empty(shape), like.new_zeros(())

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Take in k and v, then mix: all (B, H, T, D). The model raises `length` after its last layer."""
        B, H, T, D = q.shape
        S = self.length + T
        keys, values = self.keys[layer, :, :S], self.values[layer, :, :S]  # (BH, S, D)
        keys[:, self.length :].copy_(k.reshape(B * H, T, D))
        values[:, self.length :].copy_(v.reshape(B * H, T, D))
        q = q.reshape(B * H, T, D)
        if T == 1:  # the one new token may look everywhere
            scores = torch.baddbmm(self.nothing, q, keys.transpose(1, 2), beta=0, alpha=scale)  # (BH, 1, S)
        else:
            scores = torch.baddbmm(causal_mask(T, S, q.dtype, q.device), q, keys.transpose(1, 2), alpha=scale)
        return torch.bmm(F.softmax(scores, dim=-1), values).view(B, H, T, D)
