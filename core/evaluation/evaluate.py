"""Measure a model on a dataset: loss, bits per byte and, for Examples, exact match."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from core.chat.tools import BUILT_IN, Tools
from core.config import Config
from core.data.batches import validation_rows
from core.data.dataset import Dataset, Side
from core.data.documents import Example
from core.data.info import HELD_OUT
from core.evaluation.exact_match import (
    Answer,
    Part,
    Score,
    accuracies,
    counts,
    greedy_answers,
    mean_reward,
    prompts_by_group,
)
from core.evaluation.group_loss import group_bits_per_byte, group_losses
from core.evaluation.loss import BatchLosses, batch_losses, bits_per_byte
from core.tracking.metrics import accuracy_by_group
from core.training.machine import Machine

SIDES: tuple[Side, ...] = ("val", "train")  # that are measured while a run trains; the Examples of held_out() too

Hear = Callable[[Side, Sequence[Answer]], None]


class Closing(NamedTuple):
    """What the closing evaluation finds on whole sides. answers: to the prompts of each side. losses: of the validation side."""

    metrics: dict[str, float]
    answers: dict[Side, list[Answer]]
    losses: BatchLosses


class Evaluation:
    """The metrics of a dataset, with the same prompts and batches in every row of a run's metrics."""

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        machine: Machine,
        part: Part | None = None,
        tools: Tools = BUILT_IN,
        score: Score | None = None,
        hear: Hear | None = None,
    ) -> None:
        """part: says which part of a completion counts; None: all of it. tools: that conversations may call. score: the reward
        of an answer, whose mean is measured too. hear: is given the answers of each side while a run trains."""
        self.dataset, self.config, self.machine, self.part, self.tools = dataset, config, machine, part, tools
        self.score, self.hear = score, hear

    @functools.cached_property
    def examples(self) -> dict[Side, list[Example]]:
        """Prompts of both sides, and of held_out(), for every row of metrics."""
        sides: tuple[Side, ...] = (*SIDES, HELD_OUT) if self.dataset.held_out else SIDES
        return {side: self.dataset.examples(side, self.config.evaluate.training_prompts) for side in sides}

    def while_training(self, model: torch.nn.Module) -> dict[str, float]:
        """val_loss, bits_per_byte, accuracies and perhaps the losses of groups, on the part of the data that the config names."""
        metrics = self.losses(model, self.config.train.runtime.eval_iters)
        for side, examples in self.examples.items():
            answers = self.asked(model, examples, side)
            metrics |= self.shares_of(answers, side)
            if self.hear:
                self.hear(side, answers)
            if self.config.evaluate.group_loss:
                metrics |= group_losses(model, self.dataset, examples, self.machine, side)
        return metrics

    def closing(self, model: torch.nn.Module) -> Closing:
        """The same on the whole sides, the test side among them, the answers to the prompts of each, and the loss by batch.

        At most `evaluate.max_prompts` prompts of a side are asked; `<side>_prompts` and `<side>_prompts/<group>` say how many.
        `bits_per_byte/<group>` and `test_bits_per_byte/<group>` are those of the completions of each group of these prompts.
        """
        losses, answers = self.by_batch(model, 0, "val"), dict[Side, list[Answer]]()
        metrics = self.of_batches(losses, "val")
        if self.dataset.test:
            metrics |= {
                f"test_{name.removeprefix('test_')}": value for name, value in self.losses(model, 0, "test").items()
            }
        more: list[Side] = ["test"] if self.dataset.test else []
        more += [HELD_OUT] if self.dataset.held_out else []
        for side in (*SIDES, *more):
            answers[side] = self.answers(model, side)
            metrics |= self.shares_of(answers[side], side) | counts(answers[side], side)
        for side, prefix in (("val", ""), ("test", "test_")):
            examples = [answer.example for answer in answers.get(side, [])]
            bits = group_bits_per_byte(model, self.dataset, examples, self.machine)
            metrics |= {f"{prefix}bits_per_byte/{group}": value for group, value in bits.items()}
        return Closing(metrics, answers, losses)

    def answers(self, model: torch.nn.Module, side: Side) -> list[Answer]:
        """Greedy answers to at most `evaluate.max_prompts` prompts of a side."""
        return self.asked(model, self.dataset.examples(side, self.config.evaluate.max_prompts), side)

    def asked(self, model: torch.nn.Module, examples: Sequence[Example], side: Side) -> list[Answer]:
        """Greedy answers to the prompts of some examples of a side."""
        objective = self.config.train.objective
        room = objective.max_new_tokens if objective.kind == "reward" else 0
        return greedy_answers(model, self.dataset, examples, self.machine, self.part, side, self.tools, room)

    def shares_of(self, answers: Sequence[Answer], side: Side) -> dict[str, float]:
        """Exact match of some answers, and their mean reward where there is one."""
        return accuracies(answers, side) | (mean_reward(answers, self.score, side) if self.score else {})

    def reported(self, model: torch.nn.Module) -> dict[str, Any]:
        """The figures for summary.json, of the side that is reported: accuracies with their numbers of prompts, bits per byte.

        Those of held_out() stand under a key of their own.
        """
        side = self.dataset.reported_side
        found = {"side": side} | self.shares(model, side)
        if self.dataset.held_out:
            found[HELD_OUT] = self.shares(model, HELD_OUT)
        losses = self.losses(model, self.config.train.runtime.eval_iters, side)
        return found | {"bits_per_byte": losses.get("bits_per_byte")}

    def shares(self, model: torch.nn.Module, side: Side) -> dict[str, Any]:
        """Exact match of a side and of its groups, each with the number of its prompts."""
        answers = self.answers(model, side)
        found = accuracies(answers, side)
        return {
            "accuracy": found.get(f"{side}_accuracy"),
            "accuracy_by_group": accuracy_by_group(found, side),
            "prompts": len(answers) or None,
            "prompts_by_group": prompts_by_group(answers) or None,
        }

    def losses(self, model: torch.nn.Module, eval_iters: int, side: Side = "val") -> dict[str, float]:
        """`<side>_loss` in nats per target, and bits per byte of the targets' text."""
        return self.of_batches(self.by_batch(model, eval_iters, side), side)

    def by_batch(self, model: torch.nn.Module, eval_iters: int, side: Side) -> BatchLosses:
        """The loss of each batch of a side, always the same batches. eval_iters: how many, evenly spaced; 0 for all."""
        rows = validation_rows(self.dataset.side(side), self.config.train.data, eval_iters)
        return batch_losses(model, rows, self.machine)

    def of_batches(self, losses: BatchLosses, side: Side) -> dict[str, float]:
        """`losses` of batches that are measured already."""
        targets, text_bytes = self.dataset.target_size(side, masked=self.config.train.data.mask_prompt)
        bits = bits_per_byte(losses.mean, targets, text_bytes)
        return {f"{side}_loss": losses.mean} | ({} if bits is None else {"bits_per_byte": bits})
