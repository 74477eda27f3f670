"""Encoders: any text they take comes back, control tokens never come from text, and what is unknown is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.encoders import register_encoders
from core.encoders.base import Encoder, between, identity
from core.encoders.bpe import BpeEncoder
from core.encoders.bytelevel import alphabet
from core.encoders.bytes import BytesEncoder
from core.encoders.char import CharEncoder
from core.encoders.gpt2 import Gpt2Encoder
from core.encoders.text import END, spans
from core.encoders.words import WordsEncoder
from core.errors import UserError

PROSE = "The cat sat on the mat; it wasn't the cat's mat, 12 + 34 = 46.\n  <|endoftext|> <|end|>\tCafé naïve 東京\r\n"
TEXTS = st.text(max_size=60)  # no lone surrogates: hypothesis makes them only when asked
SPELLED = st.lists(st.sampled_from(["<|endoftext|>", "<|end|>", " ", "\n", "a", "é", "'s", "12"]), max_size=8).map(
    "".join
)
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("e", "r"), ("'", "s"), ("1", "2"), ("Ã", "©"), ("Ġ", "Ġ")]


def any_encoder(kind: str, *texts: str) -> Encoder:
    """An encoder of a kind that knows these texts."""
    if kind == "gpt2":
        return Gpt2Encoder(MERGES)
    encoders: dict[str, Any] = {}
    register_encoders(encoders.__setitem__)
    encoder: Encoder = encoders[kind].fit(texts, vocab_size=300)
    return encoder


BPE = any_encoder("bpe", PROSE * 3)
KINDS = pytest.mark.parametrize("kind", ["char", "words", "bytes", "bpe", "gpt2"])


def knowing(kind: str, *texts: str) -> Encoder:
    """The same, with one `bpe` for all texts: it knows every text, and learning takes a moment."""
    return BPE if kind == "bpe" else any_encoder(kind, *texts)


def test_built_in_kinds_register_under_their_own_names() -> None:
    encoders: dict[str, Any] = {}
    register_encoders(encoders.__setitem__)
    assert list(encoders) == ["char", "words", "bytes", "bpe", "gpt2", "ids", "pieces"]
    assert all(encoder.kind == name for name, encoder in encoders.items())


@KINDS
@settings(max_examples=60)
@given(text=TEXTS | SPELLED)
def test_text_comes_back(kind: str, text: str) -> None:
    encoder = knowing(kind, text)
    ids = encoder.encode(text)
    assert ids.dtype == np.uint32
    assert ids.ndim == 1
    assert encoder.decode(ids.tolist()) == text
    assert encoder.decode(ids) == text
    assert all(token < encoder.vocab_size for token in ids)


@KINDS
@settings(max_examples=30)
@given(texts=st.lists(TEXTS | SPELLED, max_size=6))
def test_a_batch_is_each_text_encoded(kind: str, texts: list[str]) -> None:
    encoder = knowing(kind, *texts)
    batch = encoder.encode_batch(texts)
    assert [ids.tolist() for ids in batch] == [encoder.encode(text).tolist() for text in texts]
    assert all(ids.dtype == np.uint32 for ids in batch)


@KINDS
@settings(max_examples=20)
@given(text=TEXTS | SPELLED)
def test_state_rebuilds_the_encoder(kind: str, text: str) -> None:
    if kind == "gpt2":
        return  # its state is empty: test_gpt2.py
    encoder = knowing(kind, text)
    again = type(encoder).from_state(json.loads(json.dumps(encoder.state())))
    assert again.state() == encoder.state()
    assert (again.vocab_size, again.end_token) == (encoder.vocab_size, encoder.end_token)
    assert again.encode(text).tolist() == encoder.encode(text).tolist()
    assert identity(again) == identity(encoder)


@KINDS
def test_ids_can_be_written_to(kind: str) -> None:
    """torch.from_numpy warns of an array that is read-only."""
    encoder = knowing(kind, PROSE)
    assert all(ids.flags.writeable for ids in [encoder.encode(PROSE), *encoder.encode_batch([PROSE, PROSE])])


@KINDS
def test_empty_text_has_no_ids(kind: str) -> None:
    encoder = knowing(kind, "a")
    assert encoder.encode("").tolist() == []
    assert encoder.encode_batch([]) == []
    assert encoder.decode([]) == ""


@KINDS
def test_a_control_token_never_comes_from_text(kind: str) -> None:
    text = f"a <|endoftext|> {END} b"
    asked = {"end_token": True} if kind in ("char", "words") else {}
    encoder = (
        type(any_encoder(kind, text)).fit([text], vocab_size=300, **asked) if kind != "gpt2" else Gpt2Encoder(MERGES)
    )
    assert encoder.end_token == encoder.vocab_size - 1
    assert encoder.end_token not in encoder.encode(text)
    assert encoder.decode([*encoder.encode(text).tolist(), encoder.end_token]) == text


@KINDS
def test_half_a_surrogate_pair_is_refused(kind: str) -> None:
    expected = (
        r"'\ud800' at line 2, column 3 is half of a surrogate pair, not a character"
        "\n  Read the text again as UTF-8, with errors='replace' if it is damaged."
    )
    encoder = knowing(kind, "ab\n ")
    with pytest.raises(UserError) as error:
        encoder.encode("ab\nab\ud800")
    if kind == "words":  # which never looks inside a word, but cannot have learnt this one
        assert str(error.value).startswith(r"word 'ab\ud800' at line 2, column 1 is not in the vocabulary")
    else:
        assert str(error.value) == expected
    if kind in ("char", "words", "bpe"):
        with pytest.raises(UserError) as error:
            type(encoder).fit(["ab\nab\ud800"], vocab_size=300)
        assert str(error.value) == expected


@KINDS
def test_a_state_of_another_kind_is_refused(kind: str) -> None:
    with pytest.raises(UserError) as error:
        type(any_encoder(kind, "a")).from_state({"b": 1, "a": 2})
    assert (
        str(error.value) == f"this is not the state of a '{kind}' encoder: it has 'a', 'b'\n  Prepare the data again."
    )


def test_identity_tells_encoders_apart() -> None:
    encoders = [
        CharEncoder.fit(["ab"]),
        CharEncoder.fit(["abc"]),
        CharEncoder.fit(["ab"], end_token=True),
        WordsEncoder.fit(["ab"]),
        WordsEncoder.fit(["ab"], end_token=True),
        BytesEncoder(),
        Gpt2Encoder(MERGES),
        BPE,
        BpeEncoder([]),
    ]
    assert len({identity(encoder) for encoder in encoders}) == len(encoders)
    assert identity(CharEncoder.fit(["ab"])) == identity(CharEncoder.fit(["b", "a"]))
    assert len(identity(BytesEncoder())) == 64


# char


def test_char_numbers_characters_as_nanogpt() -> None:
    text = "hello 🦔, \n café"
    encoder = CharEncoder.fit([text[:5], text[5:], ""])
    stoi = {character: token for token, character in enumerate(sorted(set(text)))}  # nanoGPT's prepare.py
    assert encoder.encode(text).tolist() == [stoi[character] for character in text]
    assert encoder.vocab_size == len(stoi)
    assert encoder.end_token is None


@pytest.mark.parametrize("stranger", ["z", "é", "🦔", "\0", "\U0010ffff"])
def test_char_names_an_unknown_character(stranger: str) -> None:
    encoder = CharEncoder.fit(["abc\n"])
    with pytest.raises(UserError) as error:
        encoder.encode(f"abc\nab{stranger}")
    assert str(error.value) == (
        f"character {stranger!r} at line 2, column 3 is not in the vocabulary"
        "\n  Leave it out, or prepare the data again with text that contains it."
    )


def test_char_without_a_vocabulary_knows_no_character() -> None:
    with pytest.raises(UserError, match="character 'a' at line 1, column 1 is not in the vocabulary"):
        CharEncoder.fit([]).encode("a")


def test_char_reads_a_vocabulary_of_nanogpt() -> None:
    encoder = CharEncoder.from_vocabulary({1: "a", 0: "b", 2: END, 3: "<pad>"})
    assert encoder.encode("ab").tolist() == [1, 0]
    assert (encoder.end_token, encoder.vocab_size) == (2, 4)
    assert encoder.decode([1, 3, 0, 2]) == "ab"


@pytest.mark.parametrize(
    ("itos", "found"),
    [
        ({1: "a", 2: "b"}, "its ids are not 0 to 1"),
        ({0: "a", 1: "word"}, "id 1 is 'word'"),
        ({0: "a", 1: ""}, "id 1 is ''"),
        ({0: "a", 1: b"b"}, "id 1 is b'b'"),
        ({0: "a", 1: "b", 2: "a"}, "ids 0 and 2 are both 'a'"),
    ],
)
def test_char_refuses_what_is_no_vocabulary_of_characters(itos: dict[int, str], found: str) -> None:
    with pytest.raises(UserError) as error:
        CharEncoder.from_vocabulary(itos)
    assert str(error.value) == (
        f"this is not a vocabulary of characters: {found}"
        "\n  Each id must stand for one character, or for a special token such as '<|end|>'."
    )


@KINDS
@settings(max_examples=40)
@given(before=st.text("ab \n", max_size=6), after=st.text("ab \n", max_size=6))
def test_what_decoding_puts_between_two_texts(kind: str, before: str, after: str) -> None:
    encoder = knowing(kind, f"{before} {after} ")
    ids = [*encoder.encode(before).tolist(), *encoder.encode(after).tolist()]
    assert encoder.decode(ids) == before + between(encoder, before, after) + after
    assert not between(encoder, before, after) or kind == "words"


# words


def test_words_are_sorted_and_a_single_space_goes_without_saying() -> None:
    encoder = WordsEncoder.fit(["1 + 2 = 3\n"])
    assert encoder.words == ["\n", " ", "+", "1", "2", "3", "="]
    assert [encoder.words[token] for token in encoder.encode("1 + 2 = 3\n")] == ["1", "+", "2", "=", "3", "\n"]
    assert [encoder.words[token] for token in encoder.encode(" 1  2\n 3 ")] == [
        " ",
        "1",
        " ",
        " ",
        "2",
        "\n",
        " ",
        "3",
        " ",
    ]


@settings(max_examples=200)
@given(
    prompt=st.text("ab \n\t\u3000", max_size=12),
    space=st.sampled_from([" ", "\n", "  "]),
    completion=st.text("ab \n\t\u3000", max_size=12),
    before=st.booleans(),
)
def test_words_encoded_apart_join_to_their_text(prompt: str, space: str, completion: str, before: bool) -> None:
    prompt, completion = (prompt + space, completion) if before else (prompt, space + completion)
    encoder = WordsEncoder.fit([prompt, completion])
    assert encoder.decode([*encoder.encode(prompt), *encoder.encode(completion)]) == prompt + completion


def test_words_imply_no_space_beside_an_end_token() -> None:
    encoder = WordsEncoder.fit(["1 2"], end_token=True)
    assert encoder.end_token is not None
    one, two = encoder.encode("1 2").tolist()
    assert encoder.decode([one, encoder.end_token, two, one]) == "12 1"


def test_words_take_a_space_at_the_end_of_a_prompt_that_no_text_spelled() -> None:
    encoder = WordsEncoder.fit(["1 + 2 = 3"])
    assert encoder.decode(encoder.encode("1 + 2 = ").tolist()) == "1 + 2 = "


@pytest.mark.parametrize(
    ("text", "what", "place"),
    [("1 2\n1 12 3", "word '12'", "line 2, column 3"), ("1\t2", r"whitespace '\t'", "line 1, column 2")],
)
def test_words_name_an_unknown_word(text: str, what: str, place: str) -> None:
    with pytest.raises(UserError) as error:
        WordsEncoder.fit(["1 2 3\n"]).encode(text)
    assert str(error.value) == (
        f"{what} at {place} is not in the vocabulary\n  Leave it out, or prepare the data again with text that contains it."
    )


# bytes, bpe


def test_bytes_are_those_of_utf8() -> None:
    encoder = BytesEncoder.fit(["ignored"])
    assert (encoder.vocab_size, encoder.end_token) == (257, 256)
    assert encoder.encode("aé").tolist() == [97, 0xC3, 0xA9]


@pytest.mark.parametrize("encoder", [BytesEncoder(), BPE])
def test_bytes_that_are_no_utf8_become_a_replacement_character(encoder: Encoder) -> None:
    half = encoder.encode("\U0001f994").tolist()[:-1]
    assert encoder.decode([*encoder.encode("a").tolist(), *half]) == "a�"


def test_bpe_learns_at_most_the_ids_asked_for() -> None:
    text = "the cat and the hat and the bat " * 20
    assert BpeEncoder.fit([text], vocab_size=257).encode("the").tolist() == [
        alphabet().index(letter) for letter in "the"
    ]
    assert BpeEncoder.fit([text], vocab_size=262).vocab_size == 262
    few = BpeEncoder.fit([text], vocab_size=5000)  # every pair that occurs twice is merged before
    assert 262 < few.vocab_size < 300
    assert len(few.encode("the cat")) == 2


def test_bpe_of_no_text_knows_every_text() -> None:
    encoder = BpeEncoder.fit([], vocab_size=1024)
    assert encoder.vocab_size == 257
    assert encoder.decode(encoder.encode(PROSE).tolist()) == PROSE


def test_bpe_learns_the_same_from_the_same_text() -> None:
    words = np.random.default_rng(0).integers(0, 50, (4000, 3))
    text = " ".join("".join(chr(97 + letter % 26) for letter in word) for word in words)
    assert BpeEncoder.fit([text], vocab_size=600).state() == BpeEncoder.fit([text], vocab_size=600).state()


def test_bpe_refuses_a_vocabulary_smaller_than_the_bytes() -> None:
    with pytest.raises(UserError) as error:
        BpeEncoder.fit(["a"], vocab_size=256)
    assert str(error.value) == (
        "prepare.vocab_size: vocab_size = 256 is too small for bpe\n  Use 257 (bytes only) or more."
    )


@settings(max_examples=100)
@given(text=st.text("ab é\n\t\u3000\x1c", max_size=40), size=st.integers(1, 10))
def test_spans_encode_as_the_whole(text: str, size: int) -> None:
    parts = list(spans(text, size))
    assert "".join(parts) == text
    for encoder in (BPE, Gpt2Encoder(MERGES)):
        assert np.concatenate([encoder.encode(part) for part in parts]).tolist() == encoder.encode(text).tolist()
