"""Batches for the policy gradient: prompts are drawn, the model answers each several times, and the answers are scored.

The estimator is REINFORCE on the policy itself: one step per batch, so there is no ratio and no clipping. An answer's
advantage is its reward minus the mean reward of the others to the same prompt (RLOO, arXiv:2402.14740). It is not divided by
the deviation, and the loss is divided by the tokens of the whole step, not by those of a row: both would favour some prompts
or lengths (arXiv:2503.20783). A prompt whose answers all have one reward says nothing about better or worse. It is left out,
and another one is drawn, within a limit (arXiv:2503.14476).

Legend: P prompts of a step, K answers to each, G micro-batches, B rows, T tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.chat.conversation import END, TOOL
from core.chat.render import PromptText
from core.config import Train
from core.data.batches import NO_TARGET, block_size
from core.data.dataset import Dataset
from core.data.documents import Example
from core.encoders.base import Encoder, between
from core.encoders.special import has_special, marks_of, special_ids
from core.errors import UserError
from core.reward.scoring import Scoring
from core.sampling.asking import said
from core.sampling.generate import prompt_ids
from core.sampling.rollouts import Respond, Rollout, roll_out
from core.training.machine import Machine

Array = npt.NDArray[Any]
FIGURES = (
    "reward", "strict_accuracy", "lenient_accuracy", "truncated", "answer_tokens", "signal", "entropy", "distance",
)  # fmt: skip
ROUNDS = 4  # of drawing prompts for a step, until enough of them have answers of different rewards
TRIES = 10_000  # of drawing a prompt that leaves room for its answer
TILE = 16  # rows are padded to a multiple of so many tokens


@dataclass(frozen=True)
class AnswerGroup:
    """A prompt, the answers to it, and their rewards. valid: whether each has ended, and has the form of one answer."""

    example: Example
    rollouts: list[Rollout]
    texts: list[str]
    rewards: list[float]
    valid: list[bool]

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ."""
        return len(set(self.rewards)) > 1


@dataclass
class Collector:
    """Draws the batches of a run.

    start: the model as it was when the run began; None: the distance to it is not measured. numbers: of the training
    documents that have a right answer. ends: ids that end an answer. respond: answers calls of tools. figures: what is told
    of the last batch.
    """

    model: torch.nn.Module
    start: torch.nn.Module | None
    dataset: Dataset
    config: Train
    machine: Machine
    scoring: Scoring
    numbers: npt.NDArray[np.int64]
    ends: frozenset[int]
    respond: Respond | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def batch(self, step: int) -> tuple[Array, Array, Array]:
        """Inputs and targets (G, B, T), and advantages (G, B), float32: a pure function of the seed, the step and the weights.

        Targets are the ids that the model chose, its end among them. A step without any signal has no target.
        """
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.config.runtime.seed, step, 1))))
        drawn: list[AnswerGroup] = []
        for _ in range(ROUNDS):
            missing = self.config.objective.prompts_per_step - sum(group.has_signal for group in drawn)
            if not missing:
                break
            drawn += self.groups(self.prompts(random, missing), random, self.config.objective.group_size)
        kept = [group for group in drawn if group.has_signal]
        batch = self.rows(kept)
        self.figures = figures_of(drawn, self.scoring) | self.of_distribution(batch)
        return batch

    def prompts(self, random: np.random.Generator, count: int) -> list[tuple[Example, list[int]]]:
        """Random training prompts with their ids, each with room for its answer. Raises UserError if there are none."""
        room = block_size(self.config.data) - self.config.objective.max_new_tokens
        found: list[tuple[Example, list[int]]] = []
        for _ in range(TRIES * count):
            example = self.dataset.example(self.dataset.train, int(random.choice(self.numbers)))
            ids = prompt_ids(self.dataset.encoder, example.prompt)
            if len(ids) <= room:
                found.append((example, ids))
                if len(found) == count:
                    return found
        raise UserError(
            f"no prompt leaves room for an answer of {self.config.objective.max_new_tokens:,} tokens in "
            f"{block_size(self.config.data):,}",
            place="train.objective.max_new_tokens",
            remedy="Lower it, or raise train.data.block_size.",
        )

    def groups(
        self, prompts: Sequence[tuple[Example, list[int]]], random: np.random.Generator, size: int
    ) -> list[AnswerGroup]:
        """`size` answers to each prompt, scored. One that is not valid has the reward 0."""
        objective = self.config.objective
        with evaluating(self.model):
            rollouts = roll_out(
                self.model,
                [ids for _, ids in prompts for _ in range(size)],
                [int(seed) for seed in random.integers(2**63 - 1, size=len(prompts) * size)],
                ends=self.ends,
                max_new_tokens=objective.max_new_tokens,
                temperature=objective.temperature,
                respond=self.respond,
            )
        found = []
        for number, (example, _) in enumerate(prompts):
            own = rollouts[number * size : (number + 1) * size]
            texts = [text_of(rollout, example, self.dataset.encoder) for rollout in own]
            valid = [is_valid(rollout, self.dataset.encoder) for rollout in own]
            rewards = [
                self.scoring.score(example, text) if good else 0.0 for text, good in zip(texts, valid, strict=True)
            ]
            found.append(AnswerGroup(example, own, texts, rewards, valid))
        return found

    def rows(self, groups: Sequence[AnswerGroup]) -> tuple[Array, Array, Array]:
        """A row per answer: prompt, answer, padding."""
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        advantages = [value for group in groups for value in advantages_of(group.rewards)]
        longest = max((len(each.prompt) + len(each.written) - 1 for each in rollouts), default=1)
        wide = block_size(self.config.data)
        T = wide if self.machine.compile else min(-(-longest // TILE) * TILE, wide)
        B = self.config.data.batch_size
        G = max(1, -(-len(rollouts) // B))
        inputs = np.zeros((G * B, T), np.int64)
        targets = np.full((G * B, T), NO_TARGET, np.int64)
        weights = np.zeros(G * B, np.float32)
        weights[: len(advantages)] = advantages
        for row, rollout in enumerate(rollouts):
            ids, first = np.array([*rollout.prompt, *rollout.written]), len(rollout.prompt) - 1
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, first : len(ids) - 1] = np.where(rollout.forced, NO_TARGET, ids[first + 1 :])
        return inputs.reshape(G, B, T), targets.reshape(G, B, T), weights.reshape(G, B)

    @torch.no_grad()
    def of_distribution(self, batch: tuple[Array, Array, Array]) -> dict[str, float]:
        """entropy: of the model's distributions, nats; distance: their divergence KL from the start, nats.

        Means over the targets of the first micro-batch, so they are estimates.
        """
        chosen = torch.from_numpy(batch[1][0] != NO_TARGET).to(self.machine.device)
        if not chosen.any():
            return {}
        inputs = torch.from_numpy(batch[0][0]).to(self.machine.device)
        with evaluating(self.model):
            now = log_probabilities(self.model, inputs, chosen, self.config.objective.temperature)
        found = {"entropy": float(-(now.exp() * now).sum(dim=-1).mean())}
        if self.start is not None:
            before = log_probabilities(self.start, inputs, chosen, self.config.objective.temperature)
            found["distance"] = float((now.exp() * (now - before)).sum(dim=-1).mean())
        return found


def collector(
    model: torch.nn.Module,
    start: torch.nn.Module | None,
    dataset: Dataset,
    config: Train,
    machine: Machine,
    scoring: Scoring,
    respond: Respond | None = None,
) -> Collector:
    """The Collector of a run. Raises UserError for data without right answers, and without an end that the model can write."""
    numbers = dataset.asked("train")
    if not dataset.has_examples or not len(numbers):
        raise UserError(
            "this dataset has no prompts with right answers, so there is nothing to score",
            place='train.objective.kind = "reward"',
            remedy="Let documents() yield Examples, or Conversations with a group.",
        )
    return Collector(model, start, dataset, config, machine, scoring, numbers, ends_of(dataset), respond)


def ends_of(dataset: Dataset) -> frozenset[int]:
    """The ids that end an answer: the encoder's end token, and those whose text ends as every completion does.

    Raises UserError if there are none.
    """
    encoder, stop = dataset.encoder, dataset.stop
    found = {encoder.end_token} if encoder.end_token is not None else set()
    if stop:
        found |= {token for token in range(encoder.vocab_size) if encoder.decode([token]).endswith(stop)}
    if not found:
        raise UserError(
            f"no token ends an answer: completions end with {stop!r}",
            place='train.objective.kind = "reward"',
            remedy="Let every completion end with one token, such as a line break, or prepare conversations with "
            'prepare.special_tokens = "chat".',
        )
    return frozenset(int(token) for token in found)


def is_valid(rollout: Rollout, encoder: Encoder) -> bool:
    """Whether an answer has ended, and the model chose no special token in it but those of calls and ends.

    The others have no text, so no reward would see them, and the model would learn to write them.
    """
    if not rollout.ended or not has_special(encoder):
        return rollout.ended
    marks = marks_of(encoder)
    foreign = set(special_ids(encoder).values()) - {*marks[TOOL], *marks[END]}
    return not any(
        token in foreign and not forced for token, forced in zip(rollout.written, rollout.forced, strict=True)
    )


def text_of(rollout: Rollout, example: Example, encoder: Encoder) -> str:
    """What the model said in the end: its text after the last result of a tool, as the completion of a prompt."""
    if isinstance(example.prompt, PromptText):
        return said(rollout, encoder)
    before = rollout.prompt[-1]
    text = encoder.decode([before, *rollout.written])[len(encoder.decode([before])) :]
    return text.removeprefix(between(encoder, example.prompt, example.completion))


def advantages_of(rewards: Sequence[float]) -> list[float]:
    """Of each answer to a prompt: its reward minus the mean of the others'."""
    total, others = sum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]


def figures_of(drawn: Sequence[AnswerGroup], scoring: Scoring) -> dict[str, float]:
    """Of all answers that were drawn: means, and shares from 0 to 1. signal: of prompts whose answers differ in reward."""
    answers = [
        (group.example, text, rollout, valid)
        for group in drawn
        for text, rollout, valid in zip(group.texts, group.rollouts, group.valid, strict=True)
    ]

    def mean(values: Iterator[float | bool]) -> float:
        return float(sum(values)) / len(answers)

    return {
        "reward": mean(reward for group in drawn for reward in group.rewards),
        "strict_accuracy": mean(valid and scoring.is_strict(example, text) for example, text, _, valid in answers),
        "lenient_accuracy": mean(scoring.is_lenient(example, text) for example, text, _, _ in answers),
        "truncated": mean(not rollout.ended for _, _, rollout, _ in answers),
        "answer_tokens": mean(len(rollout.written) for _, _, rollout, _ in answers),
        "signal": sum(group.has_signal for group in drawn) / len(drawn),
    }


def log_probabilities(model: torch.nn.Module, inputs: Tensor, chosen: Tensor, temperature: float) -> Tensor:
    """ln p of every id after the chosen places of inputs (B, T): (places, V), float32."""
    logits: Tensor = model(inputs)
    return (logits[chosen].float() / temperature).log_softmax(dim=-1)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
