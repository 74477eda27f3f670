"""Measure rows with a model: the loss of each continuation, and whether greedy decoding would write it.

Shapes: B rows, T tokens of the longest, V ids, N measured tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from core.evaluation.suites.rows import Row
from core.training.machine import Machine
from core.training.step import to_device

LOGITS = 1 << 26  # of a batch, 256 MB in float32
CPU_TOKENS, GPU_TOKENS = (
    1 << 10,
    1 << 14,
)  # of a batch. docs/LOG.md has the figures for CPUs: larger ones leave its caches
Measured = tuple[tuple[int, ...], int]  # ids and number of scored ones: rows with the same are computed once


@dataclass(frozen=True)
class Score:
    """nats: the loss of a row's measured tokens, in all. tokens: how many. greedy: whether each is the likeliest in its place."""

    nats: float
    tokens: int
    greedy: bool

    @property
    def loss(self) -> float:
        """In nats per token."""
        return self.nats / self.tokens


def score(model: torch.nn.Module, rows: Sequence[Row], machine: Machine, vocab_size: int) -> list[Score]:
    """The score of each row. Equal rows have equal scores.

    Many rows share a forward pass; they are padded on the right, which causal models do not see.
    """
    found = dict[Measured, Score]()
    different = list(dict.fromkeys((row.ids, row.scored) for row in rows))
    for batch in batches(different, tokens_at_once(vocab_size, machine)):
        found.update(zip(batch, scores_of(model, batch, machine), strict=True))
    return [found[row.ids, row.scored] for row in rows]


def tokens_at_once(vocab_size: int, machine: Machine) -> int:
    """How many tokens a batch has at most."""
    return min(CPU_TOKENS if machine.device.type == "cpu" else GPU_TOKENS, LOGITS // vocab_size)


def batches(rows: Sequence[Measured], tokens: int) -> Iterator[list[Measured]]:
    """The rows in batches of similar length, the longest first. tokens: of a batch at most, unless one row has more."""
    batch: list[Measured] = []
    for row in sorted(rows, key=lambda row: len(row[0]), reverse=True):
        if batch and (len(batch) + 1) * len(batch[0][0]) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def scores_of(model: torch.nn.Module, rows: Sequence[Measured], machine: Machine) -> list[Score]:
    """The scores of rows in one forward pass."""
    length = max(len(ids) for ids, _ in rows) - 1
    inputs, targets = np.zeros((len(rows), length), np.int64), np.full((len(rows), length), -1, np.int64)
    for number, (ids, scored) in enumerate(rows):
        inputs[number, : len(ids) - 1] = ids[:-1]
        targets[number, len(ids) - 1 - scored : len(ids) - 1] = ids[-scored:]
    with torch.inference_mode(), machine.autocast():
        logits = model(to_device(inputs, machine))  # (B, T, V)
        wanted = to_device(targets, machine)
        measured = wanted >= 0
        logits, wanted = logits[measured].float(), wanted[measured]  # (N, V), (N,)
        nats = F.cross_entropy(logits, wanted, reduction="none").double().cpu()
        right = (logits.argmax(-1) == wanted).cpu()
    parts = [scored for _, scored in rows]
    return [
        Score(float(loss.sum()), len(loss), bool(same.all()))
        for loss, same in zip(torch.split(nats, parts), torch.split(right, parts), strict=True)
    ]
