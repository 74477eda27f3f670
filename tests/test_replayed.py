"""Decoding that is recorded, then replayed: the logits are those of the decoder, for every architecture, at every length.

There are no CUDA graphs on a CPU. A stand-in calls the recorded function at each replay, while everything that Python knows of the
cache is as it was when it was recorded, or gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_attention import KEYS, LENGTH, PRESETS, build, tokens_of
from test_graphed import Reads
from torch import Tensor

from core.models import replayed
from core.models.decode import Decoder
from core.models.gpt import GPT
from core.models.replayed import ReplayedDecoder
from core.sampling.generate import generate

EXTRA: list[dict[str, Any]] = [{"smear": True}, {"ngram": 3}, {"softcap": 3.0}]


class Recordings:
    """Stands in for `record`. count: replays."""

    def __init__(self) -> None:
        self.cache: ReplayedDecoder | None = None
        self.count = 0

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
        assert self.cache is not None
        cache, span, ids = self.cache, self.cache.span, self.cache.recent_ids
        result = torch.zeros_like(function())  # which stores the same once more

        def replay() -> None:
            self.count += 1
            now = cache.length, cache.span, cache.recent_ids, cache.recent
            cache.length, cache.span, cache.recent_ids, cache.recent = None, span, ids, None  # type: ignore[assignment]
            with Reads() as reads:
                result.copy_(function())
            assert not reads.count
            cache.length, cache.span, cache.recent_ids, cache.recent = now

        return replay, result


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings for every 4 tokens, from the third on."""
    monkeypatch.setattr(replayed, "STRIDE", 4)
    monkeypatch.setattr(replayed, "FIRST", 2)


def replayed_cache(model: GPT, rows: int) -> tuple[ReplayedDecoder, Recordings]:
    recordings = Recordings()
    norm: Any = model.transformer["ln_f"]
    cache = ReplayedDecoder(model.blocks, norm, model.lm_head, rows, model.block_size, recordings)
    recordings.cache = cache
    return cache, recordings


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("preset", "keys"),
    [("modern", keys) for keys in KEYS + EXTRA] + [(preset, {}) for preset in PRESETS],
    ids=str,
)
@pytest.mark.parametrize("prompt", [1, 3])
def test_the_logits_are_those_of_the_decoder(preset: str, keys: dict[str, Any], prompt: int) -> None:
    model, tokens = build(preset, **keys), tokens_of(3)
    cache, recordings = replayed_cache(model, 3)
    with torch.inference_mode():
        for _ in range(2):  # cleared, it begins again
            plain = model.new_cache(3)
            assert type(plain) is Decoder
            at = 0
            for size in (prompt, *[1] * (LENGTH - prompt)):
                new = tokens[:, at : at + size]
                torch.testing.assert_close(model(new, cache), model(new, plain), rtol=1e-9, atol=1e-9)
                at += size
            with pytest.raises(ValueError, match="11 tokens do not fit the model's block_size = 10"):
                model(tokens[:, :1], cache)
            cache.clear()
    steps = 2 * (LENGTH - prompt + (prompt == 1))
    assert recordings.count == steps - 2 - 3  # all but the first two, and three that were recorded
    assert sorted(cache.recordings) == [4, 8, 12]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("keys", [{}, {"smear": True, "position": "alibi"}], ids=str)
def test_what_is_written_is_the_same_past_the_block(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("modern", **keys)
    options: dict[str, Any] = {"max_new_tokens": 3 * LENGTH, "seeds": [1, 2]}
    expected = [chosen.tolist() for chosen in generate(model, tokens_of(2, 4), **options)]
    caches = []

    def new_cache(rows: int) -> ReplayedDecoder:
        caches.append(replayed_cache(model, rows))
        return caches[-1][0]

    monkeypatch.setattr(model, "new_cache", new_cache)
    assert [chosen.tolist() for chosen in generate(model, tokens_of(2, 4), **options)] == expected
    assert caches[0][1].count > LENGTH


def test_the_logits_of_a_step_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed, "FIRST", 0)
    model, tokens = build("modern"), tokens_of(2)
    cache, _ = replayed_cache(model, 2)
    with torch.inference_mode():
        kept = [model(tokens[:, at : at + 1], cache) for at in range(3)]
        copies = [each.clone() for each in kept]
        model(tokens[:, 3:4], cache)
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_short_answers_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed, "FIRST", 4)
    model, tokens = build("modern"), tokens_of(2)
    cache, recordings = replayed_cache(model, 2)
    with torch.inference_mode():
        for at in range(replayed.FIRST):
            model(tokens[:, at : at + 1], cache)
        assert not cache.recordings
        model(tokens[:, :1], cache), model(tokens[:, :1], cache)
    assert recordings.count == 1


def test_what_cannot_be_recorded_is_decoded_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed, "FIRST", 2)
    model, tokens = build("modern"), tokens_of(2)
    cache, _ = replayed_cache(model, 2)
    plain = model.new_cache(2)

    def recorder(function: Callable[[], Tensor]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    cache.recorder = recorder
    with torch.inference_mode(), pytest.warns(UserWarning) as caught:
        for at in range(LENGTH):
            new = tokens[:, at : at + 1]
            torch.testing.assert_close(model(new, cache), model(new, plain), rtol=1e-9, atol=1e-9)
    assert [str(each.message) for each in caught] == [
        "sampling: the work of a token cannot be recorded (operation not permitted when stream is capturing), so its operations are "
        "started one by one"
    ]


def test_a_gpu_gets_it_if_it_is_asked_for() -> None:
    on = functools.partial(replayed.decoder_on, replays=True)
    assert on(torch.device("cuda:1")) is ReplayedDecoder
    assert on(torch.device("cpu")) is on(torch.device("mps")) is Decoder
    assert replayed.decoder_on(torch.device("cuda"), replays=False) is Decoder
    assert type(build("modern").new_cache(1)) is Decoder
