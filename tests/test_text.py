"""Text from a file in blocks, and its cuts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.data import text as blocks
from core.data.text import first_and_rest, pieces, read_text, safe_cut
from core.encoders.bpe import BpeEncoder
from core.encoders.words import WordsEncoder
from core.errors import UserError

prose = st.text(alphabet="ab é\n\r\t1'😀", max_size=300)
marked = st.tuples(st.sampled_from(["", "\ufeff", "\ufeff\ufeff"]), prose, st.sampled_from(["", "\ufeff"]), prose)


@given(marked.map("".join), st.integers(1, 7))
def test_a_file_in_blocks_is_the_file(tmp_path_factory: pytest.TempPathFactory, text: str, size: int) -> None:
    path = tmp_path_factory.mktemp("text") / "input.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "READ", size)
        seen: list[bytes] = []
        assert "".join(read_text(path, seen.append)) == path.read_text(
            encoding="utf-8-sig"
        )  # without the mark at its very start
        assert b"".join(seen) == text.encode()


@pytest.mark.parametrize(("data", "offset"), [(b"abc\xe9def", 3), (b"ab" * 500 + b"\xff", 1000), (b"abc\xe2\x82", 3)])
@pytest.mark.parametrize("size", [1, 2, 3, 1 << 18])
def test_bytes_that_are_no_utf8_are_named_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, offset: int, size: int
) -> None:
    monkeypatch.setattr(blocks, "READ", size)
    path = tmp_path / "input.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"not UTF-8 text: .* at byte {offset:,} \(0x{data[offset]:02x}\)") as error:
        list(read_text(path))
    assert error.value.place == str(path)
    assert "iconv" in error.value.remedy


@given(st.lists(prose), st.integers(2, 40))
def test_pieces_are_the_text(texts: list[str], size: int) -> None:
    cut = list(pieces(texts, size))
    assert "".join(cut) == "".join(texts)
    assert all(len(piece) <= 2 * size for piece in cut[:-1])


lines = st.lists(
    st.text(alphabet="abc1' é", max_size=6).filter(lambda line: line.strip() == line != ""), min_size=5, max_size=60
)


@given(lines, st.integers(8, 40))
@example(["111", "1111", "1111 1", "1", "1"], 8)  # the only line break stands where a cut may come first
def test_pieces_of_lines_have_the_ids_of_the_whole(some: list[str], size: int) -> None:
    text = "\n".join(some)
    for encoder in (WordsEncoder.fit([text]), BpeEncoder.fit([text], vocab_size=280)):
        whole = encoder.encode(text).tolist()
        assert [number for piece in pieces([text], size) for number in encoder.encode(piece).tolist()] == whole


def test_a_cut_stands_behind_a_line_else_before_a_blank_else_anywhere() -> None:
    assert safe_cut("ab\ncd ef gh", 1, 9) == 3
    assert safe_cut("ab\n\ncd ef", 1, 8) == 6
    assert safe_cut("abcdefgh", 2, 6) == 6


@given(st.lists(st.text(alphabet="ab\n ", max_size=30)), st.data())
def test_first_and_rest_are_all(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts)
    if len(whole) < 2:
        return
    cut = data.draw(st.integers(1, len(whole) - 1))
    exact = data.draw(st.booleans())
    first, rest = first_and_rest(texts, cut, exact=exact)
    begin, end = "".join(first), "".join(rest)
    assert begin + end == whole
    assert end
    if exact:
        assert len(begin) == cut
    else:
        inside_a_word = not begin[-1].isspace() and not end[0].isspace()
        assert not inside_a_word or not re.search(r"\s", whole[cut:])
        assert len(begin) >= cut or not re.search(r"\s", whole[cut:])


def test_an_inexact_cut_goes_to_the_end_of_the_line() -> None:
    first, rest = first_and_rest(["one two\nthr", "ee four\nfive"], 10, exact=False)
    assert ["".join(first), "".join(rest)] == ["one two\nthree four\n", "five"]
    first, rest = first_and_rest(["one two three"], 10, exact=False)
    assert ["".join(first), "".join(rest)] == ["one two ", "three"]
