"""Decode rows of different lengths together: one token of each row in, its logits out. Rows begin and end at any time.

On a CPU, a row's logits are the same bits whoever else is there, as far as the matrix library sums alike for different
numbers of rows and tokens. It does from FEWEST rows, for multiples of STRIDE tokens and from heads of 16 channels on (docs/LOG.md),
so such numbers of rows and tokens are computed.
Shapes: R rows that are computed, L layers, K heads of keys and values, S tokens, D channels of a head, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from core.models.attention import alibi_slopes
from core.models.block import Block
from core.models.cache import KVCache
from core.models.decode import Context, Decoder
from core.models.layers import Norm
from core.models.ngrams import BEFORE

FEWEST, STRIDE = 4, 32


class Slots(Decoder):
    """Room for `rows` rows. The first `used` of them are taken; `views[i]` is row i as a cache of its own.

    blocks, norm, head: the model's own. block_size: tokens that a row has room for.
    """

    def __init__(self, blocks: Sequence[Block], norm: Norm, head: nn.Linear, rows: int, block_size: int) -> None:
        room = rows if rows == 1 else max(rows, FEWEST)  # a row that is always alone needs no company
        super().__init__(blocks, norm, head, room, -(-block_size // STRIDE) * STRIDE)
        self.memory.zero_()  # what lies behind a row's end is multiplied with 0, and must be finite
        heads, device = self.scheme.n_kv_head, self.memory.device
        self.views = [KVCache(self.memory[:, :, row * heads : (row + 1) * heads]) for row in range(room)]
        self.used, self.fewest = 0, min(room, FEWEST)
        self.places = torch.arange(self.memory.shape[3], device=device)
        self.slopes = None
        if self.scheme.alibi:
            slopes = alibi_slopes(self.scheme.n_head, self.memory.dtype, device)
            self.slopes = slopes.view(heads, self.group, 1).repeat(room, 1, 1)  # (R K, G, 1)

    def caches_of(self, model: nn.Module, tokens: Tensor) -> list[KVCache]:
        """Caches that hold ids (B, T), one for each row. model: the one whose slots these are."""
        rows, size = tokens.shape
        heads, shape = self.scheme.n_kv_head, list(self.memory.shape)
        cache = KVCache(self.memory.new_empty(*shape[:2], rows * heads, size, shape[4]))
        model.read(tokens, cache)  # type: ignore[operator]
        return [cache.row(row, heads) for row in range(rows)]

    def begin(self) -> KVCache:
        """A new row, as an empty cache: fill it with all of its tokens but the last one. It becomes the last row."""
        self.used += 1
        return self.views[self.used - 1]

    def again(self, row: int) -> KVCache:
        """A row, emptied, to be filled as by `begin`."""
        view = self.views[row]
        view.memory[:, :, :, : view.length].zero_()  # in case it holds what is not finite
        view.clear()
        return view

    def end(self, row: int) -> None:
        """Give a row up. The last row takes its place."""
        self.used -= 1
        last, view = self.views[self.used], self.again(row)
        if last is not view:
            view.take(last)
            self.again(self.used)

    def recall(self, tokens: Tensor, lookback: int) -> Tensor:
        """As a cache's `recall`, for ids (used, 1) of all rows; out (R, 1 + lookback), BEFORE where a row has not begun."""
        self.length = tokens.new_tensor([view.length for view in self.computed])  # type: ignore[assignment]
        tokens = torch.cat((tokens, tokens.new_zeros(len(self.computed) - self.used, 1)))
        if not lookback:
            return tokens
        empty = tokens.new_full((1, lookback), BEFORE)
        before = [empty if view.recent is None else torch.cat((empty, view.recent), 1) for view in self.computed]
        recent = torch.cat((torch.cat([ids[:, -lookback:] for ids in before]), tokens), dim=1)
        for row, view in enumerate(self.views[: self.used]):
            view.recent = recent[row : row + 1, -min(lookback, view.length + 1) :]
        return recent

    @property
    def longest(self) -> int:
        return max(view.length for view in self.computed)

    @property
    def computed(self) -> list[KVCache]:
        """The rows that a step computes: those that are taken, and empty ones so that there are enough."""
        return self.views[: max(self.used, self.fewest)]

    def advance(self) -> None:
        for view in self.views[: self.used]:
            view.length += 1

    def contexts(self, B: int) -> Iterator[Context]:
        """What each layer works on: keys and values up to the end of the longest row, with a mask for the others."""
        lengths: Tensor = self.length  # type: ignore[assignment]
        S, K, room = -(-(self.longest + 1) // STRIDE) * STRIDE, self.scheme.n_kv_head, self.memory.shape[3]
        keys, values = self.memory[:, :, : B * K, :S].unbind()
        # Where each row's next token is, in memory with heads and tokens as one dimension.
        heads = torch.arange(B * K, device=lengths.device) * room + lengths.repeat_interleave(K)
        flat = self.memory.flatten(2, 3)
        added = {window: self.added_for(window, lengths, S) for window in set(self.windows)}
        for layer, window in enumerate(self.windows):
            store: Callable[[Tensor], object] = partial(self.store, flat[:, layer], heads)
            yield Context(keys[layer].transpose(1, 2), values[layer], added[window], 1, store)

    def store(self, memory: Tensor, heads: Tensor, new: Tensor) -> None:
        """Put new keys and values (B, 2, K, D) where `heads` (B K,) says in memory (2, R K S, D)."""
        memory.index_copy_(1, heads, new.transpose(0, 1).reshape(2, len(heads), -1).to(memory.dtype))

    def added_for(self, window: int, lengths: Tensor, S: int) -> Tensor:
        """What is added to the logits of each row's next token: (R K, 1, S), with alibi (R K, G, S)."""
        distance = self.places[:S] - lengths[:, None]  # (R, S), 0 for the token itself
        hidden = (distance > 0) if window == 0 else (distance > 0) | (distance <= -window)
        added = torch.zeros_like(distance, dtype=self.memory.dtype).masked_fill_(hidden, -torch.inf)
        added = added.repeat_interleave(self.scheme.n_kv_head, dim=0).unsqueeze(1)
        if self.slopes is None:
            return added
        far = distance.to(added.dtype).repeat_interleave(self.scheme.n_kv_head, dim=0).unsqueeze(1)
        return added + self.slopes[: len(added)] * far
