"""Objectives: what a training step minimises.

An objective takes a model and the inputs and targets (B, T) of a micro-batch. It returns the sum of losses, a float32
scalar on the device. The step divides it by the number of targets in the whole batch. It is compiled with the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from core.models.loss import token_loss

Objective = Callable[[Callable[..., Any], Tensor, Tensor], Tensor]


def tokens(model: Callable[..., Any], inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the next tokens in nats, summed over the targets. -1 means no target."""
    nats, _ = token_loss(model(inputs), targets)
    return nats
