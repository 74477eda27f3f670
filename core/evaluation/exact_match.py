"""Answer held-out prompts greedily and compare the answers with the truth, character by character."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from core.chat.tools import BUILT_IN, Tools
from core.data.dataset import Dataset, Side
from core.data.documents import Example
from core.encoders.base import Encoder, between
from core.sampling.asking import answer_size, ask, said
from core.sampling.generate import complete
from core.training.machine import Machine

Part = Callable[[str], str]  # a completion -> the part of it that counts
Score = Callable[[Example, str], float]  # of an answer to an example's prompt


@dataclass(frozen=True)
class Answer:
    """A model's answer to one example's prompt. part: says what counts in it and in the truth; None: every character.

    ended: whether the model ended it; otherwise it was cut.
    """

    example: Example
    text: str
    part: Part | None = None
    ended: bool = True

    @property
    def pair(self) -> tuple[str, str]:
        """The truth and the answer: the parts of them that count."""
        if self.part is None:
            return self.example.completion, self.text
        return self.part(self.example.completion), self.part(self.text)

    @property
    def correct(self) -> bool:
        truth, text = self.pair
        return text == truth


def greedy_answers(
    model: torch.nn.Module,
    dataset: Dataset,
    examples: Sequence[Example],
    machine: Machine,
    part: Part | None = None,
    side: Side = "val",
    tools: Tools = BUILT_IN,
    room: int = 0,
) -> list[Answer]:
    """The model's greedy completion of each prompt of a side, up to the dataset's end or one token more than the longest truth.

    room: tokens that it may have in any case, such as those that training by reward allows. In conversations with special
    tokens, calls of `tools` are answered, and the completion is the assistant's last turn.
    """
    encoder, prompts = dataset.encoder, [example.prompt for example in examples]
    most = max(most_tokens(dataset, examples, side), room)
    if dataset.train.whole:
        rollouts = ask(model, encoder, prompts, tools, max_new_tokens=most)
        found = answered(encoder, examples, [said(rollout, encoder) for rollout in rollouts], part)
        return [replace(answer, ended=rollout.ended) for answer, rollout in zip(found, rollouts, strict=True)]
    texts = complete(
        model,
        encoder,
        prompts,
        max_new_tokens=most,
        temperature=0.0,
        stop=dataset.stop,
        device=machine.device,
    )
    found = answered(encoder, examples, texts, part)
    return [replace(answer, ended=answer.text.endswith(dataset.stop)) for answer in found]


def most_tokens(dataset: Dataset, examples: Sequence[Example], side: Side) -> int:
    """One token more than the longest truth of a side has, with its calls and results. Raises UserError as `answer_size`."""
    longest = dataset.longest_answer(side)
    if dataset.train.whole:
        longest = max([longest, *(1 + answer_size(example.completion, dataset.encoder) for example in examples)])
    return longest + 1


def answered(encoder: Encoder, examples: Sequence[Example], texts: Sequence[str], part: Part | None) -> list[Answer]:
    """The texts as answers, without what only decoding put between a prompt and its answer: the space between two words."""
    return [
        Answer(example, text.removeprefix(between(encoder, example.prompt, example.completion)), part)
        for example, text in zip(examples, texts, strict=True)
    ]


def mean_reward(answers: Sequence[Answer], score: Score, side: str) -> dict[str, float]:
    """`<side>_reward`: the mean score of the answers, 0 for one that did not end. Empty without answers."""
    scores = [score(answer.example, answer.text) if answer.ended else 0.0 for answer in answers]
    return {f"{side}_reward": sum(scores) / len(scores)} if scores else {}


def accuracies(answers: Sequence[Answer], side: str) -> dict[str, float]:
    """`<side>_accuracy` and `<side>_accuracy/<group>`: the fraction of answers that match exactly."""
    slices: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        slices[f"{side}_accuracy"].append(answer.correct)
        if answer.example.group is not None:
            slices[f"{side}_accuracy/{answer.example.group}"].append(answer.correct)
    return {name: sum(correct) / len(correct) for name, correct in slices.items()}


def prompts_by_group(answers: Sequence[Answer]) -> dict[str, int]:
    """How many answers there are of each group."""
    return dict(Counter(answer.example.group for answer in answers if answer.example.group is not None))


def counts(answers: Sequence[Answer], side: str) -> dict[str, int]:
    """`<side>_prompts` and `<side>_prompts/<group>`: how many answers `accuracies` are of. Empty without answers."""
    by_group = {f"{side}_prompts/{group}": count for group, count in prompts_by_group(answers).items()}
    return {f"{side}_prompts": len(answers)} | by_group if answers else {}
