"""A dataset folder is read as it was written, and whatever is wrong with one is told."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preparing import run, write

from core.data.dataset import load_dataset, verify
from core.data.info import read_info, write_info
from core.errors import UserError

CODE = """from core import Example

def documents():
    for number in range(100, 400):
        yield Example(f"{number}+1=", f"{number + 1}\\n", group="odd" if number % 2 else "even")
"""
AGAIN = "Prepare it again with `force=True`."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of Examples."""
    return run(write(tmp_path_factory.mktemp("made") / "one", CODE)).folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "basic"))


def nanogpt(folder: Path, **changes: Any) -> Path:
    """nanoGPT's three files for the text "abcab"."""
    folder.mkdir()
    meta = {"vocab_size": 3, "itos": {0: "a", 1: "b", 2: "c"}, "stoi": {"a": 0, "b": 1, "c": 2}} | changes
    np.array([0, 1, 2, 0, 1], dtype=np.uint16).tofile(folder / "train.bin")
    np.array([2, 0, 1], dtype=np.uint16).tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return folder


def error_of(folder: Path) -> UserError:
    with pytest.raises(UserError) as error:
        load_dataset(folder)
    return error.value


def test_examples_are_different_prompts_evenly_spaced(made: Path) -> None:
    dataset = load_dataset(made)
    everything = dataset.examples("train", 0)
    assert len(everything) == dataset.info["train"]["prompts"] == dataset.info["train"]["documents"]
    some = dataset.examples("train", 7)
    assert some == [everything[round(index)] for index in np.linspace(0, len(everything) - 1, 7)]
    assert some == dataset.examples("train", 7)
    assert dataset.examples("train", 10_000) == everything
    for prompt, completion, group in dataset.examples("val", 0):
        assert completion == f"{int(prompt[:3]) + 1}\n"
        assert group == ("odd" if int(prompt[:3]) % 2 else "even")


def test_a_prompt_with_two_answers_stands_once(tmp_path: Path) -> None:
    code = CODE.replace('f"{number}+1="', 'f"{number // 100}?"').replace(', group="odd" if number % 2 else "even"', "")
    dataset = run(write(tmp_path / "one", code))
    assert sorted(example.prompt for side in ("train", "val", "test") for example in dataset.examples(side, 0)) == [
        "1?",
        "2?",
        "3?",
    ]
    assert dataset.groups == []
    assert dataset.train.group is None


def test_nanogpts_files_are_a_dataset(tmp_path: Path) -> None:
    dataset = load_dataset(nanogpt(tmp_path / "theirs"))
    assert dataset.encoder.kind == "char"
    assert dataset.encoder.decode(dataset.train.ids.tolist()) == "abcab"
    assert not dataset.owned
    assert not dataset.has_examples
    assert (dataset.stop, dataset.end_token, dataset.groups) == ("", None, [])
    assert dataset.examples("val", 3) == []
    assert dataset.target_size("val", masked=True) == (3, 3)
    assert dataset.longest_completion == 0
    fingerprint = dataset.fingerprint
    np.array([2, 0, 2], dtype=np.uint16).tofile(tmp_path / "theirs" / "val.bin")
    assert load_dataset(tmp_path / "theirs").fingerprint != fingerprint


def refuse_merges() -> Path:
    raise UserError("no network")


def test_without_meta_the_ids_are_gpt2s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its merges are not needed to train, and bits per byte are left out where they are missing."""
    monkeypatch.setattr("core.encoders.gpt2.vocabulary", refuse_merges)
    (nanogpt(tmp_path / "theirs") / "meta.pkl").unlink()
    dataset = load_dataset(tmp_path / "theirs")
    assert (dataset.encoder.kind, dataset.encoder.vocab_size, dataset.encoder.end_token) == ("gpt2", 50257, 50256)
    assert dataset.target_size("val", masked=True) == (3, None)
    assert (
        dataset.info["note"]
        == f"{tmp_path / 'theirs'}: there is no meta.pkl, so the ids are taken to be GPT-2's, as in nanoGPT."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"itos": {1: "a", 2: "b"}, "vocab_size": None}, "itos does not number texts from 0"),
        ({"itos": {"a": 0}, "vocab_size": None}, "itos does not number texts from 0"),
        ({"itos": {0: "a", 1: "b"}, "vocab_size": None}, "holds the id 2, but the char vocabulary ends at 1"),
        ({"itos": {0: "a", 1: "b"}, "vocab_size": 2}, "holds the id 2, but the char vocabulary ends at 1"),
    ],
)
def test_a_meta_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    error = error_of(nanogpt(tmp_path / "theirs", **changes))
    assert error.message == message
    assert str(tmp_path / "theirs") in error.place


def test_two_ids_of_one_text(tmp_path: Path) -> None:
    dataset = load_dataset(nanogpt(tmp_path / "theirs", itos=["a", "b", "b"]))
    assert dataset.encoder.kind == "pieces" and dataset.encoder.decode([0, 1, 2]) == "abb"
    assert dataset.encoder.encode("abb").tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "kind", "text", "note"),
    [
        ({"itos": {0: "to", 1: "be", 2: "\n"}}, "words", "to be\nto be", "lists words"),
        ({"itos": ["to", " be", " "]}, "pieces", "to be to be", "lists pieces of text"),
        ({"itos": ["\u2581to", "be", "or"]}, "pieces", "\u2581tobeor\u2581tobe", "lists pieces of text"),
        ({"itos": ["+", "[PAD]", "3"]}, "pieces", "+[PAD]3+[PAD]", "lists pieces of text"),
        ({"itos": ["a", "b"]}, "ids", "0 1 2 0 1", "has no text for some ids, so samples are written as ids"),
        ({"itos": {0: "a", 7: "b"}}, "ids", "0 1 2 0 1", "has no text for some ids"),
        ({"itos": None}, "char", "abcab", ""),  # stoi is there
        ({"itos": None, "stoi": None}, "ids", "0 1 2 0 1", "has no itos, so samples are written as ids"),
        ({"itos": None, "stoi": None, "vocab_size": 50304}, "gpt2", "", "taken to be GPT-2's"),
    ],
)
def test_what_ids_mean(tmp_path: Path, changes: dict[str, Any], kind: str, text: str, note: str) -> None:
    dataset = load_dataset(nanogpt(tmp_path / "theirs", **changes))
    assert dataset.encoder.kind == kind
    assert note in dataset.info.get("note", "")
    if text:
        assert dataset.encoder.decode(dataset.train.ids.tolist()) == text
        assert dataset.encoder.encode(text).tolist() == dataset.train.ids.tolist()
        assert type(dataset.encoder).from_state(dataset.encoder.state()).encode(text).tolist() == [0, 1, 2, 0, 1]


def test_a_meta_without_any_vocabulary(tmp_path: Path) -> None:
    error = error_of(nanogpt(tmp_path / "theirs", itos=None, stoi=None, vocab_size=None))
    assert error.message == "holds neither itos nor vocab_size"


def test_ids_beyond_gpt2s(tmp_path: Path) -> None:
    (nanogpt(tmp_path / "theirs") / "meta.pkl").unlink()
    np.array([60_000], dtype=np.uint16).tofile(tmp_path / "theirs" / "val.bin")
    error = error_of(tmp_path / "theirs")
    assert error.message == "holds the id 60000, but the gpt2 vocabulary ends at 50256"
    assert error.remedy.endswith("Write a meta.pkl with its vocab_size.")


def test_what_is_no_id_or_piece(tmp_path: Path) -> None:
    ids = load_dataset(nanogpt(tmp_path / "ids", itos=None, stoi=None)).encoder
    pieces = load_dataset(nanogpt(tmp_path / "pieces", itos=["to", " be", " "])).encoder
    for encoder, text, message in (
        (ids, "0 x", "'x' is no id of this vocabulary"),
        (ids, "0 3", "3 is no id of this vocabulary: the ids are 0 to 2"),
        (ids, "\n", "'\\n' is no id of this vocabulary"),
        (pieces, "to do", "character 'd' at line 1, column 4 is not in the vocabulary"),
    ):
        with pytest.raises(UserError) as error:
            encoder.encode(text)
        assert error.value.message == message
        with pytest.raises(UserError, match=f'encoder = "{encoder.kind}" only reads data'):
            encoder.fit([""], vocab_size=300)


def test_a_hostile_meta_is_refused(tmp_path: Path) -> None:
    (nanogpt(tmp_path / "theirs") / "meta.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert error_of(tmp_path / "theirs").message.startswith("not a plain vocabulary: ")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train.bin", b"\0", "cut off: 1 bytes, and uint16 takes 2 each"),
        ("val.bin", b"", "empty: 0 bytes, and uint16 takes 2 each"),
    ],
)
def test_a_damaged_file_of_nanogpt(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (nanogpt(tmp_path / "theirs") / name).write_bytes(data)
    error = error_of(tmp_path / "theirs")
    assert error.message == message
    assert error.place == str(tmp_path / "theirs" / name)


def test_no_dataset(tmp_path: Path) -> None:
    error = error_of(tmp_path / "nowhere")
    assert error.message == "there is no dataset here"
    assert error.remedy == "Prepare it first."
    (nanogpt(tmp_path / "theirs") / "val.bin").unlink()
    assert error_of(tmp_path / "theirs").message == "there is no val.bin"


@pytest.mark.parametrize(
    "name", ["train.bin", "val.bin", "train.mask.bin", "val.idx.bin", "train.prompts.bin", "val.group.bin"]
)
def test_a_file_that_is_cut_off_or_missing(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    error = error_of(folder)
    assert error.message == f"cut off: {len(data) - 3:,} bytes instead of {len(data):,}"
    assert (error.place, error.remedy) == (str(path), AGAIN)
    path.write_bytes(data + b"12345678")
    assert error_of(folder).message == f"too long: {len(data) + 8:,} bytes instead of {len(data):,}"
    path.unlink()
    assert error_of(folder).message in (f"{name} is missing", "there is no dataset here")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"encoder": {}}', "\xff"])
def test_a_damaged_dataset_json(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_bytes(text.encode("latin-1"))
    error = error_of(folder)
    assert error.message.startswith("damaged: ")
    assert (error.place, error.remedy) == (str(folder / "dataset.json"), AGAIN)


def test_ids_of_another_vocabulary(folder: Path) -> None:
    info = read_info(folder)
    info["encoder"]["itos"] = info["encoder"]["itos"][:5]
    write_info(folder, info)
    error = error_of(folder)
    assert error.message.endswith("but the char vocabulary ends at 4")
    assert error.place == str(folder / "train.bin")


def test_a_large_file_is_looked_at_in_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.data.dataset.BLOCK", 2)
    load_dataset(folder)
    ids = np.fromfile(folder / "val.bin", np.uint16)
    ids[-1] = 9999
    ids.tofile(folder / "val.bin")
    assert error_of(folder).message.startswith("holds the id 9999")


def test_an_encoder_that_is_not_installed(folder: Path) -> None:
    info = read_info(folder)
    info["encoder"]["kind"] = "morse"
    write_info(folder, info)
    assert error_of(folder).message == 'unknown encoder "morse"'


def test_verify_reads_every_file(folder: Path) -> None:
    verify(folder)
    data = bytearray((folder / "val.mask.bin").read_bytes())
    data[3] ^= 1
    (folder / "val.mask.bin").write_bytes(data)
    load_dataset(folder)  # lengths alone do not tell
    with pytest.raises(UserError, match="has changed since it was made") as error:
        verify(folder)
    assert error.value.place == str(folder / "val.mask.bin")
    (folder / "val.mask.bin").unlink()
    with pytest.raises(UserError, match="missing"):
        verify(folder)
