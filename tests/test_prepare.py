"""prepare: from documents, text or pairs to the files of a dataset."""

from __future__ import annotations

import pickle
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import (
    FROM_FILE,
    SMALL,
    SPACES,
    TEXT,
    content,
    error_of,
    examples_code,
    nanogpt,
    prepared,
    run,
    texts_code,
    write,
)

from core import Example
from core.data import encode
from core.data.dataset import Dataset
from core.data.text import pieces


@pytest.mark.parametrize("text", [TEXT, "añb😀c\n" * 7, "ab", "one line without an end", "win\r\ndows\r\n" * 5])
def test_a_text_file_becomes_what_nanogpt_makes_of_it(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_bytes(text.encode())
    dataset = run(folder)
    expected = nanogpt(text.replace("\r\n", "\n"))
    assert (dataset.folder / "train.bin").read_bytes() == expected["train.bin"]
    assert (dataset.folder / "val.bin").read_bytes() == expected["val.bin"]
    assert pickle.loads((dataset.folder / "meta.pkl").read_bytes()) == expected["meta.pkl"]
    assert {path.name for path in dataset.folder.iterdir()} == {"train.bin", "val.bin", "meta.pkl", "dataset.json"}


@settings(max_examples=30)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=12, max_size=200),
    kind=st.sampled_from(["char", "bytes", "words", "bpe"]),
)
def test_any_text_comes_back_from_the_bins(tmp_path_factory: pytest.TempPathFactory, text: str, kind: str) -> None:
    folder = write(tmp_path_factory.mktemp("text") / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(text, encoding="utf-8", newline="")
    if kind == "words" and not any(character.isspace() for character in text.strip()):
        return  # one word cannot be split
    dataset = run(folder, [f'prepare.encoder="{kind}"', "prepare.vocab_size=300"])
    decode = dataset.encoder.decode
    train, val = decode(dataset.train.ids.tolist()), decode(dataset.val.ids.tolist())
    if kind == "char":
        assert (train, val) == (text[: int(len(text) * 0.9)], text[int(len(text) * 0.9) :])
    else:
        assert train + val == text
    assert dataset.target_size("val", masked=True) == (dataset.val.tokens, len(val.encode()))


def test_a_long_text_has_the_ids_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "pieces", lambda texts: pieces(texts, 200))
    folder = write(tmp_path / "one", config=FROM_FILE)
    (folder / "input.txt").write_text(TEXT)
    for kind in ("char", "words", "bpe", "bytes"):
        dataset = run(folder, [f'prepare.encoder="{kind}"'])
        whole = dataset.encoder.decode(dataset.train.ids.tolist())
        assert TEXT.startswith(whole)
        assert dataset.train.ids.tolist() == dataset.encoder.encode(whole).tolist()


def test_words_are_not_cut_in_two_by_the_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE + 'encoder = "words"\n')
    (folder / "input.txt").write_text("".join(f"{number} {number + 2}\n" for number in range(1000, 1100)))
    dataset = run(folder)
    assert dataset.encoder.decode(dataset.train.ids.tolist()).endswith("1091\n")
    assert dataset.encoder.decode(dataset.val.ids[:3].tolist()) == "1090 1092\n"


def test_documents_of_text_are_one_stream_and_short_ones_stay_whole(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", texts_code([f"line {number}\n" for number in range(300)])))
    assert dataset.train.starts is None
    train, val = (dataset.encoder.decode(side.ids.tolist()) for side in (dataset.train, dataset.val))
    assert train + val == "".join(f"line {number}\n" for number in range(300))
    assert val.startswith("line ")
    assert dataset.info["split"]["overlap"] == 0
    whole = run(write(tmp_path / "two", texts_code([TEXT])))
    assert (whole.folder / "train.bin").read_bytes() == nanogpt(TEXT)["train.bin"]
    assert (whole.folder / "val.bin").read_bytes() == nanogpt(TEXT)["val.bin"]


@pytest.mark.parametrize("split", ["hash", "shuffle"])
def test_documents_of_text_can_be_split_one_by_one(tmp_path: Path, split: str) -> None:
    dataset = run(
        write(
            tmp_path / "one",
            texts_code([f"{number % 50}\n" for number in range(200)]),
            f'[prepare]\nsplit = "{split}"\n',
        )
    )
    sides = [each for each in (dataset.train, dataset.val, dataset.test) if each]
    train, val, *test = (dataset.encoder.decode(side.ids.tolist()).split() for side in sides)
    assert sorted([*train, *val, *chain(*test)]) == sorted(str(number % 50) for number in range(200))
    overlap = len(set(train) & set(val))
    assert dataset.info["split"]["overlap"] == overlap
    assert (overlap == 0) == (split == "hash") == bool(test)


def test_more_than_65535_ids_take_four_bytes(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE + 'encoder = "words"\n')
    (folder / "input.txt").write_text("".join(f"w{number}\n" for number in range(70_000)))
    dataset = run(folder)
    assert dataset.info["dtype"] == "uint32"
    assert dataset.train.ids.dtype == np.dtype("<u4")
    assert dataset.encoder.decode(dataset.val.ids[-2:].tolist()) == "w69999\n"


def test_examples_become_ids_masks_and_starts(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", SPACES, SMALL))
    seen: list[Example] = []
    for side in (dataset.train, dataset.val, dataset.test):
        assert side is not None
        assert side.starts is not None
        assert side.mask is not None
        assert side.group is not None
        for number in range(len(side.starts)):
            example = dataset.example(side, number)
            letters = example.prompt[:-2]
            assert example == Example(f"{letters}: ", " ".join(letters) + "\n", f"{len(letters)} letters")
            ids, mask = side.document(number)
            assert mask is not None
            encode_apart = np.concatenate(
                [dataset.encoder.encode(example.prompt), dataset.encoder.encode(example.completion)]
            )
            assert ids.tolist() == encode_apart.tolist()
            assert mask.tolist() == [0] * len(example.prompt) + [1] * len(example.completion)
            seen.append(example)
    assert dataset.stop == "\n"
    assert dataset.end_token is None
    assert dataset.longest_prompt == 5
    assert dataset.longest_completion == 6
    assert sorted(dataset.groups) == ["1 letters", "2 letters", "3 letters"]
    characters = sum(len(example.prompt + example.completion) for example in seen)
    assert 3000 <= characters < 3000 + 11
    assert sum(dataset.info[side]["characters"] for side in ("train", "val", "test")) == characters
    targets = sum(len(dataset.example(dataset.val, number).completion) for number in range(len(dataset.val.starts)))  # type: ignore[arg-type]
    assert dataset.target_size("val", masked=True) == (targets, targets)
    assert dataset.target_size("val", masked=False) == (dataset.val.tokens, dataset.val.tokens)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.text("ab :", min_size=1, max_size=3), st.text("ab\n", max_size=3)), min_size=2, max_size=30),
    st.sampled_from(["char", "words", "bytes"]),
)
def test_the_split_of_examples_never_leaks(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], kind: str
) -> None:
    folder = write(
        tmp_path_factory.mktemp("examples") / "one",
        examples_code(pairs),
        f'[prepare]\nencoder = "{kind}"\nval_fraction = 0.4\n',
    )
    if len({prompt for prompt, _ in pairs}) == 1:
        assert error_of(folder).message.startswith("no documents are left for val")
        return
    dataset = run(folder)
    sides = [
        [dataset.example(side, number)[:2] for number in range(len(side.starts))]  # type: ignore[arg-type]
        for side in (dataset.train, dataset.val, dataset.test)
        if side
    ]
    assert sorted(chain(*sides)) == sorted(pairs)
    prompts = [prompt for side in sides for prompt in {prompt for prompt, _ in side}]
    assert len(set(prompts)) == len(prompts)
    left = {prompt for prompt, _ in pairs} - {example.prompt for example in dataset.examples("val", 0)}
    assert (dataset.test is None) == (len(left) < 2)
    assert dataset.info["split"]["overlap"] == 0
    for side, name in ((sides[0], "train"), (sides[1], "val")):
        unique = [prompt for prompt, _, _ in dataset.examples(name, 0)]  # type: ignore[arg-type]
        assert sorted(unique) == sorted({prompt for prompt, _ in side})


def test_the_same_settings_make_the_same_files(tmp_path: Path) -> None:
    one, two = (run(write(tmp_path / name, SPACES, SMALL)) for name in ("one", "two"))
    assert content(one.folder) == content(two.folder)
    assert one.fingerprint == two.fingerprint
    other = run(tmp_path / "two", ["prepare.seed=1"])
    assert content(one.folder) != content(other.folder)
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("completions", "stop"),
    [
        (["a b\n", "b\n"], "\n"),
        (["a.", "b."], "."),
        (["a\nb\n", "c\n"], ""),
        (["a\n", "b"], ""),
        (["a", ""], ""),
        (["", ""], ""),
    ],
)
@pytest.mark.parametrize("kind", ["char", "words", "bytes", "bpe"])
def test_a_completion_ends_with_a_text_of_its_own_or_an_end_token(
    tmp_path: Path, completions: list[str], stop: str, kind: str
) -> None:
    pairs = [(f"{number}? ", completion) for number, completion in enumerate(completions * 4)]
    dataset = run(write(tmp_path / "one", examples_code(pairs), f'[prepare]\nencoder = "{kind}"\n'))
    assert dataset.stop == stop
    assert (dataset.end_token is None) == bool(stop)
    assert dataset.end_token == (None if stop else dataset.encoder.end_token)
    ids, mask = dataset.train.document(0)
    assert mask is not None
    if not stop:
        assert int(ids[-1]) == dataset.end_token
        assert int(mask[-1]) == 1
    assert sorted(example[:2] for example in everything(dataset)) == sorted(pairs)


def everything(dataset: Dataset) -> list[Example]:
    return [example for side in ("train", "val", "test") for example in dataset.examples(side, 0)]


CONVERSATIONS = """from core import Conversation, Message


def documents(rng):
    while True:
        word = "".join(rng.choices("abcd", k=3))
        yield Conversation([
            Message("system", "Be brief."), Message("user", f"Say {word}"), Message("assistant", word),
            Message("user", "Again"), Message("assistant", word),
        ])
"""


def test_conversations_learn_what_the_assistant_says(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", CONVERSATIONS, SMALL))
    ids, mask = dataset.val.document(0)
    assert mask is not None
    text = dataset.encoder.decode(ids.tolist())
    word = text.partition("Say ")[2][:3]
    assert text == f"System: Be brief.\nUser: Say {word}\nAssistant: {word}\nUser: Again\nAssistant: {word}\n"
    assert dataset.encoder.decode(ids[mask == 1].tolist()) == f"{word}\n{word}\n"
    assert dataset.stop == "\n"
    assert not dataset.has_examples
    assert dataset.examples("val", 5) == []
    assert dataset.info["kind"] == "conversations"


def test_pairs_of_a_file_become_examples(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE + 'format = "pairs"\n')
    (folder / "input.txt").write_bytes("\ufeffdrb=DRB\r\n\nabc=ABC=\n   \nxyz=XYZ".encode())
    dataset = run(folder)
    assert sorted(everything(dataset)) == [
        Example("abc=", "ABC=\n"),
        Example("drb=", "DRB\n"),
        Example("xyz=", "XYZ\n"),
    ]


def test_a_pair_without_separator_is_named_with_its_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config=FROM_FILE + 'format = "pairs"\nseparator = " -> "\n')
    (folder / "input.txt").write_text("a -> b\n\nno arrow\n")
    error = error_of(folder)
    assert error.message == 'no separator " -> " in "no arrow"'
    assert error.place == f"{folder / 'input.txt'}:3"
    assert error.remedy == "Each line is PROMPT -> COMPLETION. Set the separator with prepare.separator."
    (folder / "input.txt").write_text("\n\n")
    assert error_of(folder).message == "holds no pairs"


def test_prepare_with_an_explicit_split(tmp_path: Path) -> None:
    code = """from core import Example

def prepare(job):
    numbers = list(range(40))
    job.rng.shuffle(numbers)
    make = lambda part: (Example(f"{n}+1=", f"{n + 1}\\n") for n in part)
    job.write(make(numbers[:30]), make(numbers[30:]))
"""
    folder = write(tmp_path / "one", code)
    dataset = run(folder)
    assert len(dataset.examples("train", 0)) == 30
    assert len(dataset.examples("val", 0)) == 10
    assert dataset.info["split"] == {"kind": "prepare", "overlap": 0}
    assert dataset.stop == "\n"
    assert not prepared(folder)


def test_prepare_that_writes_the_files_itself(tmp_path: Path) -> None:
    code = """import pickle
import numpy as np

def prepare(job, *, text: str = "abc"):
    characters = sorted(set(text))
    ids = np.array([characters.index(c) for c in text * 20], dtype=np.uint16)
    ids[:50].tofile(job.dataset_dir / "train.bin")
    ids[50:].tofile(job.dataset_dir / "val.bin")
    (job.dataset_dir / "notes").mkdir()
    (job.dataset_dir / "notes" / "how.txt").write_text(job.folder.name + str(job.config.prepare.seed))
    with (job.dataset_dir / "meta.pkl").open("wb") as file:
        pickle.dump({"vocab_size": 3, "itos": dict(enumerate(characters)), "stoi": {c: i for i, c in enumerate(characters)}}, file)
"""
    folder = write(tmp_path / "one", code, "[prepare.params]\ntext = 'xyz'\n")
    dataset = run(folder)
    assert dataset.owned
    assert dataset.encoder.decode(dataset.train.ids[:4].tolist()) == "xyzx"
    assert (dataset.folder / "notes" / "how.txt").read_text() == "one1337"
    assert not prepared(folder)
    assert prepared(folder, "prepare.params.text='uvw'")  # its own extra files are replaced, too


def test_prepare_that_leaves_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", "def prepare(job):\n    pass\n")
    assert error_of(folder).message == "there is no train.bin"
    assert error_of(write(tmp_path / "two", "def prepare(task):\n    pass\n")).message.startswith(
        "prepare() has a positional parameter 'task'"
    )
