"""The experiments with speeches: overlapping n-grams, cl100k_base, tables of speeches, data for finetuning."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import Told, error_of, prepared, run
from protocols import EXPERIMENTS, SIDES, all_text, copied_experiment, text_of, write_sessions

from core.corpora.invented import invented_speeches
from core.data.dataset import Dataset
from core.encoders.bpe import BpeEncoder
from core.errors import UserError


def part(experiment: str, name: str) -> ModuleType:
    """A module of an experiment's folder that imports nothing beside it."""
    spec = importlib.util.spec_from_file_location(f"{experiment}_{name}", EXPERIMENTS / experiment / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Copy the source files of a shipped experiment."""
    return lambda name: copied_experiment(name, tmp_path)


# Overlapping n-grams

NGRAMS = part("bundestag_char", "ngrams").CharNgramEncoder


@settings(max_examples=100)
@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4), st.sampled_from([2, 3]), st.data())
def test_ngrams_lose_nothing(texts: list[str], size: int, data: st.DataObject) -> None:
    """Any text over the same characters comes back, also in pieces, and each character has one id."""
    encoder = NGRAMS.fit(texts, ngram_size=size)
    other = data.draw(st.text(st.sampled_from(sorted(set("".join(texts)))), max_size=30))
    cut = data.draw(st.integers(0, len(other)))
    for text in (*texts, other):
        ids = encoder.encode(text)
        assert encoder.decode(ids.tolist()) == text and len(ids) == len(text)
        assert max(ids, default=0) < encoder.vocab_size
    pieces = [*encoder.encode(other[:cut]).tolist(), *encoder.encode(other[cut:]).tolist()]
    assert encoder.decode(pieces) == other
    again = NGRAMS.from_state(json.loads(json.dumps(encoder.state())))
    assert again.encode(other).tolist() == encoder.encode(other).tolist()


def test_ngrams_by_hand() -> None:
    encoder = NGRAMS.fit(["abab", "ca"], ngram_size=2)
    assert encoder.entries == ["a", "b", "c", "ab", "ba", "ca"]
    assert encoder.encode("abc").tolist() == [0, 3, 2]  # "bc" is not known, so "c" alone
    assert encoder.decode([3, 3, 5]) == "bba"  # ids that do not overlap have a text, too
    with pytest.raises(UserError, match="character 'z' at line 1, column 2 is not in the vocabulary"):
        encoder.encode("az")
    with pytest.raises(UserError, match="this is not the state of a 'char_ngram' encoder"):
        NGRAMS.from_state({"itos": []})


def test_ngrams_of_an_experiment(copied: Callable[[str], Path]) -> None:
    folder = copied("bundestag_char")
    single = run(folder, ["prepare.size=20000"])
    texts = [text_of(single, side) for side in SIDES]
    pairs = run(folder, ["prepare.size=20000", "prepare.params.ngram_size=2"])
    assert [text_of(pairs, side) for side in SIDES] == texts
    assert pairs.train.tokens == single.train.tokens and pairs.encoder.vocab_size > 3 * single.encoder.vocab_size
    assert pairs.target_size("val", masked=False) == single.target_size(
        "val", masked=False
    )  # so bits per byte can be compared
    error = error_of(folder, "prepare.params.ngram_size=4")
    assert (error.message, error.place, error.remedy) == (
        "ngram_size = 4 is not possible", "prepare.params.ngram_size", "Choose 1 for characters, or 2 or 3.",
    )  # fmt: skip


# cl100k_base

CL100K = part("bundestag_tiktoken", "cl100k")
GERMAN = "Liebe Kolleginnen und Kollegen! Das kostet 90 000 Taler im Jahr, 1234567 Taler.\r\n\r\n  Wir'll SEE, it's 'S GUT…\tso\n \n Ende  "


def ranks_file(folder: Path) -> Path:
    """A file as tiktoken's, of a small vocabulary: bytes in GPT-2's order, then the merges that were learnt from some text."""
    import base64

    learnt = BpeEncoder.fit([each.text for each in invented_speeches(1)][:60], vocab_size=700, split_pattern="gpt4")
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(learnt.bytes[:-1])]
    path = folder / "small.tiktoken"
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranks_file(tmp_path_factory.mktemp("ranks"))


def test_ids_are_those_of_tiktoken(ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pattern of cl100k_base, and the ranks of a small file in place of its own."""
    tiktoken = pytest.importorskip("tiktoken", reason="the package tiktoken is not installed")
    from tiktoken.load import load_tiktoken_bpe
    from tiktoken_ext import openai_public

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda address, **options: load_tiktoken_bpe(str(ranks)))
    description = openai_public.cl100k_base()
    theirs = tiktoken.Encoding(
        "small", pat_str=description["pat_str"], mergeable_ranks=description["mergeable_ranks"], special_tokens={}
    )
    ours = CL100K.encoder_of(ranks)
    texts = [
        GERMAN,
        *(each.text for each in list(invented_speeches(3))[:40]),
        "",
        "\n\n\n",
        "äöü\U0001f9a9",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
    ]
    for text in texts:
        assert ours.encode(text).tolist() == theirs.encode_ordinary(text), text
        assert ours.decode(ours.encode(text).tolist()) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "is no token with rank 0"),
        (lambda lines: [*lines[:300], b"!!! 300\n", *lines[301:]], "'!!! 300' is no token with rank 300"),
        (lambda lines: [*lines[:300], lines[300].split()[0] + b"\n", *lines[301:]], "is no token with rank 300"),
        (
            lambda lines: [lines[1].split()[0] + b" 0\n", lines[0].split()[0] + b" 1\n", *lines[2:]],
            "its first 256 tokens are not the bytes in GPT-2's order",
        ),
        (
            lambda lines: [*lines[:256], b"YWJjZGVm 256\n"],
            "token 256, b'abcdef', is not made of two tokens with lower ranks",
        ),
    ],
)
def test_a_damaged_file_of_ranks_is_refused(
    ranks: Path, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    path = tmp_path / "damaged.tiktoken"
    path.write_bytes(b"".join(change(ranks.read_bytes().splitlines(keepends=True))))
    with pytest.raises(UserError) as error:
        CL100K.encoder_of(path)
    assert message in error.value.message and error.value.place.startswith(str(path)) and error.value.remedy


def test_which_vocabulary_is_used_is_said(
    copied: Callable[[str], Path], ranks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("bundestag_tiktoken")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    (tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_bytes(
        ranks.read_bytes()
    )  # its name, but not its content
    learnt = "A vocabulary (bpe) is learnt from the speeches."

    def said(*more: str) -> tuple[str, int]:
        told = Told()
        dataset = run(folder, ["prepare.size=20000", "prepare.vocab_size=300", *more], listener=told)
        return "\n".join(told.said), dataset.encoder.vocab_size

    text, ids = said()
    assert f"cl100k_base is not used: it is not here. {learnt}" in text and ids == 300
    text, ids = said("prepare.params.own=true")
    assert f"cl100k_base is not used: as asked. {learnt}" in text and ids == 300
    text, ids = said(f"prepare.params.cl100k={ranks}")
    assert f"The vocabulary is cl100k_base: {ranks}" in text and ids == 700


def test_tiktokens_own_copy_is_found(ranks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.files import sha256

    module = part("bundestag_tiktoken", "cl100k")
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    assert module.cl100k_file("", Path) is None
    copy = tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    copy.write_bytes(ranks.read_bytes())
    assert module.cl100k_file("", Path) is None
    monkeypatch.setattr(module, "SHA256", sha256(ranks))
    assert module.cl100k_file("", Path) == copy
    assert module.cl100k_file("given", Path) == Path("given")


# Tables of speeches

SPEECHES = """Period,Session,MPID,Party,Date,Chair,Interjection,SpeechContent,Topic
20,1,11001,['SPD'],2022-01-12,False,False,"Guten Tag.

Zweiter Absatz.",Brücken
20,1,11002.0,"['CDU', 'CSU']",2022-01-12,False,False,Ich sage auch etwas.,
20,1,11001,['SPD'],2022-01-12,True,False,Die Sitzung ist eröffnet.,
20,1,11001,['SPD'],2022-01-12,False,True,Oh!,
20,2,11003,,12.01.2023,False,False,Rede in Sitzung zwei.,
20,3,11001,broken [,2024,False,False,Rede in Sitzung drei.,
20,3,11001,['SPD'],2024,False,False,,
"""
MEMBERS = (
    "MPID,Name,Party\n11001,Ada Amsel,SPD\n11002,Bea Bach,CDU/CSU\n11003.0,Cem Celik,FDP\n11001,Zweite Zeile,AfD\n"
)


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """Settings that name a table of speeches and one of members."""
    (tmp_path / "Bundestag.csv").write_text(SPEECHES, encoding="utf-8")
    (tmp_path / "members.csv").write_text(MEMBERS, encoding="utf-8")
    return [
        f"prepare.params.source={tmp_path / 'Bundestag.csv'}",
        f"prepare.params.metadata={tmp_path / 'members.csv'}",
        "prepare.encoder=char",
    ]


def documents_of(dataset: Dataset) -> dict[str, str]:
    """Each speech of a dataset by its text, with its header, and the side in front."""
    found = {}
    for side in SIDES:
        for header, text in re.findall(
            r"(Sprecher: .*\nPartei: .*\nJahr: .*\nThema: .*)\n\n((?:.+\n)+)\n", text_of(dataset, side)
        ):
            found[text.strip()] = f"{side}\n{header}"
    return found


def test_a_table_is_joined_with_its_members(copied: Callable[[str], Path], tables: list[str]) -> None:
    told = Told()
    found = documents_of(run(copied("speakger"), tables, listener=told))
    headers = {text: header.partition("\n")[2].splitlines() for text, header in found.items()}
    assert headers == {
        "Guten Tag.\nZweiter Absatz.": ["Sprecher: Ada Amsel", "Partei: SPD", "Jahr: 2022", "Thema: Brücken"],
        "Ich sage auch etwas.": ["Sprecher: Bea Bach", "Partei: CDU/CSU", "Jahr: 2022", "Thema: unbekannt"],
        "Rede in Sitzung zwei.": ["Sprecher: Cem Celik", "Partei: FDP", "Jahr: 2023", "Thema: unbekannt"],
        "Rede in Sitzung drei.": ["Sprecher: Ada Amsel", "Partei: broken [", "Jahr: 2024", "Thema: unbekannt"],
    }
    assert (
        found["Guten Tag.\nZweiter Absatz."][:4] == found["Ich sage auch etwas."][:4]
    )  # of one session, so on one side
    assert "4 speeches in 3 sessions; 3 rows are left out (empty, chair or interjection)" in told.said


def test_chair_and_interjections_are_options(copied: Callable[[str], Path], tables: list[str]) -> None:
    found = documents_of(
        run(copied("speakger"), [*tables, "prepare.params.chair=true", "prepare.params.interjections=true"])
    )
    assert {"Die Sitzung ist eröffnet.", "Oh!"} <= found.keys() and len(found) == 6


@pytest.mark.parametrize(
    ("more", "message", "place", "remedy"),
    [
        ("prepare.params.columns={speech='x'}", "unknown key 'prepare.params.columns.speech'", "prepare.params.columns.speech", "The keys are text, id"),
        ("prepare.params.columns={text='Rede'}", "no column is called 'Rede'", "prepare.params.columns.text", "Bundestag.csv has Period, Session"),
        ("prepare.params.columns={session='Chair', term='Interjection'}", "the tables have 2 sessions", "", ""),
    ],
)  # fmt: skip
def test_columns_that_are_not_there(
    copied: Callable[[str], Path], tables: list[str], more: str, message: str, place: str, remedy: str
) -> None:
    if "2 sessions" in message:  # two are enough
        assert run(copied("speakger"), [*tables, "prepare.params.chair=true", more]).train.tokens
        return
    error = error_of(copied("speakger"), *tables, more)
    assert (error.message, error.place) == (message, place) and remedy in error.remedy


def test_tables_without_speeches_sessions_or_numbers(
    copied: Callable[[str], Path], tables: list[str], tmp_path: Path
) -> None:
    folder = copied("speakger")
    (tmp_path / "Bundestag.csv").write_text("A,B\n1,2\n")
    error = error_of(folder, *tables)
    assert (
        error.message == "no column holds speeches: they are A, B"
        and error.remedy == "Name it: prepare.params.columns={text='NAME'}"
    )
    (tmp_path / "Bundestag.csv").write_text("SpeechContent,Date\nHallo.,2020-01-01\nUnd?,2020-01-01\n")
    error = error_of(folder, *tables)
    assert (
        error.message == "the tables have 1 session, and sides are made of whole sessions"
        and error.place == "prepare.params.source"
    )
    (tmp_path / "members.csv").write_text("Number,Name\n1,Ada\n")
    error = error_of(folder, *tables)
    assert error.message == "has no column MPID: they are Number, Name" and error.place == str(tmp_path / "members.csv")


def test_the_number_of_members_may_be_called_otherwise(
    copied: Callable[[str], Path], tables: list[str], tmp_path: Path
) -> None:
    """The remedy of the message works as it stands, where only the members' table has that column."""
    folder = copied("speakger")
    (tmp_path / "members.csv").write_text(MEMBERS.replace("MPID,Name,Party", "Number,Mensch,Gruppe"))
    error = error_of(folder, *tables)
    assert error.remedy == "Name it: prepare.params.columns={id='NAME'}"
    named = "prepare.params.columns={id='Number', speaker='Mensch', party='Gruppe'}"
    found = documents_of(run(folder, [*tables, named]))
    assert "Sprecher: Cem Celik\nPartei: FDP" in found["Rede in Sitzung zwei."]
    error = error_of(folder, *tables, "prepare.params.columns={id='Number', speaker='Nobody'}")
    assert error.place == "prepare.params.columns.speaker" and error.message == "no column is called 'Nobody'"


def test_a_missing_table_of_members_is_told_at_its_own_key(copied: Callable[[str], Path], tables: list[str]) -> None:
    error = error_of(copied("speakger"), tables[0], "prepare.params.metadata=nowhere.csv")
    assert error.place == "prepare.params.metadata" and error.message == "metadata = 'nowhere.csv' names no file"


def test_one_speech_is_no_speeches(copied: Callable[[str], Path], tables: list[str], tmp_path: Path) -> None:
    told = Told()
    (tmp_path / "Bundestag.csv").write_text("SpeechContent,Date\nHallo.,2020-01-01\n,2020-01-01\n")
    with pytest.raises(UserError, match="the tables have 1 session, and"):
        run(copied("speakger"), tables, listener=told)
    assert "1 speech in 1 session; 1 row is left out (empty, chair or interjection)" in told.said


def test_a_named_column_is_read(copied: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "Wann;Rede;Wer\n2020-01-01;Eins.;Ada\n2021-01-01;Zwei.;Bea\n2022-01-01;Drei.;Cem\n"
    )
    own = [
        f"prepare.params.source={tmp_path / 'own.csv'}",
        "prepare.params.columns={text='Rede', date='Wann', speaker='Wer'}",
        "prepare.encoder=char",
    ]
    found = documents_of(run(copied("speakger"), own))
    assert "Sprecher: Bea\nPartei: unbekannt\nJahr: 2021\nThema: unbekannt" in found["Zwei."]


def test_protocols_serve_as_a_table(copied: Callable[[str], Path], tmp_path: Path) -> None:
    source = write_sessions(tmp_path / "raw", 3)
    dataset = run(copied("speakger"), [f"prepare.params.source={source}", "prepare.encoder=char"])
    assert "Sprecher: Ada Amsel101\nPartei: SPD\nJahr: 2023\nThema: unbekannt\n\nLiebe" in all_text(dataset)


def test_a_sample_is_analysed() -> None:
    layout = part("speakger", "layout")
    good = "Sprecher: Ada\nPartei: SPD\nJahr: 2020\nThema: unbekannt\n\nEins zwei drei vier.\nEins zwei drei vier.\n"
    found = layout.analysed(good)
    assert found["header"] == {
        "Sprecher": "Ada",
        "Partei": "SPD",
        "Jahr": "2020",
        "Thema": "unbekannt",
        "complete": True,
    }
    assert found["lines"] == {"count": 2, "repeated": 1, "mean_length": 20.0}
    assert found["ngrams"] == {"size": 4, "count": 5, "different": 4, "most_frequent": [["Eins zwei drei vier.", 2]]}
    assert found["anomalies"] == {}
    bad = "Sprecher: Ada\nJahr: 2020\n\n" + "x" * 41 + " und und \ufffd\x07\nPartei: SPD"
    found = layout.analysed(bad)
    assert found["header"] == {"Sprecher": "Ada", "Partei": None, "Jahr": "2020", "Thema": None, "complete": False}
    assert found["anomalies"] == {
        "control_characters": 1, "broken_characters": 1, "long_words": 1, "words_twice_in_a_row": 1, "header_lines_in_the_text": 1,
    }  # fmt: skip
    assert layout.analysed("Sprecher: ")["anomalies"] == {"no_text": 1}
    assert layout.shares([layout.analysed(good), layout.analysed(bad)]) == {
        "header_complete": 0.5, "lines_repeated": pytest.approx(1 / 4), "ngrams_repeated": pytest.approx(1 - 7 / 8), "samples_with_anomalies": 0.5,
    }  # fmt: skip


# Data for finetuning


def rows_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_finetuning_data_is_there_for_other_programs(copied: Callable[[str], Path], tmp_path: Path) -> None:
    """The lines are the dataset's text, and the tokenizer gives its ids."""
    from tokenizers import Tokenizer

    source = write_sessions(tmp_path / "raw", 6)
    folder = copied("bundestag_finetuning_mps")
    dataset = run(folder, [f"prepare.params.source={source}", "prepare.vocab_size=300"])
    assert {path.name for path in dataset.folder.iterdir()} >= {"train.jsonl", "val.jsonl", "test.jsonl", "tokenizer"}
    for side in SIDES:
        rows = rows_of(dataset.folder / f"{side}.jsonl")
        assert "".join(rows) == text_of(dataset, side)
        assert all(
            row.startswith("<SPEECH_START><SPEAKER>Ada Amsel") and row.endswith("\n<SPEECH_END>\n\n") for row in rows
        )
    tokenizer = Tokenizer.from_file(str(dataset.folder / "tokenizer" / "tokenizer.json"))
    text = text_of(dataset, "val")
    assert (
        tokenizer.encode(text).ids == dataset.encoder.encode(text).tolist()
        and tokenizer.decode(tokenizer.encode(text).ids) == text
    )
    assert not prepared(folder, f"prepare.params.source={source}", "prepare.vocab_size=300")


def test_without_marks_and_with_another_separator(copied: Callable[[str], Path], tmp_path: Path) -> None:
    source = write_sessions(tmp_path / "raw", 3)
    told = Told()
    settings = [
        f"prepare.params.source={source}",
        "prepare.params.add_structure_tokens=false",
        "prepare.params.doc_separator=' <DOC_SEP> '",
        "prepare.encoder=char",
    ]
    dataset = run(copied("bundestag_finetuning_mps"), settings, listener=told)
    rows = rows_of(dataset.folder / "train.jsonl")
    assert all(row.startswith("Ada Amsel") and row.endswith(". <DOC_SEP> ") for row in rows)
    assert not (dataset.folder / "tokenizer").exists()
    assert "tokenizer/ is not written: char has no tokenizer.json. Encoders bpe and hf have one." in told.said


def test_raw_text_files(copied: Callable[[str], Path], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "below").mkdir(parents=True)
    for number in range(8):
        (raw / "below" / f"{number}.txt").write_text(
            f"Text {number}: äöü.\n\nNoch ein Absatz {number}.\n", encoding="utf-8"
        )
    (raw / "bad.txt").write_bytes(b"caf\xe9")
    (raw / "empty.txt").write_text(" \n")
    told = Told()
    dataset = run(
        copied("bundestag_finetuning_mps"), [f"prepare.params.source={raw}", "prepare.vocab_size=300"], listener=told
    )
    sides = {side: rows_of(dataset.folder / f"{side}.jsonl") for side in SIDES}
    assert sorted(row for rows in sides.values() for row in rows) == [
        f"<SPEECH_START><SPEAKER>Unknown</SPEAKER>\nText {number}: äöü.\n\nNoch ein Absatz {number}.\n<SPEECH_END>\n\n"
        for number in range(8)
    ]
    said = "\n".join(told.said)
    assert (
        f"{raw / 'bad.txt'} is left out: not UTF-8 text" in said
        and f"{raw / 'empty.txt'} is left out: it is empty" in said
    )
    assert "2 of 10 files are left out; 8 texts are read" in said


def test_a_single_text_file_is_cut_at_blank_lines(copied: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("\n\n".join(f"Absatz {number}." for number in range(20)))
    folder, setting = copied("bundestag_finetuning_mps"), f"prepare.params.source={path}"
    dataset = run(folder, [setting, "prepare.params.add_structure_tokens=false"])
    rows = [rows_of(dataset.folder / f"{side}.jsonl") for side in SIDES]
    assert [row.strip() for side in rows for row in side] == [f"Absatz {number}." for number in range(20)]
    assert [len(side) for side in rows] == [16, 2, 2]
    path.write_text("Nur einer.")
    error = error_of(folder, setting)
    assert (error.message, error.place) == ("one file with 1 paragraph cannot be divided", str(path))
    path.write_bytes(b"\xff\xfe\xfa")
    error = error_of(folder, setting)
    assert (error.message, error.place) == ("no text file could be read", "prepare.params.source")


def test_samples_of_a_run_are_kept_with_their_analysis(
    lab: Path, terrarium: Callable[..., Result], tmp_path: Path
) -> None:
    """The variant `small` of speakger, on protocols, with less of everything."""
    source = write_sessions(tmp_path / "raw", 8, speeches=20)
    assert terrarium("new", "tiny", "--from", str(EXPERIMENTS / "speakger")).exit_code == 0
    settings = [
        "n_layer=1",
        "n_head=2",
        "n_embd=16",
        "train.model.block_size=32",
        "batch_size=4",
        "max_iters=2",
        "prepare.vocab_size=300",
        "sample.sample.max_new_tokens=20",
    ]
    result = terrarium(
        "loop",
        "tiny",
        "--variant",
        "small",
        f"prepare.params.source={source}",
        "train.runtime.max_minutes=0.005",
        *settings,
    )
    assert result.exit_code == 0, result.output
    run_folder = lab / "tiny" / "out" / "small"
    summary: dict[str, Any] = json.loads((run_folder / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["side"] == "test" and summary["bits_per_byte"] > 0
    samples = json.loads((run_folder / "samples" / "sample_best.json").read_text())
    assert len(samples) == 8 and samples[0]["analysis"].keys() == {"header", "lines", "ngrams", "anomalies"}
    assert json.loads((run_folder / "evaluation.json").read_text()).keys() >= {
        "header_complete",
        "samples_with_anomalies",
    }
