"""The loss over the validation file, on the same tokens every time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.errors import UserError
from core.models.loss import next_token_loss
from core.training.machine import Machine
from core.training.step import to_device

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BatchLosses:
    """The loss of each of K batches. nats: sums over targets, (K,). targets: how many each batch has, (K,)."""

    nats: tuple[float, ...]
    targets: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Nats per target."""
        return float(torch.tensor(self.nats, dtype=torch.float64).sum()) / sum(self.targets)


def mean_loss(model: torch.nn.Module, rows: Iterable[tuple[Array, Array]], machine: Machine) -> float:
    """Mean loss in nats per target over batches of inputs and targets (B, T), -1 where there is no target.

    Raises UserError if there is no target.
    """
    return batch_losses(model, rows, machine).mean


def batch_losses(model: torch.nn.Module, rows: Iterable[tuple[Array, Array]], machine: Machine) -> BatchLosses:
    """The loss of each batch of inputs and targets (B, T), -1 where there is no target.

    Raises UserError if there is no target.
    """
    waits = machine.device.type == "cpu"
    sums, counts = list[Any](), list[int]()
    for inputs, targets in rows:
        with torch.inference_mode(), machine.autocast():
            nats, _ = next_token_loss(model, to_device(inputs, machine), to_device(targets, machine))
        # Reading each one would stall a GPU. On a CPU, a small tensor that is kept stands in the way of the next large one.
        sums.append(float(nats) if waits else nats)
        counts.append(int((targets >= 0).sum()))
    if not any(counts):
        raise UserError(
            "the validation batches that are read have no targets",
            place="train.runtime.eval_iters",
            remedy="Raise it, or set it to 0 for the whole validation file.",
        )
    nats_read = sums if waits else torch.stack(sums).cpu().double().tolist()
    return BatchLosses(tuple(nats_read), tuple(counts))


def bits_per_byte(loss: float, targets: int, text_bytes: int | None) -> float | None:
    """Bits per byte of the targets' text: comparable between encoders. None if their text is not known.

    loss: nats per target. targets: how many the validation file has. text_bytes: UTF-8 bytes of their text.
    """
    if text_bytes is None:
        return None
    return loss * targets / (max(text_bytes, 1) * math.log(2))
