"""What can be expected of training by reward: from a few answers, the share of prompts that will tell better from worse."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from core.evaluation.intervals import wilson
from core.reward.collect import Collector

ANSWERS = 64
LITTLE = 0.1  # a smaller share of prompts with a signal makes most answers useless
EASY = 0.95  # a larger share of answers with the highest reward leaves little to learn


@dataclass(frozen=True)
class Outlook:
    """answers: that were drawn, to prompts drawn at random. rewarded: the share with a reward above 0, between low and high
    with 95 % confidence. signal: the share of groups of group_size answers whose rewards will differ; it is less where some
    prompts are always solved and others never. truncated: the share of answers that did not end. verdict: in words.
    """

    answers: int
    reward: float
    rewarded: float
    low: float
    high: float
    group_size: int
    signal: float
    truncated: float
    verdict: str


def outlook_of(collector: Collector) -> Outlook:
    """The outlook of a model, from ANSWERS answers to training prompts at the objective's temperature."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((collector.config.runtime.seed, 0, 2))))
    drawn = collector.groups(collector.prompts(random, ANSWERS), random, 1)
    rewards = [group.rewards[0] for group in drawn]
    rewarded, size = sum(reward > 0 for reward in rewards) / ANSWERS, collector.config.objective.group_size
    signal = share_with_signal(rewards, size)
    return Outlook(
        answers=ANSWERS,
        reward=sum(rewards) / ANSWERS,
        rewarded=rewarded,
        low=wilson(rewarded, ANSWERS)[0],
        high=wilson(rewarded, ANSWERS)[1],
        group_size=size,
        signal=signal,
        truncated=sum(not group.rollouts[0].ended for group in drawn) / ANSWERS,
        verdict=verdict(rewards, signal),
    )


def share_with_signal(rewards: list[float], size: int) -> float:
    """The chance that `size` answers with rewards like these do not all have the same: 1 - p^g - (1 - p)^g if there are two."""
    return 1.0 - sum((count / len(rewards)) ** size for count in Counter(rewards).values())


def verdict(rewards: list[float], signal: float) -> str:
    """Whether training by reward can work here."""
    highest = max(rewards)
    at_best = rewards.count(highest) / len(rewards)
    if at_best == 1.0 and highest <= 0:
        return (
            "it cannot work: no answer was rewarded, so there is nothing to prefer. Train the stage before longer, or reward a "
            "part of the way"
        )
    if at_best > EASY:
        return "little is left to learn: nearly every answer has the highest reward"
    if signal < LITTLE:
        return "it will be slow: most groups have no signal. Raise train.objective.group_size, or train the stage before longer"
    return "it can work"
