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
    examples_code,
    run,
    texts_code,
    write,
)

from core.listener import Silent


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    yield 3", "int is not a document: 3"),
        ("    yield ('a', 'b')", "tuple is not a document: ('a', 'b')"),
        ("    yield None", "NoneType is not a document: None"),
        ("    yield ''", "empty str"),
        ("    yield Example('', '')", "empty Example"),
        ("    yield Example('', 'b')", "empty prompt"),
        ("    yield Example('a', 3)", "completion is int, not str: 3"),
        ("    yield Example(['a'], 'b')", "prompt is list, not str: ['a']"),
        ("    yield Example('a', 'b', 3)", "group is int, not str: 3"),
        ("    yield 'a'\n    yield Example('a', 'b')", "Example after text"),
        ("    yield '\\ud800'", "invalid text: U+D800 is half a character and cannot be written as UTF-8"),
        ("    yield Conversation([('user', 'a')])", "not a message: ('user', 'a')"),
        ("    yield Conversation([Message('me', 'a')])", "unknown role 'me'"),
        ("    yield from ()", "documents() yielded nothing"),
        ("    return None", "documents() returned NoneType, which yields no documents"),
        ("    return 'text'", "documents() returned str, which yields no documents"),
        ("    return Example('a', 'b')", "documents() returned Example, which yields no documents"),
        (
            "    yield Example('a', 'b\\n')",
            'no documents are left for val: there are 1, 1 of them different, with split = "hash"',
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


def test_an_empty_prompt_is_told_with_its_document(tmp_path: Path) -> None:
    error = error_of(write(tmp_path / "one", examples_code([("a", "b\n"), ("", "c\n")])))
    assert (error.message, error.place) == ("empty prompt", "document 2 of documents()")
    assert error.remedy == "Start it with something, such as a line break."


def test_an_empty_completion_ends_with_an_end_token(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", examples_code([("a", "b"), ("c", ""), ("d", "")])))
    assert dataset.end_token is not None
    for split in (dataset.train, dataset.val):
        assert split.mask is not None
        assert split.starts is not None
        assert split.mask.sum() >= len(split.starts)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(TEXT, encoding="utf-8-sig")
    assert "\ufeff" not in run(folder).encoder.state()["itos"]
    folder = write(tmp_path / "two", config=FROM_FILE + 'format = "pairs"\nseparator = ": "\n')
    (folder / "input.txt").write_text("".join(f"{n}: x{n}\n" for n in range(20)), encoding="utf-8-sig")
    assert "\ufeff" not in run(folder).encoder.state()["itos"]


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize(
    ("misspelt", "right"),
    [
        ("document", "documents"),
        ("docments", "documents"),
        ("prepares", "prepare"),
        ("evaluates", "evaluate"),
        ("build_models", "build_model"),
    ],
)
def test_a_misspelt_function_of_prepare_is_named(tmp_path: Path, misspelt: str, right: str, made: bool) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    if made:
        run(folder)
    code = SPACES.replace("def documents", f"def {misspelt}")
    if right in ("evaluate", "build_model"):
        code = f"{SPACES}\n\ndef {misspelt}():\n    pass\n"
    write(folder, code, SMALL)
    error = error_of(folder)
    assert error.message == f"prepare.py has no {right}(), but {misspelt}()"
    assert error.place.startswith(f"{folder / 'prepare.py'}:")
    assert error.remedy.startswith(f"Did you mean '{right}'?")


def test_names_near_one_that_is_there_are_no_mistakes(tmp_path: Path) -> None:
    code = SPACES.replace("def documents", "def document") + (
        "\n\ndef documents(rng):\n    yield from document(rng)\n\n\ndef prepared():\n    pass\n\n\ndef _evaluate():\n    pass\n"
    )
    assert run(write(tmp_path / "one", code, SMALL)).train.tokens


@pytest.mark.parametrize("name", ["documents", "prepare", "evaluate", "build_model"])
def test_what_is_called_like_a_function_must_be_one(tmp_path: Path, name: str) -> None:
    error = error_of(write(tmp_path / "one", f"{SPACES}\n\n{name} = 5\n", SMALL))
    assert (error.message, error.place) == (f"{name} is int, not a function", str(tmp_path / "one" / "prepare.py"))
    assert error.remedy == f"Write `def {name}(...)`, or give this another name."


def test_a_dataset_whose_code_is_gone_is_only_used_when_it_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    made = run(folder).fingerprint
    write(folder, SPACES.replace("def documents", "def words"), SMALL)
    error = error_of(folder)
    assert error.message == "prepare.py has no documents(), only words()"
    assert error.place == str(folder / "prepare.py")
    assert "`prepare.dataset_dir=datasets/basic`" in error.remedy
    assert run(folder, ["prepare.dataset_dir='datasets/basic'"]).fingerprint == made
    (folder / "prepare.py").unlink()
    assert "name one of basic in prepare.dataset_dir" in error_of(folder).remedy


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "there is no train.bin"),
        ("job.write([], [])", "job.write() got no documents for train"),
        ("job.write([], ['a'])", "job.write() got no documents for train"),
        ("job.write(['a'], [])", "job.write() got no documents for val"),
        ("fill(job, '{')", "dataset.json is damaged: Expecting property name"),
        ("fill(job, '\\xff')", "dataset.json is damaged: 'utf-8' codec"),
        ("fill(job, '[]')", "dataset.json is damaged: not a JSON object"),
        ("fill(job, '{\"encoder\": 5}')", "dataset.json is damaged: encoder has no kind"),
        ('fill(job, \'{"dtype": "float"}\')', "dataset.json is damaged: dtype is 'float'"),
        ("fill(job, '{\"val\": 5}')", "dataset.json is damaged: val is not an object"),
        ("fill(job, '{}'); (job.dataset_dir / 'meta.pkl').write_bytes(b'x')", "meta.pkl: "),
    ],
)
def test_what_prepare_leaves_must_be_a_dataset(tmp_path: Path, body: str, message: str) -> None:
    fill = (
        "def fill(job, text):\n    for name in ('train', 'val'):\n        (job.dataset_dir / f'{name}.bin').write_bytes(bytes(80))\n"
        "    (job.dataset_dir / 'dataset.json').write_bytes(text.encode('latin-1'))\n\n"
    )
    folder = write(tmp_path / "one", f"{fill}def prepare(job):\n    {body}\n")
    error = error_of(folder)
    assert error.message.startswith(message)
    assert error.place == f"{folder / 'prepare.py'}:6, prepare()"
    assert error.remedy


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
        == "`prepare.params.max_leters=2`"
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
        == 'input = "http://example.org/a.txt" is not an https address'
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
    assert error.message == f"{folder / 'input.txt'} does not match prepare.sha256: its sha256 is {right}"
    run(folder, [f"prepare.sha256='{right}'"])
    assert "does not match prepare.sha256" in error_of(folder, f"prepare.sha256='{wrong}'").message


def test_a_text_file_is_only_split_by_its_tail(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE + 'split = "hash"\n')
    (folder / "input.txt").write_text(TEXT)
    error = error_of(folder)
    assert error.message == 'split = "hash" needs documents, and a text file is one stream'
    assert error.place == f"{folder / 'config.toml'}:3"


def test_an_input_that_changes_while_it_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(TEXT)

    class Meddling(Silent):
        def progress(self, what: str, done: float, total: float) -> None:
            if what == "encoding":
                (folder / "input.txt").write_text(TEXT + "more")

    assert error_of(folder, listener=Meddling()).message == "was changed while it was read"


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
