"""Decode on a GPU without waiting for Python: the work of one token is recorded, then replayed for those that follow.

A replay always does the same, so attention goes over a fixed number of tokens, of which a mask hides those that are not there yet.
There is one recording for every `STRIDE` tokens of context.

Shapes: B rows, K heads of keys and values, G queries that share a key, S tokens, D channels of a head, V ids.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import first_line
from core.models.attention import alibi_slopes
from core.models.block import Block
from core.models.decode import Context, Decoder
from core.models.layers import Norm
from core.models.ngrams import BEFORE
from core.models.recorded import Recorder, fill, record

STRIDE = 256
FIRST = 32  # tokens that are decoded as usual before anything is recorded: short answers are not worth it


class ReplayedDecoder(Decoder):
    """A cache whose rows have one length, for a model on a GPU. recorder: as `record`."""

    def __init__(
        self,
        blocks: Sequence[Block],
        norm: Norm,
        head: nn.Linear,
        batch_size: int,
        block_size: int,
        recorder: Recorder = record,
    ) -> None:
        super().__init__(blocks, norm, head, batch_size, -(-block_size // STRIDE) * STRIDE)
        self.memory.zero_()  # what is hidden is multiplied with 0, and must be finite
        self.recorder, self.decoded, self.span, self.refused = recorder, 0, 0, False
        device = self.memory.device
        self.at = torch.zeros((), dtype=torch.long, device=device)  # tokens held, on the device
        self.places = torch.arange(self.memory.shape[3], device=device)
        self.slopes = None
        if self.scheme.alibi:
            slopes = alibi_slopes(self.scheme.n_head, self.memory.dtype, device)
            self.slopes = slopes.view(self.scheme.n_kv_head, self.group, 1).repeat(batch_size, 1, 1)  # (B K, G, 1)
        self.recent_ids: Tensor | None = None  # (B, 1 + lookback), what a replay reads
        self.recordings: dict[int, tuple[Callable[[], Any], Tensor]] = {}

    def step(self, tokens: Tensor, lookback: int, logits_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Logits (B, 1, V) after one more id of each row, (B, 1). logits_of: (ids (B, 1 + lookback), place of the last, (B,)) -> those,
        by `decode`. lookback: ids before it that count, too."""
        recent = self.recall(tokens, lookback)
        if recent.shape[1] <= lookback:
            recent = torch.cat((recent.new_full((len(recent), 1 + lookback - recent.shape[1]), BEFORE), recent), dim=1)
        if self.recent_ids is None:
            self.recent_ids = recent.clone()
        self.recent_ids.copy_(recent)
        fill(self.at, torch.tensor(self.length))
        self.span = (self.length // STRIDE + 1) * STRIDE
        self.length, self.decoded = self.length + 1, self.decoded + 1
        ids, places = self.recent_ids, self.at.expand(len(tokens))
        if self.span not in self.recordings:
            logits = logits_of(ids, places)
            if self.decoded > FIRST and not self.refused:
                self.try_to_record(lambda: logits_of(ids, places))
            return logits
        replay, logits = self.recordings[self.span]
        replay()
        return logits.clone()

    def try_to_record(self, function: Callable[[], Tensor]) -> None:
        """Record the work of a token, or say why that does not work."""
        try:
            self.recordings[self.span] = self.recorder(function)
        except RuntimeError as error:
            self.refused = True
            warnings.warn(
                f"sampling: the work of a token cannot be recorded ({first_line(error)}), so its operations are started one by one",
                stacklevel=2,
            )

    def advance(self) -> None:
        """`step` has counted the token."""

    def contexts(self, B: int) -> Iterator[Context]:
        """As a decoder's, over `span` tokens."""
        keys, values = self.memory[:, :, :, : self.span].unbind()
        distance = self.places[: self.span] - self.at  # (S,), 0 for the token itself
        added = {window: self.added_for(window, distance) for window in set(self.windows)}
        for layer, window in enumerate(self.windows):
            store: Callable[[Tensor], object] = partial(self.store, self.memory[:, layer])
            yield Context(keys[layer].transpose(1, 2), values[layer], added[window], 1, store)

    def store(self, memory: Tensor, new: Tensor) -> None:
        """Put the new keys and values (B, 2, K, D) of a layer behind those in its memory (2, B K, S, D)."""
        B, _, K, D = new.shape
        memory.index_copy_(2, self.at.view(1), new.transpose(0, 1).reshape(2, B * K, 1, D))

    def added_for(self, window: int, distance: Tensor) -> Tensor:
        """What is added to the logits: (1, 1, S), with alibi (B K, G, S)."""
        hidden = (distance > 0) if window == 0 else (distance > 0) | (distance <= -window)
        added = torch.zeros_like(distance, dtype=self.memory.dtype).masked_fill_(hidden, -torch.inf).view(1, 1, -1)
        return added if self.slopes is None else added + self.slopes * distance


def decoder_on(device: torch.device, *, replays: bool) -> type[Decoder]:
    """The decoder for rows of one length. On a CPU there is nothing to replay, and it would attend to more than is there."""
    return ReplayedDecoder if replays and device.type == "cuda" else Decoder
