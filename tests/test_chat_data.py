"""Datasets of conversations: masks, sides, rows that always have a target, stages, and what `check` shows."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import Told, error_of, prepared, run, write

from core import Conversation, Message, open_experiment
from core.chat.conversation import SPECIAL
from core.chat.render import render, render_prompt, spelled
from core.cli import conversation as shown
from core.config import Data
from core.data.batches import NO_TARGET, batch, layout_of, validation_rows
from core.data.dataset import Dataset, Split, load_dataset
from core.encoders.special import special_ids
from core.errors import UserError

Terrarium = Callable[..., Result]
CODE = """from core import Conversation, Example, Message


def documents(rng):
    while True:
        a, b = rng.randrange(30), rng.randrange(30)
        yield Conversation([
            Message("system", "Be brief."),
            Message("user", f"{a}*{b}?"),
            Message("assistant", "Hm. ", call=f"calculator {a}*{b}"),
            Message("tool", f"={a * b}"),
            Message("assistant", f"It is {a * b}."),
        ], group="times" if a % 2 else None)


def facts(rng):
    while True:
        yield f"{rng.randrange(999)}*=? Hm. It is.\\n"


def questions(rng):
    while True:
        a, b = rng.randrange(30), rng.randrange(30)
        yield Example(f"{a}*{b}?", f"{a * b}\\n")


def talks(rng):
    while True:
        a, b = rng.randrange(30), rng.randrange(30)
        yield Conversation([Message("user", f"{a}*{b}?"), Message("assistant", f"{a * b}")])
"""
CHAT = '[prepare]\nsize = 20000\nspecial_tokens = "chat"\n'
STAGES = """
[[stages]]
name = "base"
prepare.documents = "facts"

[[stages]]
name = "mid"
prepare.documents = "questions"

[[stages]]
name = "chat"
prepare.documents = "talks"
"""


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run(write(tmp_path_factory.mktemp("talk"), CODE, CHAT))


def texts(dataset: Dataset, split: Split, number: int, *, learnt: bool) -> str:
    """The learnt part of a document, or the part that is only read."""
    ids, mask = split.document(number)
    assert mask is not None
    pieces = spelled(ids.tolist(), (mask != 0).tolist(), dataset.encoder)
    return "".join([piece.text for piece in pieces if piece.learnt == learnt])


def test_a_dataset_holds_what_rendering_gives(talk: Dataset) -> None:
    ids, mask = talk.train.document(0)
    a, _, b = texts(talk, talk.train, 0, learnt=False).partition("<|user|>")[2].partition("?")[0].partition("*")
    expected = render(
        Conversation([
            Message("system", "Be brief."), Message("user", f"{a}*{b}?"), Message("assistant", "Hm. ", f"calculator {a}*{b}"),
            Message("tool", f"={int(a) * int(b)}"), Message("assistant", f"It is {int(a) * int(b)}."),
        ]), talk.encoder,
    )  # fmt: skip
    assert np.array_equal(ids, expected.ids)
    assert mask is not None
    assert np.array_equal(mask != 0, expected.learnt)


def test_the_mask_of_every_role(talk: Dataset) -> None:
    """On the disk: the assistant's text, calls and ends are learnt; system, user and results are not."""
    for split in (talk.train, talk.val, talk.test):
        assert split is not None
        for number in range(5):
            assert split.starts is not None
            learnt, read = (texts(talk, split, number, learnt=which) for which in (True, False))
            assert learnt.startswith("Hm. <|tool|>calculator ")
            assert learnt.count("<|end|>") == 2
            assert learnt.endswith(".<|end|>")
            assert "It is " in learnt
            assert read.startswith("<|bos|><|system|>Be brief.<|end|><|user|>")
            assert read.count("<|end|>") == 3  # of the system, the user and the result
            assert "<|result|>=" in read
            assert read.count("<|assistant|>") == 2
            assert "<|assistant|>" not in learnt
            assert "=" not in learnt
            assert "?" not in learnt


def test_what_is_recorded_of_a_dataset(talk: Dataset) -> None:
    assert talk.info["kind"] == "conversations"
    assert talk.stop == ""
    assert talk.end_token == talk.encoder.end_token == special_ids(talk.encoder)["<|end|>"]
    assert talk.info["encoder"]["special_tokens"] == list(SPECIAL)
    counts = talk.info["train"]
    assert talk.train.mask is not None
    assert counts["target_tokens"] == int(talk.train.mask.sum())
    lengths = np.diff(np.append(talk.train.starts, talk.train.tokens))  # type: ignore[arg-type]
    assert counts["longest_prompt"] < lengths.max() <= counts["longest_prompt"] + counts["longest_completion"]
    meta = pickle.loads((talk.folder / "meta.pkl").read_bytes())
    assert meta["vocab_size"] == talk.encoder.vocab_size
    assert [meta["itos"][number] for number in range(meta["vocab_size"] - 7, meta["vocab_size"])] == list(SPECIAL)
    assert load_dataset(talk.folder).data_hash == talk.data_hash


@pytest.mark.parametrize("kind", ["words", "bytes", "bpe"])
def test_other_encoders_reserve_them_too(kind: str, tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", CODE, f'{CHAT}encoder = "{kind}"\nvocab_size = 300\n'))
    assert dataset.encoder.kind == kind
    assert dataset.train.whole
    if kind == "bpe":
        assert dataset.encoder.vocab_size <= 300
    assert texts(dataset, dataset.train, 0, learnt=True).startswith("Hm. <|tool|>calculator ")


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", CODE, f'{CHAT}encoder = "bpe"\nvocab_size = 260\n')
    error = error_of(folder)
    assert error.message == "vocab_size = 260 leaves 253 ids beside the 7 special tokens, too few for text"
    assert error.place == f"{folder / 'config.toml'}:5"
    assert error.remedy == "Use 264 or more."


def test_special_tokens_change_nothing_where_they_are_not_asked_for(tmp_path: Path) -> None:
    """A dataset without the key is current with its default, and its conversations are text, as before."""
    folder = write(tmp_path / "one", CODE, '[prepare]\nsize = 2000\ndocuments = "talks"\n')
    dataset = run(folder)
    assert "special_tokens" not in dataset.info["encoder"]
    assert not dataset.train.whole
    assert dataset.encoder.decode(dataset.train.document(0)[0].tolist()).startswith("User: ")
    assert not prepared(folder, "prepare.special_tokens=none", "prepare.max_tokens=0")
    assert prepared(folder, "prepare.special_tokens=chat")


def test_an_example_and_a_conversation_with_one_question_stand_on_one_side(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", CODE, CHAT)
    asked = run(folder, ["prepare.documents=questions", "prepare.dataset_dir=datasets/a"])
    talked = run(folder, ["prepare.documents=talks", "prepare.dataset_dir=datasets/b"])

    def questions(dataset: Dataset, side: str) -> set[str]:
        found = dataset.questions(side, 0, graded=False)  # type: ignore[arg-type]
        return {example.prompt.removeprefix("<|bos|><|user|>").partition("?")[0] for example in found}

    for side, others in (("val", ("train", "test")), ("test", ("train", "val")), ("train", ("val", "test"))):
        assert questions(asked, side)
        assert not any(questions(asked, side) & questions(talked, other) for other in others)


def test_conversations_with_a_group_have_one_right_answer(talk: Dataset) -> None:
    assert talk.has_examples
    assert talk.groups == ["times"]
    examples = talk.examples("val", 0)
    everything = talk.questions("val", 0, graded=False)
    assert 0 < len(examples) < len(everything)
    for example in examples:
        assert example.group == "times"
        assert example.prompt.endswith("<|end|><|assistant|>")
        a, _, b = example.prompt.partition("<|user|>")[2].partition("?")[0].partition("*")
        assert example.completion == f"It is {int(a) * int(b)}."
        assert example.prompt.ids[-1] == special_ids(talk.encoder)["<|assistant|>"]  # type: ignore[attr-defined]


def test_conversations_without_a_group_are_not_asked(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", CODE, CHAT), ["prepare.documents=talks"])
    assert not dataset.has_examples
    assert dataset.examples("val", 5) == []
    question = dataset.questions("val", 1, graded=False)[0]
    prompt = render_prompt(
        Conversation([Message("user", question.prompt[len("<|bos|><|user|>") : -len("<|end|><|assistant|>")])]),
        dataset.encoder,
    )
    assert question.prompt.ids == tuple(prompt.tolist())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("yield Conversation([Message('user', 'a')])", "the assistant says nothing in this conversation, so there is nothing to learn"),
        ("yield Conversation([Message('user', '')])", "turn 1: the user says nothing"),
        ("yield Conversation([('user', 'a')])", "not a message: ('user', 'a')"),
        ("yield Conversation([Message('user', 1)])", "not a message: Message(role='user', content=1, call='')"),
        ("yield Conversation('hello')", "messages is str: 'hello'"),
        ("yield Conversation([Message('user', 'a'), Message('assistant', 'b')], group=3)", "group is int, not str: 3"),
        ("yield Conversation([Message('user', 'a'), Message('assistant', 'b'), Message('user', 'c')], group='g')", "a conversation with a group does not end with a turn of the assistant"),
    ],
)  # fmt: skip
def test_a_wrong_conversation_is_named(body: str, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", f"from core import Conversation, Message\n\ndef documents():\n    {body}\n", CHAT)
    error = error_of(folder)
    assert error.message == message
    assert error.place == "document 1 of documents()"


def test_tools_need_special_tokens(tmp_path: Path) -> None:
    error = error_of(write(tmp_path / "one", CODE, "[prepare]\nsize = 2000\n"))
    assert error.message == "tools need special tokens, and this encoder has none"
    assert error.remedy == 'Set prepare.special_tokens = "chat".'


LONG = """from core import Conversation, Message

def documents():
    for number in range(40):
        turns = []
        for turn in range(4):
            turns += [Message("user", f"{number:02} {turn}"), Message("assistant", "ok" * {width})]
        yield Conversation(turns)
"""


def test_of_long_conversations_the_oldest_turns_are_left_out(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "one", LONG.replace("{width}", "1"), '[prepare]\nspecial_tokens = "chat"\nmax_tokens = 30\n'
    )
    told = Told()
    dataset = run(folder, listener=told)
    lengths = np.diff(np.append(dataset.train.starts, dataset.train.tokens))  # type: ignore[arg-type]
    assert set(lengths.tolist()) == {1 + 2 * 10}
    assert "0 2<|end|>" in texts(dataset, dataset.train, 0, learnt=False)
    left = [text for text in told.said if "oldest turns" in text]
    assert len(left) == 3
    count = len(dataset.train.starts)  # type: ignore[arg-type]
    assert left[0] == (
        f"documents(), train side: {count} conversations have more than 30 tokens (prepare.max_tokens), so the oldest turns are left out."
    )


def test_conversations_whose_last_turns_are_too_long_are_left_out_and_told(tmp_path: Path) -> None:
    code = LONG.replace('"ok" * {width}', '"ok" * (20 if number % 5 == 0 else 1)')
    folder = write(tmp_path / "one", code, '[prepare]\nspecial_tokens = "chat"\nmax_tokens = 30\n')
    told = Told()
    dataset = run(folder, listener=told)
    out = [line for line in told.said if "last turns alone" in line]
    assert out and out[0].endswith(
        "conversations are left out, because the last turns alone have more than 30 tokens (prepare.max_tokens)."
    )
    for side in (dataset.train, dataset.val):
        assert side.starts is not None
        prompts = np.fromfile(dataset.folder / f"{side.path.stem}.prompts.bin", "<u8")
        assert prompts.tolist() == list(
            range(len(side.starts))
        )  # all are different, and numbers of those that are there
        assert all(texts(dataset, side, number, learnt=True) == "ok<|end|>" * 2 for number in range(len(side.starts)))


def test_where_no_last_turns_fit_it_is_an_error(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "one", LONG.replace("{width}", "20"), '[prepare]\nspecial_tokens = "chat"\nmax_tokens = 30\n'
    )
    error = error_of(folder)
    assert error.message == "the last turns of a conversation have 49 tokens, more than 30: '00 3'"
    assert error.place == "documents(), train side"
    assert error.remedy == "Leave it out, or make its turns shorter."


def test_conversations_of_a_table(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "call": "now"},
             {"role": "tool", "content": "b"}, {"role": "assistant", "content": "c"}]  # fmt: skip
    folder = write(tmp_path / "one", "", '[prepare]\ninput = "t.jsonl"\nformat = "jsonl"\nspecial_tokens = "chat"\n')
    others = [{**turns[0], "content": "aa"}, *turns[1:]]
    (folder / "t.jsonl").write_text(
        "".join(json.dumps({"messages": each}) + "\n" for each in (turns, others) for _ in range(3))
    )
    dataset = run(folder)
    assert texts(dataset, dataset.train, 0, learnt=True) == "<|tool|>now<|end|>c<|end|>"


# Rows


def side(conversations: list[list[tuple[int, int]]]) -> Split:
    """A side of conversations, each a list of exchanges of so many tokens read and learnt. Token n has the id n."""
    learnt = [[0, *(bit for read, said in one for bit in [0] * read + [1] * said)] for one in conversations]
    starts = np.cumsum([0, *(len(one) for one in learnt[:-1])]).astype(np.uint64)
    mask = np.concatenate(learnt).astype(np.uint8)
    return Split(Path("train.bin"), np.arange(len(mask), dtype=np.uint32), mask, starts, whole=True)


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, Split]:
    """A block_size, and conversations that fit: a few tokens, or just as many as a row has room for."""
    size = draw(st.sampled_from([64, 256, 2048]))
    exchanges = st.lists(st.tuples(st.integers(2, 20), st.integers(1, 10)), min_size=1, max_size=2)
    full = st.integers(1, size - 1).map(lambda said: [(size - said, said)])
    return size, side(draw(st.lists(exchanges | full, min_size=1, max_size=12)))


@settings(max_examples=150)
@given(made=sides(), seed=st.integers(0, 99), order=st.sampled_from(["random", "epochs"]))
def test_every_row_has_a_target_and_whole_conversations(made: tuple[int, Split], seed: int, order: str) -> None:
    """Rows without a target make the loss NaN; it cannot happen, for any length of conversations."""
    size, split = made
    assert split.mask is not None
    assert split.starts is not None
    data = Data(batch_size=3, block_size=size, grad_accum_steps=2, layout="rows", order=order)  # type: ignore[arg-type]
    bounds = np.append(split.starts.astype(np.int64), split.tokens)
    for step in range(3):
        inputs, targets = batch(split, data, seed, step)
        for row, wanted in zip(inputs.reshape(-1, size), targets.reshape(-1, size), strict=True):
            learnt = wanted[wanted != NO_TARGET]
            assert len(learnt)
            assert (learnt == row[wanted != NO_TARGET] + 1).all()
            inside = np.unique(np.searchsorted(bounds, learnt, side="right") - 1)  # the conversations of the row
            of_each = [
                begin + np.flatnonzero(split.mask[begin:end])
                for begin, end in zip(bounds[inside], bounds[inside + 1], strict=True)
            ]
            assert np.array_equal(
                np.sort(learnt), np.concatenate(of_each)
            )  # all that is learnt of them, and no padding
            used = int((bounds[inside + 1] - bounds[inside]).sum())
            following = bounds[inside[-1] + 1 : inside[-1] + 3]
            if order == "random" and len(following) == 2:  # the next one would not fit
                assert used + following[1] - following[0] > size + 1


@settings(max_examples=60)
@given(made=sides())
def test_validation_of_conversations_meets_every_target_once(made: tuple[int, Split]) -> None:
    size, split = made
    assert split.mask is not None
    found = [
        targets[targets != NO_TARGET] for _, targets in validation_rows(split, Data(batch_size=4, block_size=size))
    ]
    assert np.array_equal(np.sort(np.concatenate(found)), np.flatnonzero(split.mask))


def test_a_conversation_that_is_longer_than_a_row_is_refused(talk: Dataset) -> None:
    longest = int(np.diff(np.append(talk.train.starts, talk.train.tokens)).max())  # type: ignore[arg-type]
    assert layout_of(talk, Data(block_size=longest - 1)) == "rows"
    with pytest.raises(UserError) as error:
        layout_of(talk, Data(block_size=longest - 2))
    assert error.value.message == (
        f"the longest conversation has {longest} tokens, and a row of train.data.block_size = {longest - 2} has room for "
        f"{longest - 1}: conversations are never cut"
    )
    assert error.value.place == str(talk.train.path)
    assert error.value.remedy == (
        f"Raise train.data.block_size to {longest - 1}, or set prepare.max_tokens = {longest - 1}: the oldest turns of longer "
        "conversations are then left out."
    )


def test_a_stream_of_conversations_is_refused(talk: Dataset) -> None:
    with pytest.raises(UserError) as error:
        layout_of(talk, Data(block_size=100, layout="stream"))
    assert error.value.message == "windows of a stream would cut conversations anywhere"
    assert error.value.place == 'train.data.layout = "stream"'


# Stages, runs and commands

TRAINED = TINY.replace("size = 2000", 'size = 4000\nspecial_tokens = "chat"\nencoder = "bytes"').replace(
    "block_size = 16", "block_size = 96"
)


def experiment(lab: Path, config: str) -> Path:
    return write(lab / "talk", CODE, config)


@pytest.mark.slow
def test_stages_share_the_special_tokens_of_the_first(lab: Path, terrarium: Terrarium) -> None:
    folder = experiment(lab, TRAINED + STAGES)
    done = terrarium("loop", "talk")
    assert done.exit_code == 0, done.output
    of_stage = {name: load_dataset(folder / "datasets" / "basic" / name) for name in ("base", "mid", "chat")}
    assert len({json.dumps(dataset.info["encoder"]) for dataset in of_stage.values()}) == 1
    assert texts(of_stage["chat"], of_stage["chat"].train, 0, learnt=True).endswith("<|end|>")
    special, base = special_ids(of_stage["base"].encoder), of_stage["base"].train
    assert set(base.ids.tolist()) & set(special.values()) == {special["<|bos|>"], special["<|end|>"]}
    assert all(base.document(number)[0][0] == special["<|bos|>"] for number in range(20))
    learnt, read = (texts(of_stage["mid"], of_stage["mid"].train, 0, learnt=which) for which in (True, False))
    assert learnt.endswith("\n")
    assert read.endswith("?")
    model = open_experiment("talk").run("default/chat").load()
    assert special_ids(model.encoder) == special_ids(of_stage["chat"].encoder)
    checked = terrarium("check", "talk", "--no-timing", "--json")
    across = json.loads(checked.stdout)["across"]
    assert across
    assert all(part["in_train"] == 0 for part in across)


def test_a_stage_cannot_reserve_what_its_first_stage_did_not(lab: Path, terrarium: Terrarium) -> None:
    without = TRAINED.replace('special_tokens = "chat"\n', "")
    experiment(lab, without + STAGES)
    done = terrarium("prepare", "talk")
    assert done.exit_code == 2
    assert (
        "stage 'chat' has conversations, and the encoder of the first stage, 'base', has no special tokens"
        in done.stderr
    )
    assert 'Set prepare.special_tokens = "chat" above the first [[stages]]' in done.stderr
    experiment(lab, without + STAGES + 'prepare.special_tokens = "chat"\n')
    done = terrarium("prepare", "talk")
    assert done.exit_code == 2
    assert "cannot change the vocabulary (prepare.special_tokens)" in done.stderr
    experiment(lab, without + STAGES)
    done = terrarium("prepare", "talk", "-s", "prepare.special_tokens=chat")
    assert done.exit_code == 0, done.output


def test_a_borrowed_encoder_must_have_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", CODE, "[prepare]\nsize = 4000\n")
    run(folder, ["prepare.documents=facts", "prepare.dataset_dir=datasets/first"])
    error = error_of(
        folder, "prepare.encoder_from=datasets/first", "prepare.special_tokens=chat", "prepare.documents=talks"
    )
    assert error.message == "the encoder of datasets/first has no special tokens"
    assert error.remedy == 'Set prepare.special_tokens = "chat" where that dataset is made.'


def test_a_run_measures_answers_and_shows_conversations(lab: Path, terrarium: Terrarium) -> None:
    experiment(lab, TRAINED)
    done = terrarium("loop", "talk")
    assert done.exit_code == 0, done.output
    run_folder = open_experiment("talk").run("default")
    assert run_folder.summary["accuracy"] is not None
    assert list(run_folder.summary["accuracy_by_group"]) == ["times"]
    samples = json.loads(terrarium("sample", "talk", "--json").stdout)["samples"]
    assert all(sample["truth"].startswith("It is ") for sample in samples)
    done = terrarium(
        "loop", "talk", "--run", "free", "-s", "prepare.documents=talks", "-s", "prepare.dataset_dir=datasets/talks"
    )
    assert done.exit_code == 0, done.output
    samples = json.loads(terrarium("sample", "talk", "--run", "free", "--json").stdout)["samples"]
    assert all(sample["truth"] is None and sample["start"].startswith("<|bos|><|user|>") for sample in samples)


def test_the_end_of_a_turn_ends_an_answer(lab: Path) -> None:
    """After a few steps the model knows where a turn ends, and nothing is written behind it."""
    experiment(lab, TRAINED)
    exp = open_experiment("talk", {"train.schedule.max_iters": 60, "prepare.documents": "talks"})
    model = exp.train().load()
    [question] = model.dataset.questions("val", 1, graded=False)
    written = model.complete([question.prompt], temperature=0, max_new_tokens=90)[0]
    assert len(written) < 90
    assert not any(name in written for name in SPECIAL)


def test_the_page_shows_what_works(lab: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/how-to/chat-data.md: its prepare.py and settings, what it says these become, and its lines of Python."""
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "chat-data.md").read_text(encoding="utf-8")
    code, python = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    write(lab / "my_idea", code, TRAINED)
    done = terrarium("train", "my_idea", "-q")
    assert done.exit_code == 0, done.output
    dataset = load_dataset(lab / "my_idea" / "datasets" / "basic")
    ids = dataset.train.document(0)[0].tolist()
    whole = "".join([piece.text for piece in spelled(ids, [True] * len(ids), dataset.encoder)])
    pattern = re.escape(re.search(r"```text\n(.*?)```", page, re.DOTALL)[1].replace("\n", ""))  # type: ignore[index]
    assert re.fullmatch(pattern.replace(re.escape("3*4"), r"\d+\*\d+").replace("12", r"\d+"), whole)
    found: dict[str, Any] = {}
    exec(python, found)
    assert (
        found["ids"].tolist()
        == render_prompt(Conversation([Message("user", "What is 3*4?")]), found["model"].encoder).tolist()
    )


def test_check_shows_one_conversation(lab: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment(lab, TRAINED)
    done = terrarium("check", "talk", "--no-timing")
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.stdout
    lines = done.stdout.partition("\na conversation\n")[2].splitlines()
    assert lines[0].strip().endswith("of them")
    assert [line.split()[0] for line in lines[1:5]] == ["read", "learnt", "read", "learnt"]
    assert lines[1].startswith("  read    <|bos|><|system|>Be brief.<|end|><|user|>")
    assert lines[2].startswith("  learnt  Hm. <|tool|>calculator ")
    assert lines[5].startswith("  train targets")
    account = json.loads(terrarium("check", "talk", "--no-timing", "--json").stdout)
    found = account["conversation"]
    assert found["targets"] < found["tokens"] == found["shown"]
    assert found["pieces"][0] == {"text": "<|bos|>", "learnt": False, "special": True}
    assert account["data"]["kind"] == "conversations"
    coloured = list(shown.conversation_lines(account, colour=True))
    assert coloured[4].startswith("\x1b[32m") or coloured[4].startswith("\x1b[32;")
    assert "\x1b[2m" in coloured[3]


def test_text_of_a_conversation_cannot_steer_a_terminal() -> None:
    piece = {"text": "a\x1b[2J\n" + "b" * 1000, "learnt": True, "special": False}
    found = {"pieces": [piece], "tokens": 2000, "targets": 900, "shown": 500, "train_targets": 1, "val_targets": 1}
    account: dict[str, Any] = {"conversation": found, "data": {"train_tokens": 4, "val_tokens": 2}}
    lines = list(shown.conversation_lines(account, colour=False))
    assert lines[2] == "  2,000 tokens, the first 500 of them here; the loss is on 900 of them"
    assert lines[3].startswith("  learnt  a\\x1b[2J\\nbbb")
    assert " ... " in lines[3]
    assert len(lines[3]) < 450
    assert lines[4] == "  train targets         1 of 4 tokens (25.0%)"
    assert list(shown.conversation_lines({"conversation": None, "data": {}}, colour=False)) == []
