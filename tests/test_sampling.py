"""core.sampling: what is drawn, where it ends, and that the cache changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.config import Config
from core.defaults import resolve
from core.encoders.bytes import BytesEncoder
from core.encoders.char import CharEncoder
from core.encoders.words import WordsEncoder
from core.errors import UserError
from core.models.gpt import GPT
from core.models.lstm import LSTM
from core.sampling.generate import complete, generate
from core.sampling.samplers import choose, uniform_draws

BLOCK, VOCAB = 12, 7
MODELS = [("gpt", "modern"), ("gpt", "gpt2"), ("gpt", "llama"), ("gpt", "portable"), ("lstm", "modern")]


def build(kind: str = "gpt", preset: str = "modern", vocab_size: int = VOCAB, **keys: Any) -> nn.Module:
    """A model that has opinions: weights far from their start, in float64 so that ties are not decided by rounding."""
    shape = {"kind": kind, "preset": preset, "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": BLOCK, **keys}
    config = Config.model_validate({"train": {"model": shape}})
    torch.manual_seed(5)
    model = {"gpt": GPT, "lstm": LSTM}[kind](resolve(config).train.model, vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double()


class Script(nn.Module):
    """A model without a cache that says a text by heart: after token i comes the id that `follows` names."""

    def __init__(self, follows: dict[int, int], vocab_size: int, block_size: int = 8) -> None:
        super().__init__()
        self.block_size, self.longest = block_size, 0
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))
        with torch.no_grad():
            for token, successor in follows.items():
                self.table[token, successor] = 9.0

    def forward(self, tokens: Tensor) -> Tensor:
        self.longest = max(self.longest, tokens.shape[1])
        return self.table[tokens]


def prompts_of(rows: int, length: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


def run(model: nn.Module, prompts: Tensor, steps: int, **settings: Any) -> Tensor:
    return torch.stack(list(generate(model, prompts, max_new_tokens=steps, **settings)), dim=1)


@pytest.mark.parametrize(("kind", "preset"), MODELS)
@pytest.mark.parametrize("length", [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cache_changes_nothing_within_and_past_the_block(
    kind: str, preset: str, length: int, temperature: float
) -> None:
    model, prompts = build(kind, preset), prompts_of(3, length)
    cached = run(model, prompts, 3 * BLOCK, temperature=temperature)
    assert torch.equal(cached, run(model, prompts, 3 * BLOCK, temperature=temperature, use_cache=False))
    assert len(set(cached.flatten().tolist())) > 1


def test_past_the_block_the_context_is_its_newer_half() -> None:
    model = build()
    new = run(model, prompts_of(1, BLOCK), 2, temperature=0.0)[0]
    context = torch.cat((prompts_of(1, BLOCK)[0], new[:1]))[-(BLOCK // 2) :]
    with torch.no_grad():
        assert model(context[None])[0, -1].argmax() == new[1]


def test_a_model_of_block_size_1_sees_one_token() -> None:
    model = Script({0: 1, 1: 2, 2: 0}, 3, block_size=1)
    assert run(model, torch.tensor([[0], [1]]), 4, temperature=0.0).tolist() == [[1, 2, 0, 1], [2, 0, 1, 2]]
    assert model.longest == 1


def test_greedy_is_the_likeliest_token_of_each_step() -> None:
    model, prompts = build(), prompts_of(2, 3)
    new = run(model, prompts, BLOCK - 3, temperature=0.0)
    with torch.no_grad():
        logits = model(torch.cat((prompts, new), dim=1)[:, :-1])
    assert torch.equal(logits[:, 2:].argmax(-1), new)


def test_a_seed_repeats_and_a_row_does_not_see_its_neighbours() -> None:
    model, prompts = build(), prompts_of(1, 4).expand(4, 4)
    together = run(model, prompts, 20, seeds=[3, 4, 5, 3])
    assert torch.equal(together[0], together[3])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together, run(model, prompts, 20, seeds=[3, 4, 5, 3]))
    for row, seed in enumerate([3, 4, 5, 3]):
        assert torch.equal(run(model, prompts[:1], 20, seeds=[seed])[0], together[row])


def test_training_mode_comes_back() -> None:
    model = build(dropout=0.5)
    for mode in (True, False):
        model.train(mode)
        steps = generate(model, prompts_of(1, 2), max_new_tokens=5, temperature=0.0)
        next(steps)
        assert not model.training
        assert not torch.is_inference_mode_enabled()
        steps.close()
        assert model.training is mode
    assert list(generate(model, prompts_of(1, 2), max_new_tokens=0)) == []


# Samplers, by arithmetic


def test_draw_picks_from_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    draws = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 0.999])
    assert choose(logits.expand(6, 3), draws).tolist() == [0, 0, 1, 1, 2, 2]


def test_temperature_sharpens() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    # at temperature 1/2 the probabilities are those of the squares: 25, 9 and 4 of 38
    assert choose(logits, torch.tensor([25 / 38 - 0.01]), temperature=0.5).item() == 0
    assert choose(logits, torch.tensor([25 / 38 + 0.01]), temperature=0.5).item() == 1
    assert choose(logits, torch.tensor([0.999]), temperature=0.0).item() == 0


def test_top_k_draws_from_k_tokens() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    draws = torch.tensor([0.0, 0.56, 0.58, 0.999])  # 4 and 3 of 7
    assert choose(logits.expand(4, 4), draws, top_k=2).tolist() == [1, 1, 3, 3]
    assert choose(logits.expand(4, 4), draws, top_k=9).tolist() == choose(logits.expand(4, 4), draws).tolist()


def test_top_p_draws_from_the_fewest_tokens_that_reach_p() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().double()
    draws = torch.tensor([0.0, 0.56, 0.58, 0.999])
    assert choose(logits.expand(4, 4), draws, top_p=0.7).tolist() == [1, 1, 3, 3]  # 0.4 + 0.3 reach 0.7
    assert choose(logits.expand(4, 4), draws, top_p=0.71).tolist() == [1, 3, 3, 2]  # 4, 3, 2 of 9
    assert choose(logits.expand(4, 4), draws, top_p=0.01).tolist() == [1, 1, 1, 1]


def test_top_p_counts_what_top_k_left() -> None:
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log().double()
    # of the two that top_k leaves, the first has 4/7 = 0.571 of the probability
    assert choose(logits, torch.tensor([0.999]), top_k=2, top_p=0.57).item() == 1
    assert choose(logits, torch.tensor([0.999]), top_k=2, top_p=0.58).item() == 3


@given(
    logits=st.lists(st.floats(-50, 50, width=32) | st.just(-float("inf")), min_size=1, max_size=9),
    finite=st.floats(-50, 50, width=32),
    draw=st.floats(0, 1, exclude_max=True, width=32),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.01, 1.0),
)
@settings(max_examples=200)
def test_only_allowed_tokens_are_drawn(
    logits: list[float], finite: float, draw: float, temperature: float, top_k: int, top_p: float
) -> None:
    row = torch.tensor([[*logits, finite]])
    chosen = choose(row, torch.tensor([draw]), temperature=temperature, top_k=top_k, top_p=top_p).item()
    p = (row[0].double() / temperature).softmax(-1).numpy()
    better = p > p[chosen] * (1 + 1e-6)
    assert p[chosen] > 0
    assert not top_k or better.sum() < top_k
    within = p if not 0 < top_k < len(p) else np.sort(p)[::-1][:top_k]
    assert better.sum() == 0 or p[better].sum() / within.sum() < top_p + 1e-6


def test_frequencies_follow_the_distribution() -> None:
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    draws = uniform_draws([7], 20_000, torch.device("cpu"))[:, 0]
    counts = choose(p.log().expand(20_000, 4), draws).bincount(minlength=4) / 20_000
    torch.testing.assert_close(counts, p, rtol=0, atol=0.015)


# Texts and where they end


def chain(text: str, encoder: CharEncoder, **keys: Any) -> Script:
    ids = encoder.encode(text)
    return Script({int(a): int(b) for a, b in itertools.pairwise(ids)}, encoder.vocab_size, **keys)


def test_completion_ends_with_the_stop_text() -> None:
    encoder = CharEncoder(list("abcdef\n"))
    model = chain("abcdef\na", encoder)
    assert complete(model, encoder, ["a", "d", "ab"], max_new_tokens=20, temperature=0.0, stop="\n") == [
        "bcdef\n",
        "ef\n",
        "cdef\n",
    ]
    assert complete(model, encoder, ["a"], max_new_tokens=20, temperature=0.0, stop="ef") == ["bcdef"]
    assert complete(model, encoder, ["a"], max_new_tokens=3, temperature=0.0, stop="\n") == ["bcd"]
    assert complete(model, encoder, ["ab"], max_new_tokens=9, temperature=0.0) == ["cdef\nabcd"]
    assert complete(model, encoder, [], max_new_tokens=9) == []


def test_stop_text_of_the_prompt_does_not_count() -> None:
    encoder = CharEncoder(list("abc"))
    assert complete(chain("abca", encoder), encoder, ["bc"], max_new_tokens=5, temperature=0.0, stop="ca") == ["abca"]


def test_end_token_ends_without_text() -> None:
    encoder = CharEncoder(list("abc"), end_token=True)
    model = Script({0: 1, 1: encoder.end_token, encoder.end_token: 0}, encoder.vocab_size)
    assert complete(model, encoder, ["a", "b"], max_new_tokens=9, temperature=0.0) == ["b", ""]
    assert complete(model, encoder, [""], max_new_tokens=9, temperature=0.0) == ["ab"]


def test_empty_prompt_without_an_end_token() -> None:
    encoder = CharEncoder(list("ab"))
    with pytest.raises(UserError, match="the prompt is empty, so there is nothing to continue") as caught:
        complete(chain("ab", encoder), encoder, ["a", ""], max_new_tokens=1)
    assert (caught.value.place, caught.value.remedy) == ("start", 'Give some text, such as `start="\\n"`.')


def test_unknown_character_of_a_prompt_is_named() -> None:
    encoder = CharEncoder(list("ab"))
    with pytest.raises(UserError, match="'x'"):
        complete(chain("ab", encoder), encoder, ["ax"], max_new_tokens=1)


def test_prompts_of_one_length_share_a_batch_and_seeds_follow_the_prompt() -> None:
    encoder = CharEncoder(list("abcdefg"))
    model = build(vocab_size=7)
    prompts = ["abc", "g", "def", "abc", "a"]
    options: dict[str, Any] = {"max_new_tokens": 15, "seed": 10}
    together = complete(model, encoder, prompts, **options)
    assert together == complete(model, encoder, prompts, batch_size=1, **options)
    assert together == complete(model, encoder, prompts, use_cache=False, **options)
    assert together[0] != together[3]
    assert together[:1] == complete(model, encoder, prompts[:1], **options)
    assert together != complete(model, encoder, prompts, max_new_tokens=15, seed=11)


def test_a_space_between_words_belongs_to_the_completion() -> None:
    encoder = WordsEncoder(["\n", "1", "2", "3"])
    model = Script({1: 2, 2: 3, 3: 0, 0: 1}, encoder.vocab_size)
    assert complete(model, encoder, ["1"], max_new_tokens=9, temperature=0.0, stop="\n") == [" 2 3\n"]
    assert complete(model, encoder, ["1"], max_new_tokens=9, temperature=0.0, stop=" 3") == [" 2 3"]


def test_characters_of_several_tokens_are_shown_whole() -> None:
    encoder = BytesEncoder.fit([], vocab_size=0)
    ids = [int(token) for token in encoder.encode("aé€😀b")]
    model, pieces = Script(dict(itertools.pairwise(ids)), encoder.vocab_size, block_size=64), []
    assert complete(model, encoder, ["a"], max_new_tokens=20, temperature=0.0, stop="b", show=pieces.append) == [
        "é€😀b"
    ]
    assert pieces == ["é", "€", "😀", "b"]
    assert complete(model, encoder, ["a"], max_new_tokens=5, temperature=0.0, stop="€") == ["é€"]


def test_the_first_prompt_is_shown_as_it_is_written() -> None:
    encoder = CharEncoder(list("abcdef"))
    pieces: list[str] = []
    texts = complete(
        chain("abcdefa", encoder), encoder, ["a", "f"], max_new_tokens=3, temperature=0.0, show=pieces.append
    )
    assert texts == ["bcd", "abc"]
    assert pieces == ["b", "c", "d"]
