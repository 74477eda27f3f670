"""Keys and values of the tokens seen so far, so that a new token costs one token's work; memory is taken once.

Shapes: L layers, B rows, H heads, T new tokens, S tokens in all, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core.models.attention import causal_mask
from core.models.decode import Decoder


class KVCache:
    """Room for `block_size` tokens of `batch_size` rows in each layer; `like` gives dtype and device.

    memory (2, L, BH, S, D): keys, then values, so that one copy stores both of a new token.
    recent (B, R): the last ids, as many as the model looks back for apart from attention; None at the beginning.
    decoder: what computes single tokens, where the model has such a path.
    """

    def __init__(
        self,
        n_layer: int,
        batch_size: int,
        n_head: int,
        block_size: int,
        head_width: int,
        like: Tensor,
        decoder: Decoder | None,
    ) -> None:
        self.length = 0  # tokens held
        self.memory = like.new_empty(2, n_layer, batch_size * n_head, block_size, head_width)
        self.recent: Tensor | None = None
        self.decoder = decoder

    def clear(self) -> None:
        """Forget all tokens; memory and the decoder stay."""
        self.length, self.recent = 0, None

    def recall(self, tokens: Tensor, lookback: int) -> Tensor:
        """Ids (B, T) behind the last `lookback` ones before them, which they then join."""
        if not lookback:
            return tokens
        recent = tokens if self.recent is None else torch.cat((self.recent, tokens), dim=1)
        self.recent = recent[:, -lookback:]
        return recent

    def places(self, n_head: int) -> tuple[Sequence[Tensor], ...]:
        """For each layer: keys (BH, D, S) and values (BH, S, D) with the next token's, and where both of these are to be
        written, (2, B, H, D)."""
        S, (_, L, BH, _, D) = self.length + 1, self.memory.shape
        keys, values = self.memory[:, :, :, :S].unbind()
        new = self.memory[:, :, :, self.length].view(2, L, BH // n_head, n_head, D)
        return keys.transpose(2, 3).unbind(), values.unbind(), new.unbind(1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Take in k and v, then mix: all (B, H, T, D). The model raises `length` after its last layer."""
        B, H, T, D = q.shape
        S = self.length + T
        keys, values = self.memory[:, layer, :, :S]  # (BH, S, D) each
        keys[:, self.length :].copy_(k.reshape(B * H, T, D))
        values[:, self.length :].copy_(v.reshape(B * H, T, D))
        mask = causal_mask(T, S, q.dtype, q.device)
        scores = torch.baddbmm(mask, q.reshape(B * H, T, D), keys.transpose(1, 2), alpha=scale)  # (BH, T, S)
        return torch.bmm(F.softmax(scores, dim=-1), values).view(B, H, T, D)
