"""The variant speedrun of the experiment chat: its formats, and all of its stages on small files of the same formats."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result
from downloads import serving
from suites import TASKS, write_bundle
from test_gsm8k import perturbed

from core import Conversation, Message
from core.chat.conversation import check_conversation
from core.data.documents import Example
from core.evaluation.suites.task import question_text
from core.lab.opened import open_folder
from core.lab.own import scoring_of
from core.plugins.code import load_code
from core.plugins.discovery import Experiment

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "chat"
GSM8K = ROOT.parent / "shared" / "data" / "gsm8k"
WORDS = [
    "the",
    "a",
    "frog",
    "moss",
    "rain",
    "leaf",
    "sings",
    "sleeps",
    "under",
    "near",
    "on",
    "and",
    "big",
    "small",
    "green",
]
PROBLEM = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many in all?",
    "answer": "In May she sold 48/2 = <<48/2=24>>24 clips.\nIn all <<48+24=72>>72 clips.\n#### 72",
}
ARC = {
    "id": "1",
    "question": "Which is wet? ",
    "choices": {"text": ["sand", "rain", "stone"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
MMLU = {"question": "What is 2 + 2?", "choices": ["3", "4", "5", "6"], "answer": 1, "subject": "arithmetic"}


@pytest.fixture(scope="module")
def speedrun() -> ModuleType:
    found = load_code(Experiment(FOLDER))
    assert found is not None
    return found.speedrun


def test_choices_become_letters(speedrun: ModuleType) -> None:
    item = speedrun.choice_item(ARC)
    assert item.gold == 1 and item.options[0] == ("Question: Which is wet?", "sand")
    talk = speedrun.choice_talk(item, "arc_easy")
    assert [message.content for message in talk.messages] == [
        "Question: Which is wet?\nA. sand\nB. rain\nC. stone\nAnswer with the letter.",
        "B",
    ]
    assert talk.messages[0].content == question_text(item) and talk.group == "arc_easy"
    assert speedrun.choice_item(MMLU).answer == "4"
    assert speedrun.choice_item({"train": MMLU}) == speedrun.choice_item(MMLU)


def test_marks_become_calls_of_the_calculator(speedrun: ModuleType) -> None:
    assert list(speedrun.problem_talk(PROBLEM).messages) == [
        Message("user", PROBLEM["question"]),
        Message("assistant", "In May she sold 48/2 = ", call="calculator 48/2"),
        Message("tool", "24"),
        Message("assistant", "24 clips.\nIn all ", call="calculator 48+24"),
        Message("tool", "72"),
        Message("assistant", "72 clips.\n#### 72"),
    ]
    plain = {"question": "One and one?", "answer": "That is two.\n#### 2"}
    assert len(speedrun.problem_talk(plain).messages) == 2


@pytest.mark.skipif(not GSM8K.is_dir(), reason="there is no ../shared/data/gsm8k")
def test_every_problem_becomes_a_valid_conversation(speedrun: ModuleType) -> None:
    lines = [line for file in ("train", "test") for line in (GSM8K / f"{file}.jsonl").read_text().splitlines()]
    assert len(lines) == 8792
    calls = 0
    for line in lines:
        row = json.loads(line)
        talk = speedrun.problem_talk(row)
        check_conversation(talk)
        calls += sum(bool(message.call) for message in talk.messages)
        assert "<<" not in talk.messages[-1].content and talk.messages[-1].content.rpartition("#### ")[1]
        text = "".join(message.content if message.role == "assistant" else "" for message in talk.messages)
        assert text.strip() == re.sub(r"<<[^<>]*>>", "", row["answer"]).strip()
    assert calls == sum(line.count("<<") for line in lines)


def test_turns_without_text_are_left_out(speedrun: ModuleType) -> None:
    good = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    bad = [{"role": "user", "content": " "}, {"role": "assistant", "content": "Hello"}]
    assert list(speedrun.talks([{"messages": good}, {"messages": bad}])) == [
        Conversation([Message("user", "Hi"), Message("assistant", "Hello")])
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Small files of the formats of all sources."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet")
    rng = random.Random(1)
    folder = tmp_path / "files"
    folder.mkdir()

    def sentence(words: int = 8) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    def table(name: str, rows: list[dict[str, Any]]) -> None:
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")

    def choice(number: int) -> dict[str, Any]:
        texts = [sentence(2) for _ in range(4)]
        key = rng.choice("ABCD")
        return {"id": f"{number}", "question": f"{number}: {sentence(4)}?", "choices": {"text": texts, "label": list("ABCD")}, "answerKey": key}  # fmt: skip

    for shard in range(2):
        table(f"web_{shard}", [{"text": sentence(30)} for _ in range(150)] + [{"text": "  "}])
    talks = [[{"role": "user", "content": f"{number} {sentence()}?"}, {"role": "assistant", "content": sentence()}] for number in range(60)]  # fmt: skip
    table("talks", [{"messages": talk, "source": "a"} for talk in talks])
    mmlu = [{"question": f"{number} {sentence(4)}?", "choices": [sentence(1) for _ in range(4)], "answer": number % 4, "subject": "s"} for number in range(40)]  # fmt: skip
    table("mmlu", mmlu[10:])
    table("mmlu_test", mmlu[:20])
    for name in ("arc_easy", "arc_challenge"):
        choices = [choice(number) for number in range(40)]
        table(name, choices[10:])
        table(f"{name}_test", choices[:20])
    if GSM8K.is_dir():
        lines = sorted((GSM8K / "train.jsonl").read_text().splitlines(), key=len)[:40]
    else:
        lines = [json.dumps({"question": f"{number} plus {number}?", "answer": f"<<{number}+{number}={2 * number}>>{2 * number}\n#### {2 * number}"}) for number in range(40)]  # fmt: skip
    (folder / "gsm8k.jsonl").write_text("\n".join(lines[10:]))
    (folder / "gsm8k_test.jsonl").write_text("\n".join(lines[:20]))
    return {path.stem: path for path in folder.iterdir()}


# Where the files are on the hub, in short.
PLACES = {
    "web_0": "/climbmix/shard_00000.parquet", "web_1": "/climbmix/shard_00001.parquet", "talks": "/smoltalk/train.parquet",
    "mmlu": "/mmlu/all/auxiliary_train-0.parquet", "mmlu_test": "/cais/mmlu/main/all/test-0.parquet",
    "arc_easy": "/ai2_arc/ARC-Easy/train-0.parquet", "arc_easy_test": "/ai2_arc/ARC-Easy/test-0.parquet",
    "arc_challenge": "/ai2_arc/ARC-Challenge/train-0.parquet", "arc_challenge_test": "/ai2_arc/ARC-Challenge/test-0.parquet",
    "gsm8k": "/grade_school_math/data/train.jsonl", "gsm8k_test": "/grade_school_math/data/test.jsonl",
}  # fmt: skip


def sources(at: dict[str, str]) -> Iterator[str]:
    """Overrides that put small files in the places of the large ones. at: address of each."""
    web = at["web_0"].replace("00000", "{00000..00001}").replace("web_0", "web_{0..1}")
    tests = {f"tests.{name}": at[f"{name}_test"] for name in ("arc_easy", "arc_challenge", "mmlu", "gsm8k")}
    given: dict[str, dict[str, object]] = {
        "base": {"climbmix": web},
        "mid": {"smoltalk": at["talks"], "mmlu": at["mmlu"], "gsm8k": at["gsm8k"], "identities": 20, **tests},
        "chat": {"smoltalk": at["talks"], "arc_easy": at["arc_easy"], "arc_challenge": at["arc_challenge"],
                 "gsm8k": at["gsm8k"], "identities": 20, **tests},
        "reward": {"gsm8k": at["gsm8k"], **tests},
    }  # fmt: skip
    for stage, params in given.items():
        yield from (f"stages.{stage}.prepare.params.{name}={value}" for name, value in params.items())


TINY = (
    "prepare.vocab_size=400", "train.model.depth=1", "prepare.max_tokens=257", "train.model.block_size=256", "train.schedule.tokens_per_parameter=0.3",
    "train.runtime.device=cpu", "train.runtime.dtype=float32", "train.runtime.trackers=[]", "evaluate.max_prompts=8",
    "evaluate.training_prompts=4", "sample.sample.max_new_tokens=8", "sample.sample.num_samples=2",
    "stages.reward.prepare.val_fraction=0.3", "stages.reward.max_iters=2", "stages.reward.train.objective.max_new_tokens=8",
    "stages.reward.train.objective.prompts_per_step=2", "stages.reward.train.objective.group_size=2", "stages.reward.train.data.batch_size=2",
    "stages.base.prepare.val_fraction=0.1", "stages.mid.prepare.val_fraction=0.2", "stages.chat.prepare.val_fraction=0.2",
    *(f"stages.{stage}.train.{key}" for stage in ("mid", "chat")
      for key in ("data.batch_size=2", "data.grad_accum_steps=2", "schedule.max_iters=4")),
)  # fmt: skip


def test_all_stages_end_to_end(files: dict[str, Path], lab: Path, terrarium: Terrarium) -> None:
    """Download, prepare, train and evaluate, from a server that breaks off once and is busy once."""
    assert terrarium("new", "mine", "--from", str(FOLDER)).exit_code == 0
    with serving() as server:
        at = {name: server.has(place, content=files[name].read_bytes())[0] for name, place in PLACES.items()}
        server.files[PLACES["web_1"]].answers = [{"after": 100}, None]
        server.files[PLACES["talks"]].answers = [503, None]
        server.files[PLACES["talks"]].headers["Retry-After"] = "0"
        settings = [part for text in (*TINY, *sources(at)) for part in ("-s", text)]
        done = terrarium("train", "mine", "--variant", "speedrun", *settings)
        assert done.exit_code == 0, done.output
        asked = {name: len(server.files[place].asked) for name, place in PLACES.items()}
        assert asked == dict.fromkeys(PLACES, 1) | {"web_1": 2, "talks": 2}
    raw = lab / "mine" / "datasets" / "raw"
    assert len(list(raw.rglob("*.sha256"))) == len(PLACES) == len(list(raw.rglob("*.*"))) // 2

    out = lab / "mine" / "out" / "speedrun"
    pipeline = json.loads((out / "pipeline.json").read_bytes())
    assert pipeline["stages"] == ["base", "mid", "chat", "reward"] and (out / "report.html").is_file()
    assert {"chat/val_accuracy", "mid/val_loss", "base/val_loss"} <= set(pipeline["table"])
    groups = json.loads((out / "chat" / "summary.json").read_bytes())["accuracy_by_group"]
    assert set(groups) <= {"arc_easy", "arc_challenge", "gsm8k"} and groups
    assert (out / "reward" / "summary.json").is_file()

    datasets = lab / "mine" / "datasets" / "speedrun"
    base, mid, chat = (json.loads((datasets / name / "dataset.json").read_bytes()) for name in pipeline["stages"][:3])
    assert base["kind"] == "documents" and base["train"]["documents"] + base["val"]["documents"] == 300
    sizes = [sum(each[side]["documents"] for side in ("train", "val", "test")) for each in (mid, chat)]
    # Ten of 30 questions of each kind are questions of the tests.
    assert sizes == [60 + 20 + 20 + 20, 60 + 20 + 20 + 20 + 20]

    for options in (["-s", "evaluate.suite_form=letters"], ["-s", "evaluate.suite_form=written"], ["--stage", "base"]):
        suite = terrarium("evaluate", "mine", "--variant", "speedrun", "--suite", str(raw), "--json", *options)
        assert suite.exit_code == 0, suite.output
        tasks = json.loads(suite.stdout)["tasks"]
        written = ["gsm8k"] if "evaluate.suite_form=written" in options else []
        assert {name: task["items"] for name, task in tasks.items()} == dict.fromkeys(
            ["arc_easy", "arc_challenge", "mmlu", *written], 20
        )
    core = write_bundle(lab / "eval_bundle")
    suite = terrarium("evaluate", "mine", "--variant", "speedrun", "--stage", "base", "--suite", str(core), "--json")
    assert suite.exit_code == 0 and set(json.loads(suite.stdout)["tasks"]) == set(TASKS), suite.output


def test_files_in_the_places_of_addresses(files: dict[str, Path], lab: Path, terrarium: Terrarium) -> None:
    assert terrarium("new", "mine", "--from", str(FOLDER)).exit_code == 0
    at = {name: str(path) for name, path in files.items()}
    settings = [part for text in (*TINY, *sources(at)) for part in ("-s", text)]
    assert terrarium("prepare", "mine", "--variant", "speedrun", *settings).exit_code == 0
    assert not list((lab / "mine" / "datasets").rglob("*.sha256"))
    without = [*settings, "-s", "stages.mid.prepare.params.tests.mmlu="]
    done = terrarium("prepare", "mine", "--variant", "speedrun", "--stage", "mid", *without)
    assert done.exit_code == 0, done.output
    mid = json.loads((lab / "mine" / "datasets" / "speedrun" / "mid" / "dataset.json").read_bytes())
    assert sum(mid[side]["documents"] for side in ("train", "val", "test")) == 60 + 30 + 20 + 20


def test_a_suite_of_tests_by_their_names(speedrun: ModuleType, files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    assert speedrun.read_tests(folder) is None
    for name in ("arc_easy", "mmlu"):
        (folder / f"{name}.parquet").write_bytes(files[f"{name}_test"].read_bytes())
    suite = speedrun.read_tests(folder)
    assert [task.name for task in suite.tasks] == ["arc_easy", "mmlu"] and suite.absent == ["arc_challenge", "gsm8k"]


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs GSM8K")
def test_references_are_right_and_perturbed_ones_wrong_for_what_trains_and_evaluates(speedrun: ModuleType) -> None:
    """Through the conversations of the stage, prepare.py's answer() and the scoring of the objective."""
    scoring = scoring_of(open_folder(str(FOLDER), "speedrun"))
    rng = random.Random(0)
    texts = [(GSM8K / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "test")]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    truths = [speedrun.problem_talk(row).messages[-1].content for row in rows]
    assert len(truths) == 8792
    assert all(scoring.score(Example("", truth), truth) == 1.0 for truth in truths)
    for truth in rng.sample(truths, 1000):
        assert scoring.score(Example("", truth), perturbed(truth, rng)) == 0.0


def test_the_settings_are_those_of_the_scale() -> None:
    opened = open_folder(str(FOLDER), "speedrun")
    model, data = opened.config.train.model, opened.config.train.data
    assert (model.depth, model.n_layer, model.n_embd, model.n_head, model.block_size) == (20, 20, 1280, 20, 2048)
    assert (data.packing, opened.config.prepare.vocab_size) == ("documents", 32_768)
    assert [stage.name for stage in opened.stages] == ["base", "mid", "chat", "reward"]
