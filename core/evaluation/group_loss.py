"""The loss of the completions of each group of Examples, in nats per token and in bits per byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from core.chat.render import AnswerText
from core.data.dataset import Dataset
from core.data.documents import Example
from core.encoders.base import Encoder
from core.evaluation.loss import Array, bits_per_byte, mean_loss
from core.sampling.generate import prompt_ids
from core.training.machine import Machine

ROWS = 256  # of a batch


def group_losses(
    model: torch.nn.Module, dataset: Dataset, examples: Sequence[Example], machine: Machine, side: str
) -> dict[str, float]:
    """`<side>_loss/<group>`: mean loss of each group in nats per token of its completions, each example alone in a row."""
    size = int(model.block_size)  # type: ignore[arg-type]
    return {
        f"{side}_loss/{group}": mean_loss(model, rows(dataset, members, size), machine)
        for group, members in by_group(examples).items()
    }


def group_bits_per_byte(
    model: torch.nn.Module, dataset: Dataset, examples: Sequence[Example], machine: Machine
) -> dict[str, float]:
    """Group -> bits per byte of the text of its completions, each example alone in a row. Comparable between encoders.

    Where a row is longer than the model sees, the mean loss of its end stands for all of it.
    """
    losses, end = group_losses(model, dataset, examples, machine, ""), dataset.end_token is not None
    found = {}
    for group, members in by_group(examples).items():
        sizes = [learnt_size(example.completion, dataset.encoder) for example in members]
        targets, text_bytes = sum(tokens + end for tokens, _ in sizes), sum(size for _, size in sizes)
        bits = bits_per_byte(losses[f"_loss/{group}"], targets, text_bytes)
        assert bits is not None
        found[group] = bits
    return found


def learnt_part(completion: str, encoder: Encoder) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The ids of a completion (N,), and which of them are learnt (N,): all, but of an AnswerText no results of tools."""
    if isinstance(completion, AnswerText):
        return np.array(completion.ids, np.int64), np.array(completion.learnt, np.bool_)
    ids = encoder.encode(completion).astype(np.int64)
    return ids, np.ones(len(ids), np.bool_)


def learnt_size(completion: str, encoder: Encoder) -> tuple[int, int]:
    """The learnt tokens of a completion, and the bytes of their text."""
    ids, learnt = learnt_part(completion, encoder)
    text = encoder.decode(ids[learnt].tolist()) if isinstance(completion, AnswerText) else completion
    return int(learnt.sum()), len(text.encode())


def by_group(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The examples of each group; those without one are left out."""
    found: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if example.group is not None:
            found[example.group].append(example)
    return dict(found)


def rows(dataset: Dataset, examples: Sequence[Example], size: int) -> Iterator[tuple[Array, Array]]:
    """Inputs and targets (B, T) of examples, -1 where nothing of a completion is next. Of a longer row the last `size` count."""
    end = [] if dataset.end_token is None else [dataset.end_token]
    for first in range(0, len(examples), ROWS):
        batch = examples[first : first + ROWS]
        documents = []
        for example in batch:
            prompt = np.array(prompt_ids(dataset.encoder, example.prompt), np.int64)
            completion, learnt = learnt_part(example.completion, dataset.encoder)
            ids = np.concatenate([prompt, completion, end]).astype(np.int64)
            targets = np.where(np.concatenate([prompt < 0, learnt, np.ones(len(end), np.bool_)]), ids, -1)
            documents.append((ids[:-1][-size:], targets[1:][-size:]))
        longest = max(len(ids) for ids, _ in documents)
        inputs, wanted = np.zeros((len(batch), longest), np.int64), np.full((len(batch), longest), -1, np.int64)
        for row, (ids, targets) in enumerate(documents):
            inputs[row, : len(ids)], wanted[row, : len(ids)] = ids, targets
        yield inputs, wanted
