"""Measure a model on a dataset: loss, bits per byte and, for Examples, exact match."""

from __future__ import annotations

import functools
from typing import Any

import torch

from core.config import Config
from core.data.batches import validation_rows
from core.data.dataset import Dataset, Side
from core.data.documents import Example
from core.evaluation.exact_match import Answer, Part, accuracies, counts, greedy_answers, prompts_by_group
from core.evaluation.loss import bits_per_byte, mean_loss
from core.tracking.metrics import accuracy_by_group
from core.training.machine import Machine

SIDES: tuple[Side, ...] = ("val", "train")  # that are measured while a run trains


class Evaluation:
    """The metrics of a dataset, with the same prompts and batches in every row of a run's metrics."""

    def __init__(self, dataset: Dataset, config: Config, machine: Machine, part: Part | None = None) -> None:
        """part: says which part of a completion counts; None: all of it."""
        self.dataset, self.config, self.machine, self.part = dataset, config, machine, part

    @functools.cached_property
    def examples(self) -> dict[Side, list[Example]]:
        """Prompts of both sides for every row of metrics."""
        return {side: self.dataset.examples(side, self.config.evaluate.training_prompts) for side in SIDES}

    def while_training(self, model: torch.nn.Module) -> dict[str, float]:
        """val_loss, bits_per_byte and accuracies, on the part of the data that the config names."""
        metrics = self.losses(model, self.config.train.runtime.eval_iters)
        for side, examples in self.examples.items():
            metrics |= accuracies(greedy_answers(model, self.dataset, examples, self.machine, self.part), side)
        return metrics

    def closing(self, model: torch.nn.Module) -> tuple[dict[str, float], list[Answer]]:
        """The same on the whole sides, the test side among them, and the answers to validation prompts.

        At most `evaluate.max_prompts` prompts of a side are asked; `<side>_prompts` and `<side>_prompts/<group>` say how many.
        """
        metrics, answers = self.losses(model, 0), {}
        if self.dataset.test:
            metrics |= {
                f"test_{name.removeprefix('test_')}": value for name, value in self.losses(model, 0, "test").items()
            }
        for side in (*SIDES, "test") if self.dataset.test else SIDES:
            answers[side] = self.answers(model, side)
            metrics |= accuracies(answers[side], side) | counts(answers[side], side)
        return metrics, answers["val"]

    def answers(self, model: torch.nn.Module, side: Side) -> list[Answer]:
        """Greedy answers to at most `evaluate.max_prompts` prompts of a side."""
        examples = self.dataset.examples(side, self.config.evaluate.max_prompts)
        return greedy_answers(model, self.dataset, examples, self.machine, self.part)

    def reported(self, model: torch.nn.Module) -> dict[str, Any]:
        """The figures for summary.json, of the side that is reported: accuracies with their numbers of prompts, bits per byte."""
        side = self.dataset.reported_side
        answers = self.answers(model, side)
        found = accuracies(answers, side)
        return {
            "side": side,
            "accuracy": found.get(f"{side}_accuracy"),
            "accuracy_by_group": accuracy_by_group(found, side),
            "prompts": len(answers) or None,
            "prompts_by_group": prompts_by_group(answers) or None,
            "bits_per_byte": self.losses(model, self.config.train.runtime.eval_iters, side).get("bits_per_byte"),
        }

    def losses(self, model: torch.nn.Module, eval_iters: int, side: Side = "val") -> dict[str, float]:
        """`<side>_loss` in nats per target, and bits per byte of the targets' text."""
        data = self.config.train.data
        loss = mean_loss(model, validation_rows(self.dataset.side(side), data, eval_iters), self.machine)
        targets, text_bytes = self.dataset.target_size(side, masked=data.mask_prompt)
        bits = bits_per_byte(loss, targets, text_bytes)
        return {f"{side}_loss": loss} | ({} if bits is None else {"bits_per_byte": bits})
