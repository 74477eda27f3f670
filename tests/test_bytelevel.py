"""Byte-level BPE: the shortcuts around the tokenizers library change no id, and memory stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.encoders import bpe, bytelevel
from core.encoders.bpe import BpeEncoder, sample, short_runs
from core.encoders.bytelevel import ByteLevel, alphabet, alphabet_bytes, groups

TEXT = "The cat's on the mat; they'll say: it's 12, or 345! Café 東京 naïve.\n\n  def f(x_1):\n\treturn 'x'  \r\n"
MERGES = [tuple(merge.split(" ")) for merge in BpeEncoder.fit([TEXT * 4], vocab_size=400).merges]
# Characters at which GPT-2's pattern and its stand-in here might differ: each class, in ASCII and beyond it.
TRICKY = "ab'stledrvmZ09 .,_-!~`\n\t\r\x00\x1c\x1f\x7f\x85\xa0\u1680\u180e\u200b\u2003\u2028\u3000éßя漢٣²Ⅷ½\u2019\u0301\U0001f994\U0001d7d8"


def by_the_library(coder: ByteLevel, text: str) -> list[int]:
    ids: list[int] = coder.tokenizer.encode(text).ids
    return ids


@settings(max_examples=1000)
@given(text=st.text(TRICKY, max_size=30) | st.text(max_size=30))
@example(text=" '''s's 'll'LL don't é's's.'s 's")
@example(text="a  b   \n  c\u3000\n\nd \u3000e")
def test_ids_are_those_of_the_library(text: str) -> None:
    coder = ByteLevel(MERGES)
    assert coder.encode(text).tolist() == by_the_library(coder, text)


def test_a_long_text_is_encoded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytelevel, "GROUP", 50)
    coder = ByteLevel(MERGES)
    expected = by_the_library(coder, TEXT * 20)
    assert coder.encode(TEXT * 20).tolist() == expected
    batch = coder.encode_batch([TEXT * 20, "a", "", TEXT])
    assert [ids.tolist() for ids in batch] == [by_the_library(coder, text) for text in (TEXT * 20, "a", "", TEXT)]


def test_pieces_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytelevel, "CACHE", 100)
    coder = ByteLevel(MERGES)
    most = 0
    for number in range(200):
        text = f"word{number} {number}" * 5  # often enough to be remembered
        assert coder.encode(text).tolist() == by_the_library(coder, text)
        most = max(most, sum(map(len, coder.known)))
    assert 100 < most <= 100 + len(text)


@settings(max_examples=200)
@given(text=st.text(TRICKY, max_size=30), repeat=st.booleans())
def test_ids_are_the_same_whether_pieces_are_remembered_or_not(text: str, repeat: bool) -> None:
    coder = ByteLevel(MERGES)
    first = coder.encode(text * (4 if repeat else 1)).tolist()
    assert (
        coder.encode(text * (4 if repeat else 1)).tolist()
        == first
        == by_the_library(coder, text * (4 if repeat else 1))
    )
    coder.learn(set(bytelevel.PIECE.findall(text)).difference(coder.known))
    assert coder.encode(text).tolist() == by_the_library(coder, text)


def test_alphabet_is_that_of_gpt2() -> None:
    letters = alphabet()
    assert len(set(letters)) == 256
    assert letters[:3] == ["!", '"', "#"]
    assert letters[188:190] == ["Ā", "ā"]
    assert alphabet_bytes()["Ġ"] == ord(" ")
    assert alphabet_bytes()["Ċ"] == ord("\n")
    assert sorted(alphabet_bytes().values()) == list(range(256))


def test_two_merges_of_one_spelling_share_an_id() -> None:
    coder = ByteLevel([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")])
    assert coder.end_token == 259
    assert coder.encode("abc").tolist() == [258]


def test_groups_hold_at_most_so_many_characters() -> None:
    assert list(groups(["aaa", "bb", "c", "dddddddd", "", "e"], 5)) == [["aaa", "bb"], ["c"], ["dddddddd"], ["", "e"]]
    assert list(groups([], 5)) == []


def test_all_of_a_short_text_is_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "CHUNK", 8)
    assert "".join(sample(["one two three", " four", "", " five six"], 1000)) == "one two three four five six"


def test_a_long_text_is_learnt_from_in_chunks_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "CHUNK", 4)
    kept = sample((f"{number:05}" for number in range(10_000)), 1000)
    numbers = [int(chunk) for chunk in kept]
    assert 500 <= sum(map(len, kept)) <= 1000
    assert numbers[0] == 0
    assert {after - before for before, after in pairwise(numbers)} == {64}
    assert numbers[-1] > 9900
    assert sample(["12345"], 3) == ["12345"]


def test_a_long_text_without_whitespace_is_learnt_from_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "CHUNK", 100)
    kept = sample(["x" * 100_000], 10_000)
    assert {len(chunk) for chunk in kept} == {200}
    assert 5_000 <= sum(map(len, kept)) <= 10_000


def test_runs_without_whitespace_are_learnt_from_in_short_ones() -> None:
    text = f"some words \n\n{'acgt' * 40} {'x' * 64}\u3000end  "
    runs = list(short_runs(["plain text, as it is", text]))
    assert runs[0] == "plain text, as it is"
    assert "".join(runs[1:]) == text
    assert max(len(run.strip()) for run in runs) == 64
    assert BpeEncoder.fit(["acgt" * 50_000], vocab_size=300).vocab_size == 257 + 7  # ac, gt, acgt, ... to 64 letters


@pytest.mark.parametrize("owned", [True, False])
def test_a_forked_process_encodes(owned: bool) -> None:
    """tokenizers warns of forks after its threads have run, and a child that waited for them would hang. In a process of
    our own there is no warning; in the user's its variables stay as they were."""
    script = f"""
import contextlib, os
from core import process
from core.encoders.bpe import BpeEncoder
with process.owned() if {owned} else contextlib.nullcontext():
    encoder = BpeEncoder.fit(["the cat and the hat " * 50], vocab_size=270)
    before = encoder.encode_batch([f"new{{n}} cat" for n in range(50)])
    child = os.fork()
    if child == 0:
        texts = [f"other{{n}} hat" for n in range(50)]
        assert [encoder.decode(ids) for ids in encoder.encode_batch(texts)] == texts
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
assert os.environ.get("TOKENIZERS_PARALLELISM") == ("true" if {owned} else None)
"""
    unset = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=unset,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert not (owned and done.stderr), done.stderr
