"""The split: nothing is lost, nothing leaks, and it is the same every time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.data.split import by_hash, by_shuffle, by_tail, key_of, overlap, tail_cut

fractions = st.floats(0.01, 0.99)
prompts = st.lists(st.text(max_size=3), min_size=1, max_size=60)


def keys_of(texts: list[str], seed: int = 0) -> np.ndarray:
    return np.array([key_of(text, seed) for text in texts], dtype=np.uint64)


@given(prompts, fractions, st.integers(-5, 2**40))
def test_hash_sends_every_copy_of_a_prompt_to_one_side(texts: list[str], fraction: float, seed: int) -> None:
    keys = keys_of(texts, seed)
    train, val = by_hash(keys, fraction)
    assert sorted([*train, *val]) == list(range(len(texts)))
    assert not {texts[i] for i in train} & {texts[i] for i in val}
    assert overlap(keys[train], keys[val]) == 0
    if len(set(texts)) > 1:
        assert len(train)
        assert len(val)
    else:
        assert not len(val)


@given(prompts, prompts, fractions)
def test_more_documents_move_no_prompt_to_the_other_side(texts: list[str], more: list[str], fraction: float) -> None:
    train, val = by_hash(keys_of(texts), fraction)
    later_train, later_val = by_hash(keys_of(texts + more), fraction)
    limit = int(fraction * 2.0**64)
    ordinary = any(key < limit for key in keys_of(texts).tolist()) and any(
        key >= limit for key in keys_of(texts).tolist()
    )
    if ordinary:
        assert set(train) <= set(later_train)
        assert set(val) <= set(later_val)


def test_hash_holds_out_the_fraction_asked_for() -> None:
    _, val = by_hash(keys_of([str(number) for number in range(20_000)]), 0.1)
    assert abs(len(val) / 20_000 - 0.1) < 0.01


def test_keys_are_the_same_on_every_machine() -> None:
    assert key_of("ab: ", 1337) == 0x5BF793EA4928B448
    assert key_of("ab: ", 1337) != key_of("ab: ", 1338)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), fractions)
def test_tail_holds_out_the_end(lengths: list[int], fraction: float) -> None:
    sizes = np.array(lengths)
    train, val = by_tail(sizes, fraction)
    assert [*train, *val] == list(range(len(lengths)))
    assert len(train)
    assert len(val)
    cut = tail_cut(sum(lengths), fraction)
    if len(train) > 1 and len(val) > 1:
        assert sizes[train].sum() <= cut < sizes[train].sum() + lengths[val[0]]


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), fractions, st.integers(0, 100))
def test_shuffle_is_a_permutation_that_the_seed_determines(lengths: list[int], fraction: float, seed: int) -> None:
    sides = by_shuffle(np.array(lengths), fraction, seed)
    again = by_shuffle(np.array(lengths), fraction, seed)
    assert [side.tolist() for side in sides] == [side.tolist() for side in again]
    assert sorted(np.concatenate(sides)) == list(range(len(lengths)))


def test_overlap_counts_different_prompts() -> None:
    assert overlap(keys_of(["a", "b", "c"]), keys_of(["b", "b", "c", "d"])) == 2
