"""prepare: what is wrong with the settings, the input or the documents is told, with its place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from preparing import (
    FROM_FILE,
    SMALL,
    SPACES,
    TEXT,
    error_of,
    run,
    texts_code,
    write,
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    yield 3", "int is no document: 3"),
        ("    yield ('a', 'b')", "tuple is no document: ('a', 'b')"),
        ("    yield None", "NoneType is no document: None"),
        ("    yield ''", "empty str"),
        ("    yield Example('', '')", "empty Example"),
        ("    yield Example('a', 3)", "completion is int, not str: 3"),
        ("    yield Example(['a'], 'b')", "prompt is list, not str: ['a']"),
        ("    yield Example('a', 'b', 3)", "group is int, not str: 3"),
        ("    yield 'a'\n    yield Example('a', 'b')", "Example after text"),
        ("    yield '\\ud800'", "text with half a character: U+D800 cannot be written as UTF-8"),
        ("    yield Conversation([('user', 'a')])", "no message: ('user', 'a')"),
        ("    yield Conversation([Message('me', 'a')])", "unknown role 'me'"),
        ("    yield from ()", "documents() yielded nothing"),
        ("    return None", "documents() returned NoneType, which gives no documents"),
        ("    return 'text'", "documents() returned str, which gives no documents"),
        ("    return Example('a', 'b')", "documents() returned Example, which gives no documents"),
        (
            "    yield Example('a', 'b\\n')",
            'nothing is left for val: 1 documents, 1 of them different, under split = "hash"',
        ),
        ("    yield 'a'", "1 characters are too few to hold some out"),
    ],
)
def test_what_is_no_document_is_named(tmp_path: Path, body: str, message: str) -> None:
    folder = write(tmp_path / "one", f"from core import Conversation, Example, Message\n\ndef documents():\n{body}\n")
    error = error_of(folder)
    assert error.message == message
    assert error.place
    assert not (folder / "datasets" / "basic").exists()


def test_the_number_of_the_wrong_document_is_told(tmp_path: Path) -> None:
    assert error_of(write(tmp_path / "one", texts_code(["a", "b", ""]))).place == "document 3 of documents()"


def test_a_bug_in_documents_goes_through(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", "def documents():\n    yield 'abc'\n    yield {}['missing']\n")
    with pytest.raises(KeyError) as error:
        run(folder)
    assert any(entry.name == "documents" for entry in error.traceback)
    assert not list(folder.glob("datasets/*/*"))


def test_a_user_error_of_documents_stays_one(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "one",
        "from core.errors import UserError\ndef documents():\n    raise UserError('get the words first')\n    yield ''\n",
    )
    assert error_of(folder).message == "get the words first"


def test_settings_of_documents_are_checked(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL + "[prepare.params]\nalphabet = 3\n")
    error = error_of(folder)
    assert error.message == "prepare.params.alphabet = 3: input should be a valid string"
    assert error.place == f"{folder / 'config.toml'}:4"
    assert (
        error_of(folder, "prepare.params.alphabet='ab'", "prepare.params.max_leters=2").place
        == "-s prepare.params.max_leters=2"
    )


def test_an_input_that_is_not_there(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    error = error_of(folder)
    assert error.message == f'input = "input.txt" does not exist: no file {folder / "input.txt"}'
    assert error.place == f"{folder / 'config.toml'}:2"
    (folder / "input.txt").mkdir()
    assert error_of(folder).message == 'input = "input.txt" is a folder'
    assert (
        error_of(folder, "prepare.input='http://example.org/a.txt'").message
        == 'input = "http://example.org/a.txt" is no https address'
    )


def test_an_input_that_is_no_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_bytes(b"caf\xe9 " * 10)
    assert error_of(folder).message == "not UTF-8 text: invalid continuation byte at byte 3 (0xe9)"
    (folder / "input.txt").write_bytes(b"")
    assert error_of(folder).message == "0 characters are too few to hold some out"


def test_an_input_with_another_checksum(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(TEXT)
    right, wrong = hashlib.sha256(TEXT.encode()).hexdigest(), "0" * 64
    error = error_of(folder, f"prepare.sha256='{wrong}'")
    assert (
        error.message == f"{folder / 'input.txt'} has another content than prepare.sha256 says: its sha256 is {right}"
    )
    run(folder, [f"prepare.sha256='{right}'"])
    assert "another content" in error_of(folder, f"prepare.sha256='{wrong}'").message


def test_a_text_file_is_only_split_by_its_tail(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE + 'split = "hash"\n')
    (folder / "input.txt").write_text(TEXT)
    error = error_of(folder)
    assert error.message == 'split = "hash" needs documents, and a text file is one stream'
    assert error.place == f"{folder / 'config.toml'}:3"


def test_an_input_that_changes_while_it_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(TEXT)

    def meddle(what: str, done: int, total: int) -> None:
        if what == "encoding":
            (folder / "input.txt").write_text(TEXT + "more")

    assert error_of(folder, progress=meddle).message == "was changed while it was read"


def test_an_unknown_encoder(tmp_path: Path) -> None:
    error = error_of(write(tmp_path / "one", SPACES, SMALL + 'encoder = "chars"\n'))
    assert error.message == 'unknown encoder "chars"'
    assert error.place == f"{tmp_path / 'one' / 'config.toml'}:3"
    assert "Did you mean 'char'?" in error.remedy


def test_nothing_to_prepare(tmp_path: Path) -> None:
    error = error_of(write(tmp_path / "one"))
    assert (
        error.message
        == "there is nothing to prepare: no prepare.py with documents(), no prepare.input, and no train.bin"
    )
    assert "def documents(rng)" in error.remedy
