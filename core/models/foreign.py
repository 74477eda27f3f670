"""A GPT that another program has saved, as our own names have it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor


class ForeignModel(NamedTuple):
    """model: keys of [train.model]. state: for `GPT.load_state_dict`. step, best_val_loss: as the other program recorded them."""

    model: dict[str, Any]
    state: dict[str, Tensor]
    vocab_size: int
    step: int = 0
    best_val_loss: float = math.inf
