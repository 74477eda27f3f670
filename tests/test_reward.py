"""Training by reward: the estimator, what a batch holds, what a run with it promises, and how it is refused."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import PREPARE
from copies import Lab
from cutting import Forks
from hypothesis import given
from hypothesis import strategies as st
from test_engine import KINDS, VOCAB, model_of
from test_stages import kill_at_random

from core import open_experiment
from core.chat.conversation import SPECIAL
from core.config import Config, Optim
from core.data.documents import Example
from core.defaults import resolve
from core.encoders.bytes import BytesEncoder
from core.encoders.special import WithSpecialTokens
from core.errors import UserError
from core.lab.assemble import throwaway
from core.lab.opened import prepared
from core.lab.own import scoring_of
from core.models.product_loss import NO_TARGET
from core.plugins.manager import plugins
from core.reward.collapse import collapsed
from core.reward.collect import FIGURES, AnswerGroup, Collector, advantages_of, collector, ends_of, is_valid
from core.reward.outlook import outlook_of, share_with_signal, verdict
from core.reward.scoring import Scoring, last_word, said_in_the_end
from core.sampling import engine
from core.sampling.rollouts import Rollout, roll_out
from core.tracking.metrics import read_rows
from core.training import checkpoints
from core.training.machine import Machine
from core.training.objectives import policy_gradient
from core.training.optimizers import build_optimizer
from core.training.step import Step, accumulate_gradient

Terrarium = Callable[..., Result]
CPU = Machine(torch.device("cpu"), torch.float32)
STAGES = """
[[stages]]
name = "base"
train.schedule.max_iters = 60

[[stages]]
name = "reward"
train.objective.kind = "reward"
train.objective.group_size = 4
train.objective.prompts_per_step = 3
train.objective.max_new_tokens = 6
train.schedule.max_iters = 6
"""
EXAMPLE = Example("ab: ", "a b\n")


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9))
def test_an_advantage_is_the_distance_from_the_mean_of_the_others(rewards: list[float]) -> None:
    found = advantages_of(rewards)
    for number, (reward, advantage) in enumerate(zip(rewards, found, strict=True)):
        others = [each for other, each in enumerate(rewards) if other != number]
        assert advantage == pytest.approx(reward - sum(others) / len(others), abs=1e-9)
    assert sum(found) == pytest.approx(0, abs=1e-9)


def gradient(batch: tuple[Any, ...], rows: int, temperature: float = 1.0) -> list[torch.Tensor]:
    """The gradient of a batch of R rows, in micro-batches of some; the last one is filled up with rows without targets."""
    model = model_of("modern").double()
    parts = []
    for array, empty in zip(batch, (0, NO_TARGET, 0), strict=True):
        missing = -len(array) % rows
        filled = np.concatenate((array, np.full((missing, *array.shape[1:]), empty, array.dtype)))
        parts.append(filled.reshape(-1, rows, *array.shape[1:]))
    objective = policy_gradient(temperature)
    accumulate_gradient(lambda *each: objective(model, *each), tuple(parts), CPU)
    return [parameter.grad for parameter in model.parameters()]


def random_batch(rows: int = 7) -> tuple[Any, ...]:
    random = np.random.default_rng(0)
    inputs = random.integers(60, size=(rows, 12))
    targets = np.where(random.random((rows, 12)) < 0.5, random.integers(60, size=(rows, 12)), NO_TARGET)
    return inputs, targets, random.normal(size=rows)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_size_of_micro_batches_does_not_change_the_gradient(temperature: float) -> None:
    batch = random_batch()
    whole = gradient(batch, 7, temperature)
    for rows in (1, 3):
        for one, other in zip(gradient(batch, rows, temperature), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


def test_the_gradient_is_that_of_the_weighted_log_likelihood() -> None:
    """Against the formula, written out: - sum of A ln p / targets of the whole step."""
    inputs, targets, advantages = random_batch()
    model = model_of("modern").double()
    loss = torch.zeros((), dtype=torch.double)
    for row in range(len(inputs)):
        logs = (model(torch.from_numpy(inputs[row : row + 1]))[0] / 0.7).log_softmax(dim=-1)
        for place in np.flatnonzero(targets[row] != NO_TARGET):
            loss = loss - float(advantages[row]) * logs[place, int(targets[row, place])]
    (loss / (targets != NO_TARGET).sum()).backward()  # type: ignore[no-untyped-call]
    for one, parameter in zip(gradient((inputs, targets, advantages), 7, 0.7), model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_while_writing_are_those_of_a_second_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several rows in company, with what a tool forces between, at a temperature that is not 1."""
    model = model_of(kind).double()
    told: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    plain = engine.Engine.chosen

    def noted(self: engine.Engine, logits: torch.Tensor) -> list[int]:
        chosen = plain(self, logits)
        for row, running in enumerate(self.running):
            told[running.asked.seed].append((logits[row] / 0.7).log_softmax(dim=-1)[chosen[row]])
        return chosen

    def respond(written: Sequence[int]) -> list[int]:
        return [7, 8] if len(written) < 5 else []

    monkeypatch.setattr(engine.Engine, "chosen", noted)
    prompts, ends = [[3, 1, 4], [1, 5], [9, 2, 6, 5]], range(0, VOCAB, 2)
    rollouts = roll_out(model, prompts, [0, 1, 2], ends=ends, max_new_tokens=12, temperature=0.7, respond=respond)
    assert any(map(any, (rollout.forced for rollout in rollouts)))
    for number, rollout in enumerate(rollouts):
        ids, start = torch.tensor([[*rollout.prompt, *rollout.written]]), len(rollout.prompt)
        with torch.inference_mode():
            logs = (model(ids[:, :-1])[0] / 0.7).log_softmax(dim=-1)[start - 1 :]
        again = logs.gather(1, ids[0, start:, None])[:, 0]
        chosen = [place for place, forced in enumerate(rollout.forced) if not forced]
        torch.testing.assert_close(torch.stack(told[number]), again[chosen], rtol=1e-9, atol=1e-9)


@pytest.fixture
def by_reward(spaces: Path) -> Path:
    """Two stages: `base` learns tokens, `reward` goes on from it."""
    (spaces / "config.toml").write_text((spaces / "config.toml").read_text() + STAGES)
    return spaces


@contextlib.contextmanager
def collecting(folder: Path, **changes: Any) -> Iterator[Collector]:
    """A Collector of an experiment without stages, with fresh weights."""
    keys = {"kind": "reward", "max_new_tokens": 6, "group_size": 4, "prompts_per_step": 3} | changes
    opened = open_experiment(folder, {f"train.objective.{key}": value for key, value in keys.items()}).opened
    opened, dataset = prepared(opened)
    with throwaway(opened, dataset) as (run, parts):
        model = parts.model
        yield collector(model, None, dataset, run.config.train, parts.machine, scoring_of(opened))


def with_code(folder: Path, code: str) -> Path:
    (folder / "prepare.py").write_text(PREPARE + code)
    return folder


BY_LENGTH = """

def reward(example, completion):
    return float(len(completion))
"""


def test_a_batch_holds_what_the_model_chose(spaces: Path) -> None:
    with collecting(with_code(spaces, BY_LENGTH)) as found:
        inputs, targets, advantages = found.batch(4)
        again = found.batch(4)
        other = found.batch(5)
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((1337, 4, 1))))
        groups = found.groups(found.prompts(random, 3), random, 4)
    assert all((one == two).all() for one, two in zip((inputs, targets, advantages), again, strict=True))
    assert inputs.shape != other[0].shape or (inputs != other[0]).any()
    rows = zip(
        inputs.reshape(-1, inputs.shape[-1]), targets.reshape(-1, inputs.shape[-1]), advantages.flat, strict=True
    )
    kept = [
        (rollout, value)
        for group in groups
        if group.has_signal
        for rollout, value in zip(group.rollouts, advantages_of(group.rewards), strict=True)
    ]
    assert kept
    for (rollout, value), (ids_in, learnt, weight) in zip(kept, rows, strict=False):
        assert weight == np.float32(value)
        ids = [*rollout.prompt, *rollout.written]
        assert ids_in[: len(ids) - 1].tolist() == ids[:-1]
        assert learnt[learnt != NO_TARGET].tolist() == list(rollout.written)  # the end is among them
        assert learnt[: len(rollout.prompt) - 1].tolist() == [NO_TARGET] * (len(rollout.prompt) - 1)
        if rollout.ended:
            assert rollout.written[-1] in found.ends


def test_what_a_tool_put_between_is_not_learnt(spaces: Path) -> None:
    with collecting(with_code(spaces, BY_LENGTH)) as found:
        forced = Rollout((1, 2), (3, 4, 5, 6), (False, True, True, False), True)
        plain = Rollout((1, 2), (3, 6), (False, False), True)
        inputs, targets, _ = found.rows([AnswerGroup(EXAMPLE, [forced, plain], ["", ""], [1.0, 0.0], [True, True])])
    assert inputs[0, 0, :5].tolist() == [1, 2, 3, 4, 5]
    assert targets[0, 0, :5].tolist() == [NO_TARGET, 3, NO_TARGET, NO_TARGET, 6]
    assert (targets[0, 1, 3:] == NO_TARGET).all()


def test_a_cut_answer_gets_no_reward_and_is_counted(spaces: Path) -> None:
    with collecting(with_code(spaces, BY_LENGTH), max_new_tokens=1) as found:
        found.batch(0)
        figures = found.figures
    assert 0 < figures["truncated"] <= 1 and figures["answer_tokens"] == 1
    assert figures["reward"] == pytest.approx(1 - figures["truncated"])  # those that ended are one character long


def test_without_signal_a_step_teaches_nothing_and_the_run_ends(by_reward: Path, terrarium: Terrarium) -> None:
    with_code(by_reward, "\n\ndef reward(example, completion):\n    return 0\n")
    more = ("max_iters=40", "eval_interval=10", "train.runtime.log_interval=1", "train.objective.max_new_tokens=9")
    done = terrarium("loop", "spaces", *(part for key in more for part in ("-s", f"stages.reward.{key}")))
    assert done.exit_code == 0, done.stderr
    summary = json.loads((by_reward / "out/default/reward/summary.json").read_text())
    assert summary["stopped_by"].startswith(
        "collapse: in 20 steps in a row, all answers to a prompt had the same reward"
    )
    assert summary["steps"] == 20 and summary["best_step"] == 0
    kept = checkpoints.load(by_reward / "out/default/reward/checkpoints", "last").state["progress"]
    assert kept["silent"] == 20  # a resumed run goes on counting
    before, after = (
        checkpoints.load(by_reward / f"out/default/{place}/checkpoints", name).model
        for place, name in (("base", "best"), ("reward", "last"))
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_step_without_signal_leaves_the_weights_where_they_are(name: str) -> None:
    """Also behind one with a signal, whose momentum goes on."""
    config = resolve(Config.model_validate({"train": {"optim": {"name": name, "weight_decay": 0.1}}})).train
    model = model_of("modern").train()
    step = Step(model, build_optimizer(model, config.optim, plugins()), CPU, None, policy_gradient(1.0))
    batch = tuple(array[None] for array in random_batch())
    silent = (batch[0], np.full_like(batch[1], NO_TARGET), batch[2])
    for arrays, moves in ((batch, True), (silent, False)):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        step.gradient(*arrays)
        assert step.update(arrays[1]) is moves
        moved = any(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
        assert moved is moves


def test_the_size_of_micro_batches_does_not_change_the_rates() -> None:
    def rates(size: int) -> Optim:
        train = {"objective": {"kind": "reward"}, "data": {"batch_size": size, "block_size": 256}}
        return resolve(Config.model_validate({"train": train})).train.optim

    assert rates(4) == rates(64)
    assert rates(4).learning_rate == pytest.approx(0.05 * 0.02)


@pytest.mark.parametrize(("rich", "rounds", "kept"), [(3, 1, 3), (1, 3, 3), (0, 4, 0)])
def test_prompts_without_signal_are_replaced_within_a_limit(
    spaces: Path, monkeypatch: pytest.MonkeyPatch, rich: int, rounds: int, kept: int
) -> None:
    """rich: how many prompts of each round have answers of different rewards, at most."""
    with collecting(with_code(spaces, BY_LENGTH)) as found:
        asked = []

        def groups(prompts: list[Any], random: np.random.Generator, size: int) -> list[AnswerGroup]:
            asked.append(len(prompts))
            random.random()  # as drawing answers does
            told = [[float(n < rich), *[0.0] * (size - 1)] for n in range(len(prompts))]
            rollouts = [Rollout(tuple(ids), (3,), (False,), True) for _, ids in prompts]
            return [
                AnswerGroup(example, [rollout] * size, ["a"] * size, rewards, [True] * size)
                for (example, _), rollout, rewards in zip(prompts, rollouts, told, strict=True)
            ]

        monkeypatch.setattr(found, "groups", groups)
        _, targets, advantages = found.batch(0)
    assert asked == [3, *([2, 1] if rich == 1 else [3] * (rounds - 1))]
    assert (targets != NO_TARGET).any(axis=-1).sum() == 4 * kept == 4 * np.count_nonzero(advantages > 0)
    assert found.figures["signal"] == pytest.approx(kept / sum(asked))


def test_an_answer_with_special_tokens_that_have_no_text_is_not_valid() -> None:
    encoder = WithSpecialTokens(BytesEncoder(), SPECIAL)
    special = encoder.special

    def rollout(*names: str, ended: bool = True, forced: tuple[bool, ...] | None = None) -> Rollout:
        ids = tuple(special.get(name, 65) for name in names)
        return Rollout((1,), ids, forced or (False,) * len(ids), ended)

    assert is_valid(rollout("A", "<|end|>"), encoder)
    assert not is_valid(rollout("A", "A", ended=False), encoder)
    assert not is_valid(rollout("<|user|>", "A", "<|end|>"), encoder)
    call = ("<|tool|>", "A", "<|end|>", "<|result|>", "A", "<|end|>", "<|assistant|>", "A", "<|end|>")
    assert is_valid(rollout(*call, forced=(False,) * 3 + (True,) * 4 + (False,) * 2), encoder)
    assert not is_valid(rollout(*call), encoder)
    assert is_valid(Rollout((1,), (65,), (False,), True), BytesEncoder())


def test_when_a_run_has_collapsed() -> None:
    assert collapsed({"val_accuracy": 0.2}, {"val_accuracy": 0.5}, 0).startswith("val_accuracy fell from 0.5 to 0.2")
    assert collapsed({"val_accuracy": 0.3}, {"val_accuracy": 0.5}, 0) == ""
    assert collapsed({"val_accuracy": 0.0}, {"val_accuracy": 0.01}, 0) == ""
    assert collapsed({"signal": 0.0}, {}, 19) == ""
    assert "nothing can be learnt" in collapsed({}, {}, 20)


def test_what_falls_below_half_of_the_start_is_a_collapse(by_reward: Path, terrarium: Terrarium) -> None:
    """The reward is for wrong answers, so the weights at the start have the most exact ones. They count as an evaluation."""
    with_code(by_reward, AGAINST_THE_TRUTH)
    more = ("max_iters=30", "train.optim.learning_rate=0.05", "train.runtime.eval_interval=10")
    done = terrarium("loop", "spaces", *(part for key in more for part in ("-s", f"stages.reward.{key}")))
    assert done.exit_code == 0, done.stderr
    rows = read_rows(by_reward / "out/default/reward/metrics.csv")
    measured = [row for row in rows if "val_reward" in row]
    assert measured and all(row["val_reward"] <= 1 - row["val_accuracy"] + 1e-9 for row in measured)
    summary = json.loads((by_reward / "out/default/reward/summary.json").read_text())
    assert summary["stopped_by"].startswith("collapse: val_accuracy fell") and summary["steps"] == 10
    assert summary["best_step"] == 10  # by the reward


AGAINST_THE_TRUTH = """

def answer(text):
    return text[:1]


def reward(example, completion):
    return float(completion[:1] != example.completion[:1])
"""


def test_a_run_tells_what_it_saw(by_reward: Path, terrarium: Terrarium) -> None:
    done = terrarium("loop", "spaces")
    assert done.exit_code == 0, done.stderr
    rows = read_rows(by_reward / "out/default/reward/metrics.csv")
    for name in FIGURES:
        values = [row[name] for row in rows if name in row]
        assert values, name
        if name not in ("answer_tokens", "distance", "entropy"):
            assert all(0 <= value <= 1 for value in values), name
    assert all(row["distance"] >= -1e-6 and row["entropy"] >= 0 for row in rows)
    summary = json.loads((by_reward / "out/default/reward/summary.json").read_text())
    assert summary["origin"]["checkpoint"] == "best" and summary["ms_per_step"] > 0


def test_distance_and_entropy_are_what_they_say(spaces: Path) -> None:
    with collecting(with_code(spaces, BY_LENGTH)) as found:
        found.start = copy.deepcopy(found.model).eval()
        found.batch(0)
        assert found.figures["distance"] == pytest.approx(0, abs=1e-6)
        for model in (found.model, found.start):
            torch.nn.init.zeros_(model.lm_head.weight)
        found.batch(0)
        assert found.figures["entropy"] == pytest.approx(math.log(found.dataset.encoder.vocab_size), rel=1e-3)


@pytest.mark.slow
def test_killed_at_random_it_ends_as_an_unbroken_run(by_reward: Path, forks: Forks) -> None:
    """Rollouts depend on seed, step and weights only."""
    kill_at_random(Lab(by_reward, forks), 6)


def test_reward_lifts_what_is_rewarded(by_reward: Path, terrarium: Terrarium) -> None:
    """The share of answers that begin with a: a reward that next-token training knows nothing of."""
    with_code(by_reward, "\n\ndef reward(example, completion):\n    return float(completion.startswith('a'))\n")
    steps = ("-s", "stages.reward.max_iters=40", "-s", "stages.reward.train.optim.learning_rate=0.01")
    done = terrarium("loop", "spaces", *steps, "-s", "stages.reward.train.runtime.log_interval=5")
    assert done.exit_code == 0, done.stderr
    rewards = [row["reward"] for row in read_rows(by_reward / "out/default/reward/metrics.csv")]
    assert rewards[-1] > rewards[0] + 0.2


@pytest.mark.parametrize(
    ("rewards", "size", "share"),
    [([1.0] * 64, 8, 0.0), ([0.0] * 64, 8, 0.0), ([0.0, 1.0], 8, 1 - 2 * 0.5**8), ([0.0] * 99 + [1.0], 16, 1 - 0.99**16 - 0.01**16)],
)  # fmt: skip
def test_the_share_of_groups_with_a_signal(rewards: list[float], size: int, share: float) -> None:
    assert share_with_signal(rewards, size) == pytest.approx(share)


def test_the_outlook_is_of_answers_that_the_model_gives(spaces: Path) -> None:
    with collecting(
        with_code(spaces, "\n\ndef reward(example, completion):\n    return float('a' in completion)\n")
    ) as found:
        outlook = outlook_of(found)
    assert outlook.answers == 64 and 0 < outlook.rewarded < 1
    assert outlook.low < outlook.rewarded < outlook.high
    assert outlook.signal == pytest.approx(1 - outlook.rewarded**4 - (1 - outlook.rewarded) ** 4)


def test_the_verdict() -> None:
    assert verdict([0.0] * 64, 0.0).startswith("it cannot work")
    assert verdict([1.0] * 64, 0.0).startswith("little is left to learn")
    assert verdict([1.0] * 63 + [0.0], 0.1).startswith("little is left to learn")
    assert verdict([0.0] * 63 + [1.0], 0.05).startswith("it will be slow")
    assert verdict([0.1] * 32 + [1.0] * 32, 0.9) == "it can work"
    assert verdict([-1.0] * 60 + [0.0] * 4, 0.4) == "it can work"


def test_check_says_whether_training_by_reward_can_work(by_reward: Path, terrarium: Terrarium) -> None:
    early = terrarium("check", "spaces", "--stage", "reward")
    assert early.exit_code == 0 and "base has no weights yet" in early.stdout, early.stdout + early.stderr
    assert terrarium("loop", "spaces", "--stage", "base").exit_code == 0
    shown = terrarium("check", "spaces", "--stage", "reward")
    assert "of 64 answers" in shown.stdout and "groups of 4" in shown.stdout, shown.stdout
    found = json.loads(terrarium("check", "spaces", "--stage", "reward", "--json").stdout)
    assert found["stages"]["reward"]["reward"]["answers"] == 64


def test_strict_and_lenient() -> None:
    example = Example("6*7=", "It is 42.\n")
    scoring = Scoring()
    assert scoring.is_strict(example, "It is 42.\n") and scoring.is_lenient(example, "It is 42.\n")
    assert not scoring.is_strict(example, "42") and scoring.is_lenient(example, "42")
    assert not scoring.is_lenient(example, "It is 41.\n") and not scoring.is_lenient(example, "")
    assert scoring.score(example, "It is 42.\n") == 1.0 and scoring.score(example, "42") == 0.0
    by_part = Scoring(part=lambda text: text[-3:])
    assert by_part.is_strict(example, "well 2.\n") and by_part.score(example, "well 2.\n") == 1.0
    assert by_part.is_lenient(example, "well 2.\n") and by_part.is_lenient(example, "42 of them")


@pytest.mark.parametrize(
    ("text", "truth", "same"),
    [
        ("I see 7 frogs.", "I see 5 frogs.", False), ("5, I see.", "I see 5 frogs.", True), ("2,000", "1,000", False),
        ("1000", "$1,000.00", True), ("3.0", "3", True), ("x = -3.5", "-3.5", True), ("three", "3", False),
        ("A frog.", "The Frog.", True), ("a snail", "The Frog.", False), ("frog 7", "frog", False),
    ],
)  # fmt: skip
def test_what_is_said_in_the_end(text: str, truth: str, same: bool) -> None:
    assert said_in_the_end(text, truth) is same


@pytest.mark.parametrize(("text", "last"), [("The Frog.", "frog"), ("", ""), ("...", "")])
def test_the_last_word(text: str, last: str) -> None:
    assert last_word(text) == last


@pytest.mark.parametrize("value", ["None", "'1'", "float('nan')", "float('inf')"])
def test_a_reward_that_is_no_number_is_refused(by_reward: Path, terrarium: Terrarium, value: str) -> None:
    with_code(by_reward, f"\n\ndef reward(example, completion):\n    return {value}\n")
    done = terrarium("loop", "spaces")
    assert done.exit_code == 2 and "reward returned" in done.stderr and "prepare.py" in done.stderr, done.stderr


def test_a_helper_called_reward_is_told_of_only_where_rewards_train(spaces: Path, terrarium: Terrarium) -> None:
    with_code(spaces, "\n\ndef reward(letters):\n    return len(letters)\n")
    done = terrarium("train", "spaces")
    assert done.exit_code == 0 and "a function reward, which is not used" not in done.stderr, done.stderr
    with pytest.warns(UserWarning, match="a function reward, which is not used"), collecting(spaces):
        pass


def test_what_has_nothing_to_score_is_refused(text: Path, terrarium: Terrarium) -> None:
    done = terrarium("train", "text", "-s", "train.objective.kind=reward")
    assert done.exit_code == 2 and "no prompts with right answers" in done.stderr, done.stderr
    assert not [path for path in text.glob("out/*") if not path.name.startswith(".")]


def test_answers_without_room_are_refused(spaces: Path, terrarium: Terrarium) -> None:
    done = terrarium("train", "spaces", "-s", "train.objective.kind=reward", "-s", "train.objective.max_new_tokens=16")
    assert done.exit_code == 2 and "no prompt leaves room for an answer of 16 tokens in 16" in done.stderr, done.stderr


def test_an_end_that_no_token_writes_is_refused(spaces: Path) -> None:
    with collecting(spaces) as found:
        dataset = found.dataset
        assert ends_of(dataset) == {dataset.encoder.encode("\n")[0]}
        with pytest.raises(UserError, match="no token ends an answer"):
            ends_of(dataclasses.replace(dataset, info={**dataset.info, "stop": "###"}))


def test_an_unknown_objective_is_refused(spaces: Path, terrarium: Terrarium) -> None:
    done = terrarium("train", "spaces", "-s", "train.objective.kind=rewards")
    assert done.exit_code == 2 and 'unknown objective "rewards"' in done.stderr and "reward" in done.stderr
    with_code(spaces, "\n\ndef loss(model, batch):\n    return 0\n")
    done = terrarium("train", "spaces", "-s", "train.objective.kind=reward")
    assert done.exit_code == 2 and "prepare.py has its own loss()" in done.stderr


def test_an_experiment_may_register_an_objective(spaces: Path, terrarium: Terrarium) -> None:
    with_code(spaces, """

def half(model, batch):
    from torch.nn.functional import cross_entropy

    return 0.5 * cross_entropy(model(batch.inputs).flatten(0, 1), batch.targets.flatten(), ignore_index=-1)


def register_objectives(register):
    register("half", half)
""")  # fmt: skip
    assert terrarium("train", "spaces", "--run", "plain").exit_code == 0
    assert terrarium("train", "spaces", "--run", "half", "-s", "train.objective.kind=half").exit_code == 0
    plain, half = (read_rows(spaces / "out" / run / "metrics.csv")[0]["train_loss"] for run in ("plain", "half"))
    assert half == pytest.approx(plain / 2, rel=0.05)


@pytest.mark.slow
def test_rewarding_the_form_teaches_the_form(by_reward: Path, terrarium: Terrarium) -> None:
    """Half of the examples end with a mark. Rewarding the mark raises its share, and not the share of right answers.

    The page of the run says so.
    """
    (by_reward / "prepare.py").write_text(FORM)
    more = (
        "stages.base.max_iters=400", "train.data.batch_size=16", "train.model.block_size=24",
        "stages.reward.max_iters=40", "stages.reward.train.optim.learning_rate=0.01",
        "stages.reward.train.objective.max_new_tokens=10", "stages.reward.train.objective.prompts_per_step=8",
        "stages.reward.train.runtime.log_interval=10",
        "stages.reward.train.runtime.eval_interval=40",  # or a collapse would end it early
    )  # fmt: skip
    done = terrarium("loop", "spaces", *(part for key in more for part in ("-s", key)))
    assert done.exit_code == 0, done.stderr
    rows = read_rows(by_reward / "out/default/reward/metrics.csv")
    assert rows[0]["lenient_accuracy"] > 0.3  # a skill that could rise or fall
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.2
    assert rows[-1]["lenient_accuracy"] < rows[0]["lenient_accuracy"] + 0.15
    assert "> In stage reward: The reward rose, the skill did not" in (by_reward / "out/default/report.md").read_text()


FORM = """from core import Example


def documents(rng):
    while True:
        letters = rng.choices("abc", k=4)
        mark = "!" if rng.random() < 0.5 else ""
        yield Example("".join(letters) + "=", "".join(sorted(letters)) + mark + "\\n")


def answer(text):
    return text.strip("!\\n")


def reward(example, completion):
    return float(completion.endswith("!\\n"))
"""
