"""Corpora of speeches: where files come from, sides made of whole sessions, and what prepare(job) offers for them."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from downloads import serving
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import Told, error_of, prepared, run
from protocols import SIDES, all_text, copied_experiment, protocol, some_speech, text_of, write_sessions

from core.corpora.corpus import whole_protocols
from core.corpora.invented import SESSIONS, invented_speeches
from core.corpora.sources import local_files
from core.data import split

SPEAKER = re.compile(r"Amsel(\d+)")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Copy the source files of a shipped experiment."""
    return lambda name: copied_experiment(name, tmp_path)


def sessions_of(text: str) -> set[int]:
    """The sessions of `write_sessions` whose speeches are in a text: their numbers are in the names of the speakers."""
    return {int(number) // 100 for number in SPEAKER.findall(text)}


# Sides


@settings(max_examples=50)
@given(st.lists(st.text(max_size=3), max_size=30), st.integers(0, 5), st.floats(0.01, 0.5), st.floats(0, 0.4))
def test_a_group_is_on_one_side_and_stays_there(groups: list[str], seed: int, val: float, test: float) -> None:
    sides = split.of_groups(groups, seed, val, test)
    assert sides.keys() == set(groups) and set(sides.values()) <= {"train", "val", "test"}
    if len(sides) > 1:
        assert {"train", "val"} <= set(sides.values())
    hashed = {group for group in sides if split.key_of(group, seed) < split.limit_of(val)}
    more = split.of_groups([*groups, "one more"], seed, val, test)
    if hashed and len(hashed) < len(sides):  # no side had to be filled up
        assert all(more[group] == "val" for group in hashed)


@pytest.mark.parametrize("layout", ["lines", "tabs"])
def test_no_session_is_on_two_sides(copied: Callable[[str], Path], tmp_path: Path, layout: str) -> None:
    write_sessions(tmp_path / "raw", 12, layout=lambda number: layout)  # type: ignore[arg-type, return-value]
    told = Told()
    dataset = run(copied("bundestag_char"), [f"prepare.params.source={tmp_path / 'raw'}"], listener=told)
    found = {side: sessions_of(text_of(dataset, side)) for side in SIDES}
    assert all(found.values()) and sum(map(len, found.values())) == 12 == len(set.union(*found.values()))
    whole = all_text(dataset)
    assert sorted(set(SPEAKER.findall(whole))) == sorted(
        str(100 * session + each) for session in range(1, 13) for each in range(3)
    )
    assert "Danke für Rede" not in whole and "Beifall" not in whole
    assert f"12 sessions, 72 speeches and remarks of the presidency; train: {len(found['train'])}, " in "\n".join(
        told.said
    )


def test_options_of_what_is_kept(copied: Callable[[str], Path], tmp_path: Path) -> None:
    source = write_sessions(tmp_path / "raw", 3)
    dataset = run(
        copied("bundestag_char"),
        [f"prepare.params.source={source}", "prepare.params.comments=true", "prepare.params.presidency=true"],
    )
    text = all_text(dataset)
    assert (
        text.count("(Beifall bei der SPD)\n")
        == 9
        == text.count("Berta Vorsitz (Präsidentin), 2023-06-23:\nDanke für Rede")
    )


def test_size_is_divided_among_the_sides(copied: Callable[[str], Path]) -> None:
    dataset = run(copied("bundestag_char"), ["prepare.size=20000"])
    assert 16_000 <= dataset.train.tokens < 18_500 and 2_000 <= dataset.val.tokens < 4_500
    assert dataset.test is not None and 2_000 <= dataset.test.tokens < 4_500


# Files


def test_broken_files_are_named_counted_and_left_out(copied: Callable[[str], Path], tmp_path: Path) -> None:
    source = write_sessions(tmp_path / "raw", 4)
    (source / "a.xml").write_bytes(protocol(50, [some_speech(1)])[:-20])
    (source / "b.xml").write_text("404 not found")
    (source / "c.xml").write_bytes((source / "20001-data.xml").read_bytes())
    (source / "d.xml").write_bytes(protocol(51, []))
    (source / "notes.txt").write_text("no protocol, and not asked for")
    told = Told()
    dataset = run(copied("bundestag_char"), [f"prepare.params.source={source}"], listener=told)
    said = "\n".join(told.said)
    assert f"{source / 'a.xml'} is left out: not XML: " in said
    assert f"{source / 'b.xml'} is left out: not XML: syntax error" in said
    assert f"{source / 'c.xml'} is left out: session 20/1 is in 20001-data.xml already" in said
    assert f"{source / 'd.xml'} is left out: there is no speech in it" in said
    assert "4 of 8 files are left out; 4 protocols are read" in said and "notes.txt" not in said
    assert sessions_of(all_text(dataset)) == {1, 2, 3, 4}


def test_many_broken_files_are_named_up_to_a_number(tmp_path: Path) -> None:
    source = write_sessions(tmp_path / "raw", 2)
    for number in range(30):
        (source / f"x{number}.xml").write_text("")
    said: list[str] = []
    assert len(whole_protocols(sorted(source.iterdir()), said.append)) == 2
    assert len(said) == 21 and said[-1] == "30 of 32 files are left out; 2 protocols are read"


@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_sessions_cannot_be_divided(copied: Callable[[str], Path], tmp_path: Path, count: int) -> None:
    source = write_sessions(tmp_path / "raw", count)
    (source / "broken.xml").write_text("<")
    error = error_of(copied("bundestag_char"), f"prepare.params.source={source}")
    assert (
        error.message.startswith(f"{count or 'no'} protocol{'' if count else 's'} of a session could be read")
        and error.place == "prepare.params.source"
    )
    assert error.remedy.startswith("Give two or more")


def test_a_source_that_names_nothing(copied: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = copied("bundestag_char")
    error = error_of(folder, f"prepare.params.source={tmp_path / 'empty'}")
    assert error.message == f"source = {str(tmp_path / 'empty')!r} holds no file that ends in .xml"
    error = error_of(folder, "prepare.params.source=nowhere/*.xml")
    assert (error.message, error.place) == ("source = 'nowhere/*.xml' names no file", "prepare.params.source")
    assert error.remedy.endswith(f"Relative names start at {folder}.")


def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with all below it, a pattern, one file, numbers, and a name that was typed in another folder."""
    raw = write_sessions(tmp_path / "here" / "raw", 3)
    (raw / "below").mkdir()
    (raw / "below" / "20009-data.XML").write_bytes(protocol(9, [some_speech(9)]))
    (raw / ".hidden.xml").write_text("")
    monkeypatch.chdir(tmp_path / "here")

    def names(source: str | list[str]) -> list[str]:
        return [path.name for path in local_files(source, tmp_path / "elsewhere", [".xml"])]

    assert names("raw") == ["20001-data.xml", "20002-data.xml", "20003-data.xml", "20009-data.XML"]
    assert names("raw/200*2-data.xml") == ["20002-data.xml"] and names(str(raw / "20003-data.xml")) == [
        "20003-data.xml"
    ]
    assert names("raw/20{001..002}-data.xml") == ["20001-data.xml", "20002-data.xml"]
    assert names(["raw/20003-data.xml", "raw/20001-data.xml"]) == ["20003-data.xml", "20001-data.xml"]
    assert names(["", "https://example.org/20001.xml"]) == []


def test_the_dataset_follows_the_files(copied: Callable[[str], Path], tmp_path: Path) -> None:
    source = write_sessions(tmp_path / "raw", 3)
    folder, setting = copied("bundestag_char"), f"prepare.params.source={source}"
    assert prepared(folder, setting) and not prepared(folder, setting)
    (source / "20004-data.xml").write_bytes(protocol(4, [some_speech(400)]))
    assert prepared(folder, setting) and not prepared(folder, setting)
    (source / "20004-data.xml").unlink()
    assert prepared(folder, setting)


def test_protocols_are_downloaded_once(copied: Callable[[str], Path], tmp_path: Path) -> None:
    source = write_sessions(tmp_path / "raw", 3)
    folder = copied("bundestag_char")
    with serving() as server:
        asked = [
            server.has(f"/btp/20/20{number:03}.xml", content=(source / f"20{number:03}-data.xml").read_bytes())[1]
            for number in (1, 2, 3)
        ]
        setting = f"prepare.params.source={server.url}/btp/20/20{{001..003}}.xml"
        dataset = run(folder, [setting])
        assert not prepared(folder, setting)
        run(folder, [setting], force=True)
    assert [len(file.asked) for file in asked] == [1, 1, 1]
    assert sessions_of(all_text(dataset)) == {1, 2, 3}
    kept = sorted(path.name for path in (folder / "datasets" / "raw").rglob("*.xml"))
    assert kept == ["20001.xml", "20002.xml", "20003.xml"]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        source = write_sessions(tmp_path / str(count), count, speeches=100)
        tracemalloc.start()
        whole_protocols(sorted(source.iterdir()), lambda text: None)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(30) < 1.5 * peak(3)


# Invented speeches


def test_invented_speeches_are_the_same_for_a_seed() -> None:
    first, again, other = (list(invented_speeches(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({each.session for each in first}) == SESSIONS and all(each.text and each.party for each in first)
    assert 250_000 < sum(len(each.text) for each in first) < 400_000
    assert not any(mark in each.text for each in first for mark in "{}")


def test_without_a_source_it_is_said_that_speeches_are_invented(copied: Callable[[str], Path]) -> None:
    told = Told()
    run(copied("bundestag_char"), ["prepare.size=20000"], listener=told)
    assert (
        "prepare.params.source is empty, so the speeches are invented. For real ones, name a folder of protocols."
        in told.said
    )


# What prepare(job) offers for this


def test_inputs_may_ask_for_the_folder_and_for_params(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "prepare.py").write_text(
        "def inputs(folder, *, name: str = 'a.csv'):\n    return [folder.parent / name]\n\n"
        "def documents(folder, *, name: str = 'a.csv', times: int = 3):\n"
        "    yield from (folder.parent / name).read_text().split() * times\n"
    )
    (folder / "config.toml").write_text("")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("one two three four")
    assert prepared(folder) and not prepared(folder)
    assert prepared(folder, "prepare.params.name=b.csv") and not prepared(folder, "prepare.params.name=b.csv")
    (tmp_path / "b.csv").write_text("one two three four five")
    assert prepared(folder, "prepare.params.name=b.csv")


OWN = """from core.encoders.char import CharEncoder


def prepare(job):
    job.say("hello")
    encoder = CharEncoder.fit(["abcdef"])
    used = job.write(["abc"] * 9, ["bca"], encoder=encoder)
    assert used.state() == encoder.state() or job.config.prepare.special_tokens == "chat"
"""


def test_an_encoder_of_prepare_is_used_and_something_said(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "prepare.py").write_text(OWN)
    (folder / "config.toml").write_text('[prepare]\nencoder = "bytes"\n')
    told = Told()
    dataset = run(folder, listener=told)
    assert "hello" in told.said and dataset.encoder.kind == "char" and dataset.encoder.vocab_size == 6
    assert np.array_equal(dataset.train.ids[:3], [0, 1, 2])
    chat = run(folder, ['prepare.special_tokens="chat"'])
    assert chat.encoder.vocab_size == 13 and chat.train.ids[0] == 6
