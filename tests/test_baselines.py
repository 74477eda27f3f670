"""Baselines: tables of n-grams give probabilities, and those that can be worked out by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Data
from core.data.dataset import Split
from core.evaluation import baselines as module
from core.evaluation.baselines import NGramModel, baselines
from core.evaluation.facts import targets_of

VOCABULARY = 4
texts = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60)


def array(ids: list[int]) -> np.ndarray:
    return np.array(ids, np.uint16)


def every_target(ids: np.ndarray) -> np.ndarray:
    return np.arange(len(ids)) > 0


@given(texts, st.lists(st.booleans(), min_size=60, max_size=60), st.integers(1, 4))
def test_probabilities_sum_to_one(train: list[int], chosen: list[bool], length: int) -> None:
    targets = np.array(chosen[: len(train)])
    ngrams = NGramModel(array(train), targets, VOCABULARY, 4)
    for context in itertools.product(range(VOCABULARY), repeat=length - 1):
        follows = [ngrams.probabilities(array([*context, last]), length)[length - 1] for last in range(VOCABULARY)]
        assert sum(follows) == pytest.approx(1)
        assert min(follows) > 0


def test_a_bigram_by_hand() -> None:
    """a b a b a c: pairs ab 2, ba 2, ac 1. One pair stands once, two stand twice: a discount of 1 / (1 + 2 * 2)."""
    ngrams = NGramModel(array([0, 1, 0, 1, 0, 2]), None, 3, 2)
    discount = 1 / 5
    # Before a, b and c stand 1 different id each, and none of three stands twice: a discount of 1, so a third for each.
    third = 1 / 3
    of_a = [
        2 * discount / 3 * third,
        (2 - discount) / 3 + 2 * discount / 3 * third,
        (1 - discount) / 3 + 2 * discount / 3 * third,
    ]
    for last, wanted in enumerate(of_a):
        assert ngrams.probabilities(array([0, last]), 2)[1] == pytest.approx(wanted)
    assert ngrams.probabilities(array([1, 0]), 2)[1] == pytest.approx((2 - discount) / 2 + discount / 2 * third)
    assert ngrams.probabilities(array([2, 0]), 2)[1] == pytest.approx(third)  # nothing ever followed c


def test_a_unigram_by_hand() -> None:
    """a 3, b 2, c 1, and d never: a discount of 1 / (1 + 2)."""
    ngrams = NGramModel(array([0, 1, 0, 1, 0, 2]), None, 4, 1)
    left = 3 * (1 / 3) / 6 / 4
    wanted = [(3 - 1 / 3) / 6 + left, (2 - 1 / 3) / 6 + left, (1 - 1 / 3) / 6 + left, left]
    assert ngrams.probabilities(array([0, 1, 2, 3]), 1) == pytest.approx(wanted)


def test_what_is_certain_costs_nothing_and_what_is_random_costs_its_entropy() -> None:
    random = np.random.default_rng(0).integers(0, 4, 60_000)
    losses = baselines(random[:50_000], random[50_000:], None, every_target(random[50_000:]), 4)
    assert losses["uniform"] == math.log(4)
    for name in ("unigram", "bigram", "trigram"):
        assert losses[name] == pytest.approx(math.log(4), abs=0.01)
    regular = array([0, 1, 2, 3] * 500)
    assert baselines(regular, regular, None, every_target(regular), 4)["bigram"] < 0.01


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(1).integers(0, 5, 3_000)
    targets = every_target(ids)
    whole = baselines(ids[:2_000], ids[2_000:], None, targets[:1_000], 5)
    monkeypatch.setattr(module, "BLOCK", 7)
    in_blocks = baselines(ids[:2_000], ids[2_000:], None, targets[:1_000], 5)
    assert in_blocks == pytest.approx(whole)


def test_a_large_vocabulary_has_no_long_ngrams() -> None:
    ids = np.arange(1_000) % 50_000
    assert list(baselines(ids, ids, None, every_target(ids), 50_257)) == ["uniform", "unigram", "bigram", "trigram"]
    assert list(baselines(ids, ids, None, every_target(ids), 2**22)) == ["uniform", "unigram", "bigram"]
    with pytest.raises(ValueError, match="3-grams over 4,194,304 ids"):
        NGramModel(ids, None, 2**22, 3)


def test_no_target_is_no_number() -> None:
    ids = array([0, 1, 2])
    assert math.isnan(NGramModel(ids, None, 3, 1).loss(ids, np.zeros(3, bool), 1))


def test_targets_are_those_of_validation() -> None:
    """Two documents, `ab` and `abc`, of which b and bc are answers."""
    mask = np.array([0, 1, 0, 1, 1], np.uint8)
    split = Split(Path("val.bin"), array([0, 1, 0, 1, 2]), mask, np.array([0, 2], np.uint64))

    def targets(layout: str, masked: bool, at_most: int = 9) -> list[int]:
        data = Data.model_validate({"block_size": 4, "layout": layout, "mask_prompt": masked})
        return np.flatnonzero(targets_of(split, data, at_most)).tolist()

    assert targets("rows", True) == [1, 3, 4]
    assert targets("rows", False) == [1, 3, 4]
    assert targets("stream", False) == [1, 2, 3, 4]
    assert targets("stream", False, 3) == [1, 2]
