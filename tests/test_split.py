"""The split: nothing is lost, nothing leaks, and it is the same every time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.data.split import Sides, by_hash, by_shuffle, by_tail, key_of, overlap, tail_cut

fractions = st.floats(0.01, 0.99)
prompts = st.lists(st.text(max_size=3), min_size=1, max_size=60)


def keys_of(texts: list[str], seed: int = 0) -> np.ndarray:
    return np.array([key_of(text, seed) for text in texts], dtype=np.uint64)


def pair(sides: Sides) -> tuple[np.ndarray, np.ndarray]:
    assert list(sides) == ["train", "val"]
    return sides["train"], sides["val"]


@given(prompts, fractions, st.sampled_from([0.0, 0.1, 0.5]), st.integers(-5, 2**40))
def test_hash_sends_every_copy_of_a_prompt_to_one_side(
    texts: list[str], fraction: float, test_fraction: float, seed: int
) -> None:
    keys = keys_of(texts, seed)
    sides = by_hash(keys, fraction, test_fraction)
    assert sorted(np.concatenate(list(sides.values()))) == list(range(len(texts)))
    prompts_of = {side: {texts[i] for i in numbers} for side, numbers in sides.items()}
    assert sum(map(len, prompts_of.values())) == len(set(texts))
    assert overlap(keys[sides["train"]], keys[sides["val"]]) == 0
    different = len(set(texts))
    assert bool(len(sides["train"])) and bool(len(sides["val"])) == (different > 1)
    left = different - len(prompts_of["val"])  # for training and the test
    assert ("test" in sides) == bool(test_fraction and left > 1)
    assert np.array_equal(sides["val"], by_hash(keys, fraction)["val"])


@given(prompts, prompts, fractions)
def test_more_documents_move_no_prompt_to_the_other_side(texts: list[str], more: list[str], fraction: float) -> None:
    train, val = pair(by_hash(keys_of(texts), fraction))
    later_train, later_val = pair(by_hash(keys_of(texts + more), fraction))
    limit = int(fraction * 2.0**64)
    ordinary = any(key < limit for key in keys_of(texts).tolist()) and any(
        key >= limit for key in keys_of(texts).tolist()
    )
    if ordinary:
        assert set(train) <= set(later_train)
        assert set(val) <= set(later_val)


def test_hash_holds_out_the_fraction_asked_for() -> None:
    sides = by_hash(keys_of([str(number) for number in range(20_000)]), 0.1, 0.2)
    assert abs(len(sides["val"]) / 20_000 - 0.1) < 0.01
    assert abs(len(sides["test"]) / 20_000 - 0.2) < 0.01


def test_keys_are_the_same_on_every_machine() -> None:
    assert key_of("ab: ", 1337) == 0x5BF793EA4928B448
    assert key_of("ab: ", 1337) != key_of("ab: ", 1338)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), fractions)
def test_tail_holds_out_the_end(lengths: list[int], fraction: float) -> None:
    sizes = np.array(lengths)
    train, val = pair(by_tail(sizes, fraction))
    assert [*train, *val] == list(range(len(lengths)))
    assert len(train)
    assert len(val)
    cut = tail_cut(sum(lengths), fraction)
    if len(train) > 1 and len(val) > 1:
        assert sizes[train].sum() <= cut < sizes[train].sum() + lengths[val[0]]


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), st.floats(0.01, 0.5), st.floats(0.01, 0.49))
def test_the_test_side_is_behind_validation(lengths: list[int], fraction: float, test_fraction: float) -> None:
    sides = by_tail(np.array(lengths), fraction, test_fraction)
    assert np.concatenate(list(sides.values())).tolist() == list(range(len(lengths)))
    assert list(sides) == ["train", "val", "test"][: min(len(lengths), 3)] and all(map(len, sides.values()))


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), st.floats(0.01, 0.5), st.integers(0, 100))
def test_shuffle_is_a_permutation_that_the_seed_determines(lengths: list[int], fraction: float, seed: int) -> None:
    sides = by_shuffle(np.array(lengths), fraction, 0.2, seed)
    again = by_shuffle(np.array(lengths), fraction, 0.2, seed)
    assert {side: numbers.tolist() for side, numbers in sides.items()} == {
        side: numbers.tolist() for side, numbers in again.items()
    }
    assert sorted(np.concatenate(list(sides.values()))) == list(range(len(lengths)))


def test_overlap_counts_different_prompts() -> None:
    assert overlap(keys_of(["a", "b", "c"]), keys_of(["b", "b", "c", "d"])) == 2
