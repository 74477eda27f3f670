"""Objectives: what a training step minimises.

An objective takes a model, the inputs and targets (B, T) of a micro-batch, and what else a batch has. It returns the sum of
losses, a float32 scalar on the device. The step divides it by the number of targets in the whole batch. It is compiled
with the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from core.models.loss import next_token_loss
from core.models.product_loss import NO_TARGET

Objective = Callable[..., Tensor]  # (model, inputs, targets, *more)


def tokens(model: Callable[..., Any], inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the next tokens in nats, summed over the targets. -1 means no target."""
    nats, _ = next_token_loss(model, inputs, targets)
    return nats


def policy_gradient(temperature: float = 1.0) -> Objective:
    """The sum over the targets of -advantage ln p(target), whose gradient is that of the expected reward (REINFORCE).

    temperature: at which the targets were drawn. The objective's last argument is the advantage of each row, (B,), float32;
    without it all are 1.
    """

    def objective(
        model: Callable[..., Any], inputs: Tensor, targets: Tensor, advantages: Tensor | None = None
    ) -> Tensor:
        logits = model(inputs)  # (B, T, V)
        logits = logits.double() if logits.dtype.itemsize == 8 else logits.float()
        nats = F.cross_entropy(
            logits.flatten(0, 1) / temperature, targets.flatten(), ignore_index=NO_TARGET, reduction="none"
        ).view(targets.shape)
        rows = nats.sum(dim=1)
        return rows.sum() if advantages is None else (rows * advantages).sum()

    return objective
