"""prepare: when a dataset is made again, and whose files it may replace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from preparing import (
    FROM_FILE,
    SMALL,
    SPACES,
    TEXT,
    content,
    error_of,
    nanogpt_folder,
    prepared,
    run,
    write,
)

from core.data.pipeline import dataset_setting
from core.errors import UserError
from core.listener import Listener
from core.plugins.discovery import Experiment


def test_an_address_is_downloaded_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def download(url: str, target: Path, sha256: str, what: str, listener: Listener) -> None:
        calls.append(url)
        target.write_text(TEXT)

    monkeypatch.setattr("core.data.source.download", download)
    folder = write(tmp_path / "one", config='[prepare]\ninput = "https://example.org/texts/input.txt?raw=1"\n')
    dataset = run(folder)
    assert (folder / "datasets" / "raw" / "input.txt").read_text() == TEXT
    run(folder, force=True)
    (folder / "datasets" / "raw" / "input.txt").unlink()
    assert run(folder).fingerprint == dataset.fingerprint  # what the address gave is on record
    assert len(calls) == 1
    with pytest.raises(UserError, match=r"does not match prepare\.sha256"):
        run(folder, ["prepare.sha256='" + "0" * 64 + "'"])
    assert (
        "does not match prepare.sha256"
        in error_of(
            folder, "prepare.input='https://example.org/input.txt'", "prepare.sha256='" + "0" * 64 + "'"
        ).message
    )


def test_a_current_dataset_is_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    assert prepared(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "datasets" / "basic").iterdir()}
    assert not prepared(folder)
    assert before == {path.name: path.stat().st_mtime_ns for path in (folder / "datasets" / "basic").iterdir()}
    run(folder, force=True)
    assert before != {path.name: path.stat().st_mtime_ns for path in (folder / "datasets" / "basic").iterdir()}


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "prepare.py").write_text(SPACES.replace("abc", "abd")),
        lambda folder: (folder / "helper.py").write_text("WORDS = 1\n"),
        lambda folder: (folder / "config.toml").write_text("[prepare]\nsize = 3001\n"),
        lambda folder: (folder / "config.toml").write_text(SMALL + "val_fraction = 0.2\n"),
        lambda folder: (folder / "config.toml").write_text(SMALL + "[prepare.params]\nmax_letters = 2\n"),
        lambda folder: (folder / "config.toml").write_text(SMALL + 'encoder = "bytes"\n'),
        lambda folder: (folder / "datasets/basic/val.bin").unlink(),
        lambda folder: (folder / "datasets/basic/train.mask.bin").write_bytes(b"1"),
        lambda folder: (folder / "datasets/basic/dataset.json").write_text("{}"),
        lambda folder: (folder / "datasets/basic/dataset.json").write_text('{"encoder'),
        lambda folder: flip(folder / "datasets/basic/train.bin"),
        lambda folder: shutil.rmtree(folder / "datasets"),
    ],
)
def test_what_changes_the_data_makes_it_again(tmp_path: Path, change: Any) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    run(folder)
    change(folder)
    assert prepared(folder)
    assert not prepared(folder)


def flip(path: Path) -> None:
    """Another first byte, in the same length."""
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.toml").write_text(SMALL + "[train.schedule]\nmax_iters = 7\n"),
        lambda folder: (folder / "Readme.md").write_text("# A readme\n"),
        lambda folder: os.utime(folder / "datasets/basic/train.bin"),
        lambda folder: os.utime(folder / "prepare.py"),
    ],
)
def test_what_does_not_change_the_data_does_not(tmp_path: Path, change: Any) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    run(folder)
    change(folder)
    assert not prepared(folder)


def test_a_copied_experiment_uses_the_data_until_its_code_changes(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    fingerprint = run(folder).fingerprint
    copy = tmp_path / "elsewhere" / "two"
    shutil.copytree(folder, copy)
    assert not prepared(copy)
    assert run(copy).fingerprint == fingerprint
    (copy / "prepare.py").write_text(SPACES.replace("abc", "xyz"))
    assert prepared(copy)
    assert not prepared(folder)
    assert "x" in run(copy).encoder.state()["itos"]


def test_the_input_counts_by_its_content_and_is_not_read_again_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    source = folder / "input.txt"
    source.write_text(TEXT)
    run(folder)
    os.utime(source)
    assert not prepared(folder)  # read again, found equal, and noted
    with monkeypatch.context() as patch:
        patch.setattr(
            "core.data.fingerprint.sha256", lambda path: pytest.fail(f"read {path}") if path.suffix != ".py" else ""
        )
        assert not prepared(folder)
    shutil.move(source, tmp_path / "moved.txt")
    assert not prepared(folder, f"prepare.input='{tmp_path / 'moved.txt'}'")
    source.write_text(TEXT.replace("speak", "sPeak"))
    assert prepared(folder)


def test_raw_files_count_for_documents_that_read_them(tmp_path: Path) -> None:
    code = "def documents(raw_dir):\n    yield from (raw_dir / 'words.txt').read_text().splitlines(True)\n"
    folder = write(tmp_path / "one", code)
    (folder / "datasets" / "raw").mkdir(parents=True)
    words = folder / "datasets" / "raw" / "words.txt"
    words.write_text("one\ntwo\n" * 9)
    run(folder)
    assert not prepared(folder)
    (words.parent / ".hidden").write_text("x")
    assert not prepared(folder)
    words.write_text("one\nsix\n" * 9)
    assert prepared(folder)
    (words.parent / "more.txt").write_text("x")
    assert prepared(folder)


def test_files_beside_prepare_count_for_documents_that_ask_for_the_folder(tmp_path: Path) -> None:
    code = "def documents(folder):\n    yield from (folder / 'words.txt').read_text().splitlines(True)\n"
    folder = write(tmp_path / "one", code)
    (folder / "words.txt").write_text("one\ntwo\n" * 9)
    run(folder)
    (folder / "Readme.md").write_text("hello")
    assert not prepared(folder)
    (folder / "words.txt").write_text("one\nsix\n" * 9)
    assert prepared(folder)


def test_no_path_of_this_machine_is_written_down(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(TEXT)
    run(folder, [f"prepare.input='{folder / 'input.txt'}'"])
    assert str(tmp_path) not in (folder / "datasets/basic/dataset.json").read_text()


@pytest.mark.parametrize("code", ["", SPACES])
def test_nanogpts_folder_is_used_as_it_is(tmp_path: Path, code: str) -> None:
    theirs = nanogpt_folder(tmp_path / "nanoGPT" / "data" / "shakespeare_char")
    before = content(theirs)
    folder = write(tmp_path / "one", code, f'[prepare]\ndataset_dir = "{theirs}"\n')
    dataset = run(folder)
    assert not dataset.owned
    assert dataset.encoder.decode(dataset.val.ids.tolist()) == TEXT[int(len(TEXT) * 0.9) :]
    error = error_of(folder, force=True)
    assert error.message == "this dataset was not made by prepare, so `force=True` will not replace it"
    assert content(theirs) == before


@pytest.mark.parametrize("place", ["", "datasets/basic", "datasets/shakespeare"])
def test_a_dataset_in_the_experiments_folder_is_found(tmp_path: Path, place: str) -> None:
    nanogpt_folder(tmp_path / "one" / place)
    dataset = run(tmp_path / "one")
    assert dataset.folder == tmp_path / "one" / place
    assert dataset.train.tokens == int(len(TEXT) * 0.9)


def test_two_datasets_need_a_choice(tmp_path: Path) -> None:
    nanogpt_folder(tmp_path / "one/datasets/a")
    nanogpt_folder(tmp_path / "one/datasets/b")
    assert "name one of a, b in prepare.dataset_dir" in error_of(tmp_path / "one").remedy
    assert run(tmp_path / "one", ["prepare.dataset_dir='datasets/b'"]).folder.name == "b"


def test_files_that_prepare_did_not_make_are_not_removed(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    run(folder)
    (folder / "datasets/basic/notes.txt").write_text("mine")
    error = error_of(folder, force=True)
    assert error.message == "holds notes.txt, which prepare did not make and would remove"
    error = error_of(folder, "prepare.dataset_dir='.'")
    assert "config.toml" in error.message
    assert (folder / "prepare.py").exists()


def test_the_fingerprint_of_existing_datasets_stays(tmp_path: Path) -> None:
    """Another value would make every dataset anew. A place in [prepare] is no part of it, a new key of it must not be."""
    drawn = write(tmp_path / "drawn", SPACES, SMALL)
    assert run(drawn).fingerprint == "8eb1c51734f951dca852c713aef7b6b3e43b329b751e177486d6565ce9d05658"
    elsewhere = run(drawn, ["prepare.dataset_dir=datasets/other", "prepare.raw_dir=downloads"])
    assert elsewhere.fingerprint == run(drawn).fingerprint
    read = write(tmp_path / "read", config=FROM_FILE)
    (read / "input.txt").write_text(TEXT)
    assert run(read).fingerprint == "c526e0ac9bd61cd2805794bd85cb2e881d21799363dca0bcbde90588a02849e5"


def test_a_dataset_found_elsewhere_says_how_to_name_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", SPACES, SMALL)
    experiment = Experiment(folder)
    assert dataset_setting(experiment, run(folder)) == "datasets/basic"
    assert (
        dataset_setting(experiment, run(folder, [f"prepare.dataset_dir={tmp_path}/far"]))
        == f"{tmp_path.as_posix()}/far"
    )
    bare = write(tmp_path / "bare")
    nanogpt_folder(bare / "datasets" / "shakespeare")
    assert dataset_setting(Experiment(bare), run(bare)) == "datasets/shakespeare"
