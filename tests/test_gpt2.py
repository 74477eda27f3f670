"""gpt2: the ids of tiktoken from a file of merges, and a way out where the file cannot be had."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from core.encoders import gpt2
from core.encoders.gpt2 import SHA256, URL, Gpt2Encoder, vocabulary
from core.errors import UserError

VOCABULARY = "#version: 0.2\nĠ t\nĠ a\nh e\nĠt he\nĊ Ċ\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""

    def refuse(url: str, target: Path, sha256: str, what: str) -> None:
        raise UserError(f"{what} could not be downloaded: no network", place=url, remedy=f"Put it at {target}.")

    monkeypatch.setattr(gpt2, "download", refuse)
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def merges(tmp_path: Path) -> Path:
    """A file of five merges."""
    path = tmp_path / "vocab.bpe"
    path.write_text(VOCABULARY, encoding="utf-8")
    return path


def test_ids_are_bytes_in_gpt2s_order_then_merges_then_the_end(merges: Path) -> None:
    encoder = Gpt2Encoder.from_file(merges)
    assert (encoder.vocab_size, encoder.end_token) == (262, 261)
    # tiktoken's own ids: "!" 0, "A" 32, line break 198, space 220; from 256 on the merges in their order
    assert encoder.encode("!A \n the he a\n\n").tolist() == [0, 32, 220, 198, 259, 220, 258, 257, 260]
    assert encoder.encode("<|endoftext|>").tolist()[0] == 27
    assert encoder.decode([259, 261, 257]) == " the a"


def test_the_file_is_looked_for_in_the_cache_then_in_tiktokens(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpt2, "SHA256", hashlib.sha256(b"").hexdigest())
    theirs = tmp_path / "tiktoken" / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"  # as tiktoken names it
    theirs.parent.mkdir()
    theirs.touch()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(theirs.parent))
    assert vocabulary() == theirs
    ours = cache / "gpt2" / "vocab.bpe"
    ours.parent.mkdir(parents=True)
    ours.touch()
    assert vocabulary() == ours


def test_the_file_must_be_gpt2s(cache: Path) -> None:
    path = cache / "gpt2" / "vocab.bpe"
    path.parent.mkdir(parents=True)
    path.write_text(VOCABULARY, encoding="utf-8")
    with pytest.raises(UserError) as error:
        vocabulary()
    found = hashlib.sha256(VOCABULARY.encode()).hexdigest()
    assert str(error.value) == (
        f"{path}: this is not GPT-2's vocab.bpe: its SHA-256 is {found}, not {SHA256}"
        "\n  Delete it: it will be downloaded again."
    )


def test_the_file_is_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(url: str, target: Path, sha256: str, what: str) -> None:
        asked.append((url, sha256, what))
        target.parent.mkdir(parents=True)
        target.touch()

    checksum = hashlib.sha256(b"").hexdigest()
    monkeypatch.setattr(gpt2, "SHA256", checksum)
    monkeypatch.setattr(gpt2, "download", fetch)
    assert vocabulary() == vocabulary() == cache / "gpt2" / "vocab.bpe"
    assert asked == [(URL, checksum, "GPT-2's vocabulary")]


@pytest.mark.parametrize("build", [lambda: Gpt2Encoder.fit([]), lambda: Gpt2Encoder.from_state({}).encode("a")])
def test_without_the_file_the_message_says_what_to_do(cache: Path, build: Callable[[], object]) -> None:
    with pytest.raises(UserError) as error:
        build()
    assert str(error.value) == (
        f"{URL}: GPT-2's vocabulary could not be downloaded: no network\n  Put it at {cache}/gpt2/vocab.bpe."
        ' Or learn a vocabulary from your own text: encoder = "bpe".'
    )


def test_a_state_needs_nothing_but_the_file(merges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt2, "vocabulary", lambda: merges)
    encoder = Gpt2Encoder.fit(["not read"])
    assert encoder.state() == {}
    assert Gpt2Encoder.from_state(encoder.state()).encode(" the").tolist() == encoder.encode(" the").tolist() == [259]
