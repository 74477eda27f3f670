"""What the last few ids alone say: ids (B, T) in; shares of the token before, and logits of n-gram tables (B, T, V), out.

Both spare the blocks what needs no attention: a small model learns pairs and triples of characters from them at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError

BEFORE = -1  # stands for an id at a place before the first
LARGEST_TABLE = 1 << 22  # numbers: each step updates them all, and 4 million take about as long as a small model's step


class Smear(nn.Module):
    """x_t + s x_{t-1} with a learnt share s for each channel; the first token has nothing before it."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(n_embd))

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(x[:, :-1], (0, 0, 1, 0))  # (B, T, C)
        return torch.addcmul(x, before, self.share.to(x.dtype))


class NGrams(nn.Module):
    """Tables of logits for the next id, by the last id (bigram), by the last two (trigram), ..., up to `order` - 1."""

    def __init__(self, order: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        largest = vocab_size**order
        if largest > LARGEST_TABLE:
            raise UserError(
                f"a table of {order}-grams over {vocab_size:,} ids would have {largest:,} numbers",
                place=f"train.model.ngram = {order}",
                remedy=f"At most {LARGEST_TABLE:,} are sensible: lower it to {fitting_order(vocab_size)}, or take an encoder with fewer ids.",
            )
        # One row more for places too near to the beginning to have so many ids before them: it stays zero.
        rows = [vocab_size**length for length in range(1, order)]
        self.tables = nn.ModuleList(nn.Embedding(count + 1, vocab_size, padding_idx=count) for count in rows)
        for table in self.tables:
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) for what follows each of ids (B, T). BEFORE stands where a row has not begun."""
        row, logits = ids, self.tables[0](ids.clamp(min=0))
        for length, table in enumerate(self.tables[1:], start=2):
            earlier = F.pad(ids, (length - 1, 0), value=BEFORE)[:, : ids.shape[1]]
            row = row + self.vocab_size ** (length - 1) * earlier
            known = row.masked_fill(earlier < 0, self.vocab_size**length)  # the table's last row
            logits = logits + table(known)
        return logits  # type: ignore[no-any-return]


def fitting_order(vocab_size: int) -> int:
    """The longest n-grams whose table is not too large; 0 where there is none."""
    order = 1
    while vocab_size ** (order + 1) <= LARGEST_TABLE:
        order += 1
    return order if order > 1 else 0
