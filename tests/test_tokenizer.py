"""The command tokenizer, and where bpe cuts text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import write

from core.encoders.bpe import BpeEncoder
from core.encoders.bytelevel import PATTERNS
from core.encoders.special import WithSpecialTokens, rebuilt
from core.errors import UserError
from core.lab.tokenizer import CATEGORIES, TEXTS

Terrarium = Callable[..., Result]
LEARNT = ["It's 12345 o'clock in 1999, naïve café 한국어 3+4=7.  \n\n\tdef f(x):\n  return x\r\n" * 30]
ODD = ["a*", r"\w+", ".", "x", r"[^\n]+", r"(?<=a)b", "한"]
STORIES = """def documents(rng):
    while True:
        yield " ".join(rng.choices(["moss", "fern", "It is 1234.", "naïve"], k=9))
"""
BPE = TINY.replace("[prepare]\n", '[prepare]\nencoder = "bpe"\nvocab_size = 300\n')


@pytest.mark.parametrize("pattern", [*PATTERNS, *ODD])
@pytest.mark.parametrize("chat", [False, True])
def test_text_comes_back_whatever_the_pattern(pattern: str, chat: bool) -> None:
    encoder = BpeEncoder.fit(LEARNT, vocab_size=400, split_pattern=pattern)
    whole = WithSpecialTokens(encoder, ["<|bos|>", "<|end|>"]) if chat else encoder

    @settings(max_examples=60)
    @given(st.one_of(st.text(), st.text("ab 1\n<|end|>한'")))
    def check(text: str) -> None:
        if not any("\ud800" <= letter <= "\udfff" for letter in text):
            ids = whole.encode(text)
            assert whole.decode(ids.tolist()) == text
            assert (ids < encoder.vocab_size).all()
            assert ids.tolist() == whole.encode_batch(["x", text])[1].tolist()

    check()
    again = rebuilt(BpeEncoder, whole.state())
    assert again.encode(LEARNT[0]).tolist() == whole.encode(LEARNT[0]).tolist()


def test_gpt2s_pattern_is_the_fast_path_and_stands_in_no_state() -> None:
    encoder = BpeEncoder.fit(LEARNT, vocab_size=400)
    assert set(encoder.state()) == {"merges"}
    assert BpeEncoder.fit(LEARNT, vocab_size=400, split_pattern=PATTERNS["gpt2"]).merges == encoder.merges
    slow = BpeEncoder(encoder.merges, PATTERNS["gpt2"])
    text = LEARNT[0] + "".join((TEXTS / f"{name}.txt").read_text(encoding="utf-8") for name in CATEGORIES)
    assert slow.encode(text).tolist() == encoder.encode(text).tolist()


@pytest.mark.parametrize(("pattern", "longest"), [("gpt2", 5), ("gpt4", 3), ("digits", 1)])
def test_how_numbers_are_cut(pattern: str, longest: int) -> None:
    encoder = BpeEncoder.fit(["12345 " * 50], vocab_size=400, split_pattern=pattern)
    pieces = [encoder.decode([token]).strip() for token in encoder.encode("12345").tolist()]
    assert max(map(len, pieces)) == longest and "".join(pieces) == "12345"


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(
        UserError, match=r"prepare.split_pattern: '\(' is no regular expression.*\n.*a name: gpt2, gpt4, digits"
    ):
        BpeEncoder.fit(LEARNT, vocab_size=400, split_pattern="(")


def test_a_pattern_that_gives_up_on_a_text() -> None:
    endless, text = "(?:a|aa|aaa)+b", "a" * 40 + "c"
    message = r"prepare.split_pattern: '\(\?:a\|aa\|aaa\)\+b' cannot cut this text: .*\n  Write a pattern that has less to try"
    encoder = BpeEncoder.fit(["ab " * 50], vocab_size=300, split_pattern=endless)
    with pytest.raises(UserError, match=message):
        encoder.encode(text)
    with pytest.raises(UserError, match=message):
        BpeEncoder.fit([text], vocab_size=300, split_pattern=endless)
    assert encoder.decode(encoder.encode("aab").tolist()) == "aab"


def test_the_key(lab: Path, terrarium: Terrarium) -> None:
    folder = write(lab / "stories", STORIES, BPE)
    assert terrarium("prepare", "stories").exit_code == 0
    before = json.loads((folder / "datasets/basic/dataset.json").read_text())
    assert terrarium("prepare", "stories", "-s", "prepare.split_pattern=gpt2").stdout.count("up to date") == 1
    assert terrarium("prepare", "stories", "-s", "prepare.split_pattern=digits").exit_code == 0
    after = json.loads((folder / "datasets/basic/dataset.json").read_text())
    assert after["encoder"]["split_pattern"] == "digits" and "split_pattern" not in before["encoder"]
    wrong = terrarium("prepare", "stories", "-s", "prepare.split_pattern=(")
    assert wrong.exit_code == 2 and "is no regular expression" in wrong.stderr
    other = terrarium("prepare", "stories", "-s", "prepare.split_pattern=digits", "-s", "prepare.encoder=char")
    assert other.exit_code == 2 and "the encoder char does not cut text by a pattern" in other.stderr
    write(lab / "others", STORIES, BPE)
    borrowed = ("prepare", "others", "-s", "prepare.encoder_from=../stories/datasets/basic", "-s")
    assert terrarium(*borrowed, "prepare.split_pattern=digits").exit_code == 0
    differs = terrarium(*borrowed, "prepare.split_pattern=gpt4")
    assert differs.exit_code == 2
    assert "the encoder of ../stories/datasets/basic cuts text by 'digits', not by 'gpt4'" in differs.stderr
    assert "Leave split_pattern out, or set it where that dataset is made." in differs.stderr


def test_a_table_of_encoders(lab: Path, terrarium: Terrarium) -> None:
    folder = write(lab / "stories", STORIES, BPE)
    write(lab / "letters", STORIES, TINY)
    assert terrarium("prepare", "letters").exit_code == 0
    dataset = str(folder / "datasets" / "basic")
    assert terrarium("prepare", "stories").exit_code == 0
    arguments = ("tokenizer", "stories", "--against", "bytes", "--against", "letters", "--against", dataset)
    done = terrarium(*arguments)
    assert done.exit_code == 0, done.output
    for text in (
        "bytes per token",
        "tokens per word",
        "never used",
        "text comes back",
        "speed, MB/s",
        "*: the best of a row.",
    ):
        assert text in done.stdout
    assert "letters cannot encode korean: character '시' at line 1" in done.stdout
    table = done.stdout.split("speed, MB/s")[0].splitlines()
    assert max(map(len, table[-18:])) <= 80
    assert f"#4: {dataset}" in done.stdout
    marked = {line.split("  ")[0]: line.count("*") for line in done.stdout.splitlines()}
    assert marked["never used"] == marked["speed, MB/s"] == 1
    found = json.loads(terrarium(*arguments, "--json").stdout)["encoders"]
    assert [each["name"] for each in found] == ["stories", "bytes", "letters", dataset]
    own, raw, letters, same = found
    assert raw["bytes_per_token"] == pytest.approx(dict.fromkeys([*CATEGORIES, "train", "val"], 1.0))
    assert own["bytes_per_token"]["train"] > own["bytes_per_token"]["korean"] > 0
    assert 0 < own["unused"] < 1 and raw["unused"] is None and own["megabytes_per_second"] > 0
    assert letters["cannot"].keys() >= {"news", "korean"} and letters["bytes_per_token"]["train"] > 1
    assert same["bytes_per_token"] == own["bytes_per_token"] and all(each["exact"] for each in found)
    assert own["tokens_per_word"]["val"] > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "letrs",
            "'letrs' is neither a folder, nor a tokenizer's file, nor an experiment, nor one of bytes, gpt2\n  Did you mean 'letters'?",
        ),
        ("letters", "letters has no dataset yet, and so no encoder\n  Prepare it first: "),
        ("empty", "there is no dataset here"),
    ],
)
def test_what_is_refused(lab: Path, terrarium: Terrarium, name: str, message: str) -> None:
    write(lab / "stories", STORIES, BPE)
    write(lab / "letters", STORIES, TINY)
    Path("empty").mkdir()
    done = terrarium("tokenizer", "stories", "--against", name)
    assert done.exit_code == 2 and message in done.stderr


def test_a_damaged_encoder_is_refused(lab: Path, terrarium: Terrarium) -> None:
    folder = write(lab / "stories", STORIES, BPE)
    write(lab / "letters", STORIES, TINY)
    assert terrarium("prepare", "stories").exit_code == 0
    info = folder / "datasets/basic/dataset.json"
    info.write_text(info.read_text().replace('"merges"', '"merge"'))
    done = terrarium("tokenizer", "letters", "--against", str(info.parent))
    assert done.exit_code == 2 and "dataset.json: damaged: its checksum" in done.stderr, done.stderr
    assert "Prepare it again with --force." in done.stderr


@pytest.mark.parametrize("name", CATEGORIES)
def test_texts_are_of_similar_size(name: str) -> None:
    assert 1000 <= len((TEXTS / f"{name}.txt").read_bytes()) <= 2048
