"""Cross-entropy of next tokens, in nats."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NO_TARGET = -1


def token_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -ln p(target), a float32 scalar, and the number of targets, an int64 scalar.

    logits (B, T, V); targets (B, T), -1 where there is no target. Both results stay on the device: reading them waits.
    """
    flat = logits.reshape(-1, logits.shape[-1])  # (B T, V)
    # float32 at least: a bfloat16 logarithm has three digits
    flat = flat.float() if flat.dtype in (torch.bfloat16, torch.float16) else flat
    nats = F.cross_entropy(flat, targets.reshape(-1), ignore_index=NO_TARGET, reduction="sum")
    return nats, (targets != NO_TARGET).sum()
