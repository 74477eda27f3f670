"""Measure a model on a dataset: loss, bits per byte and, for Examples, exact match."""

from __future__ import annotations

import functools
from typing import Literal

import torch

from core.config import Config
from core.data.batches import validation_rows
from core.data.dataset import Dataset
from core.data.documents import Example
from core.evaluation.exact_match import Answer, accuracies, greedy_answers
from core.evaluation.loss import bits_per_byte, mean_loss
from core.training.machine import Machine

Side = Literal["val", "train"]
SIDES: tuple[Side, ...] = ("val", "train")


class Evaluation:
    """The metrics of a dataset, with the same prompts and batches in every row of a run's metrics."""

    def __init__(self, dataset: Dataset, config: Config, machine: Machine) -> None:
        self.dataset, self.config, self.machine = dataset, config, machine

    @functools.cached_property
    def examples(self) -> dict[Side, list[Example]]:
        """Prompts of both sides for every row of metrics."""
        return {side: self.dataset.examples(side, self.config.evaluate.training_prompts) for side in SIDES}

    def while_training(self, model: torch.nn.Module) -> dict[str, float]:
        """val_loss, bits_per_byte and accuracies, on the part of the data that the config names."""
        metrics = self.losses(model, self.config.train.runtime.eval_iters)
        for side, examples in self.examples.items():
            metrics |= accuracies(greedy_answers(model, self.dataset, examples, self.machine), side)
        return metrics

    def closing(self, model: torch.nn.Module) -> tuple[dict[str, float], list[Answer]]:
        """The same on the whole validation file and at most `evaluate.max_prompts` prompts, and the held-out answers."""
        metrics, answers = self.losses(model, 0), {}
        for side in SIDES:
            examples = self.dataset.examples(side, self.config.evaluate.max_prompts)
            answers[side] = greedy_answers(model, self.dataset, examples, self.machine)
            metrics |= accuracies(answers[side], side)
        return metrics, answers["val"]

    def losses(self, model: torch.nn.Module, eval_iters: int) -> dict[str, float]:
        """val_loss in nats per target, and bits per byte of the targets' text."""
        data, val = self.config.train.data, self.dataset.val
        loss = mean_loss(model, validation_rows(val, data, eval_iters), self.machine)
        targets, text_bytes = self.dataset.target_size(masked=data.mask_prompt)
        return {"val_loss": loss, "bits_per_byte": bits_per_byte(loss, targets, text_bytes)}
