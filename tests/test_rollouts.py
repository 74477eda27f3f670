"""Rollouts: what each prompt would get alone, whatever stands beside it, with ids that a tool puts between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from test_engine import KINDS, model_of

from core.sampling.generate import generate
from core.sampling.rollouts import Rollout, roll_out

END = 7
PROMPTS = [[3], [1, 2, 3, 4], [5, 9, 11], [20, 21], [8, 8, 8, 8, 8, 8]]


@pytest.mark.parametrize("kind", KINDS)
def test_each_rollout_is_what_generate_gives(kind: str) -> None:
    model = model_of(kind)
    found = roll_out(model, PROMPTS, range(5), ends=[END], max_new_tokens=18, at_once=3)
    for seed, (prompt, rollout) in enumerate(zip(PROMPTS, found, strict=True)):
        alone = [int(token) for token in generate(model, torch.tensor([prompt]), max_new_tokens=18, seeds=[seed])]
        wanted = alone[: alone.index(END) + 1] if END in alone else alone
        assert rollout == Rollout(tuple(prompt), tuple(wanted), (False,) * len(wanted), END in alone)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_is_asked_again_is_read_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reads = model_of(kind), list[int]()
    prompts = [PROMPTS[4]] * 5 + [PROMPTS[1]] * 3 + [PROMPTS[4]]
    caches_of = type(model.new_slots(4)).caches_of

    def counted(slots: Any, model: Any, tokens: torch.Tensor) -> Any:
        reads.append(len(tokens))
        return caches_of(slots, model, tokens)

    monkeypatch.setattr(type(model.new_slots(4)), "caches_of", counted)
    found = roll_out(model, prompts, range(9), ends=[END], max_new_tokens=12, at_once=4)
    assert reads == [1, 1]
    assert found == [
        roll_out(model, [prompt], [seed], ends=[END], max_new_tokens=12)[0] for seed, prompt in enumerate(prompts)
    ]


def fourth(model: Any) -> int:
    """The fourth id that comes after PROMPTS[0] with seed 4. It is taken as the end, which then comes early."""
    return [int(token) for token in generate(model, torch.tensor(PROMPTS[:1]), max_new_tokens=4, seeds=[4])][-1]


def test_forced_ids_stand_between_and_the_model_goes_on_after_them() -> None:
    model, answered = model_of("modern"), list[list[int]]()
    end = fourth(model)
    given = [40, 41, end, 42]

    def respond(written: Sequence[int]) -> list[int]:
        answered.append(list(written))
        return given if len(answered) == 1 else []

    (rollout,) = roll_out(model, PROMPTS[:1], [4], ends={end}, max_new_tokens=15, respond=respond)
    first = answered[0]
    assert first[-1] == end and rollout.written[: len(first) + 4] == (*first, *given)
    assert [place for place, forced in enumerate(rollout.forced) if forced] == list(range(len(first), len(first) + 4))
    # The model's next id is the one after the forced ones, drawn with the number of its place.
    logits = model(torch.tensor([[*PROMPTS[0], *first, *given]]))[0, -1]
    draw = torch.rand(15, generator=torch.Generator().manual_seed(4))[len(first) + 4]
    expected = int(torch.searchsorted(logits.double().softmax(-1).cumsum(-1), draw.double()))
    assert rollout.written[len(first) + 4] == expected


def test_forced_ids_count_and_are_cut() -> None:
    model = model_of("modern")
    (rollout,) = roll_out(
        model, PROMPTS[:1], [4], ends={fourth(model)}, max_new_tokens=20, respond=lambda written: [1, 2] * 30
    )
    assert len(rollout.written) == 20 and not rollout.ended and rollout.forced[-1]


def test_nothing_is_asked() -> None:
    assert roll_out(model_of("lstm"), [], [], ends=[END], max_new_tokens=3) == []
