"""Multiple choice for chat models: by the logits of the letters, and by what they write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from click.testing import Result
from conftest import TINY
from preparing import write
from suites import CPU, TASKS, random_model, write_bundle

from core import open_experiment
from core.chat.conversation import Conversation, Message
from core.chat.render import PromptText, render_prompt
from core.encoders.special import special_ids
from core.encoders.words import WordsEncoder
from core.errors import UserError
from core.evaluation.suites.chat import (
    AskedItem,
    chosen_by_logits,
    chosen_by_writing,
    has_letters,
    measure_chat_task,
    measure_written_task,
    named_option,
)
from core.evaluation.suites.dclm import read_dclm
from core.evaluation.suites.results import measure_task
from core.evaluation.suites.task import Item, Task, question_text
from core.reward.scoring import said_in_the_end
from core.sampling.generate import complete

Terrarium = Callable[..., Result]
CAPITAL = Item((("Capital of Spain?", "Rome"), ("Capital of Spain?", "Madrid"), ("Capital of Spain?", "Bonn")), 1)
LETTERED = Item((("Which?\nA. x\nB. y", "A"), ("Which?\nA. x\nB. y", "B")), 1)
CODE = """from core import Conversation, Message


def documents(rng):
    while True:
        word = "".join(rng.choices("abc", k=2))
        yield Conversation([Message("user", word), Message("assistant", word[::-1])])
"""
CHAT = TINY.replace("[prepare]\n", '[prepare]\nspecial_tokens = "chat"\nencoder = "bytes"\n')
CHAT = CHAT.replace("block_size = 16", "block_size = 48")


@pytest.fixture
def talker(lab: Path, terrarium: Terrarium) -> Path:
    folder = write(lab / "talker", CODE, CHAT)
    assert terrarium("train", "talker", "-q").exit_code == 0
    return folder


def asked(items: list[Item]) -> list[AskedItem]:
    return [AskedItem(item, tuple(question_text(item).encode())) for item in items]


def test_choices_are_listed_with_letters_unless_they_are_letters() -> None:
    assert question_text(CAPITAL) == "Capital of Spain?\nA. Rome\nB. Madrid\nC. Bonn\nAnswer with the letter."
    assert question_text(LETTERED) == "Which?\nA. x\nB. y\nAnswer with the letter."
    begun = Item((("Which?\nA. x\nB. y\nAnswer:", "A"), ("Which?\nA. x\nB. y\nAnswer:", "B")))
    assert question_text(begun) == question_text(LETTERED)


@pytest.mark.parametrize("block_size", [16, 96])
def test_the_letter_with_the_highest_logit_is_chosen(block_size: int) -> None:
    items = [CAPITAL, LETTERED, *(Item(tuple((f"Q{number}?", choice) for choice in "xyzw"[: 2 + number % 3])) for number in range(20))]  # fmt: skip
    for seed in range(3):
        model, encoder = random_model(seed, block_size=block_size)
        slow = []
        for item in items:
            ids = torch.tensor([encoder.encode(question_text(item)).tolist()[-block_size:]])
            with torch.no_grad():
                logits = model(ids)[0, -1]
            slow.append(max(range(len(item.options)), key=lambda place: logits[ord("A") + place].item()))
        assert chosen_by_logits(model, asked(items), encoder, CPU) == slow


def test_letters_that_are_one_token_cannot_be_compared() -> None:
    model, _ = random_model(0)

    class Same(WordsEncoder):
        def encode(self, text: str):  # type: ignore[no-untyped-def]
            return super().encode("a")

    with pytest.raises(UserError, match="letters begin with the same token, so their logits cannot be compared"):
        chosen_by_logits(model, asked([CAPITAL]), Same.fit(["a b"]), CPU)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("B", 1),
        (" (b)\n", 1),
        ("B. Madrid, of course", 1),
        ("c: Bonn", 2),
        ("madrid.", 1),
        ("Answer: A", 0),
        ("The answer is C because it is", 2),
        ("The correct answer is (B).", 1),
        ("the answer is c", 2),
        ("**B**", 1),
        ("The answer is **C**.", 2),
        ("The answer is a city in Spain", None),
        ("Answer: a city", None),
        ("b is not it", None),
        ("D", None),
        ("A man walked", None),
        ("Madrid or Bonn", None),
        ("", None),
    ],
)
def test_what_an_answer_names(text: str, option: int | None) -> None:
    assert named_option(text, CAPITAL) == option


def test_a_written_answer_is_what_greedy_decoding_gives() -> None:
    model, encoder = random_model(1, block_size=256)
    (question,) = asked([CAPITAL])
    ids, written = list(question.ids), list[int]()
    for _ in range(8):
        with torch.no_grad():
            written.append(int(model(torch.tensor([ids + written]))[0, -1].argmax()))
    text = encoder.decode(written)
    named = Item((("q", "no"), ("q", text[: text.index(text[-1]) + 1])), 1)

    def write(prompts: Sequence[PromptText], most: int) -> list[str]:
        return complete(model, encoder, prompts, max_new_tokens=most, temperature=0.0, stop=text[-1])

    assert chosen_by_writing([AskedItem(named, question.ids)], write) == [1]


def test_accuracy_of_a_task() -> None:
    task = Task("t", "multiple choice", [CAPITAL] * 3 + [LETTERED], 0, 0.25)
    found = measure_chat_task(task, lambda questions: [1, None, 0, 1], lambda text: text.encode(), 40)
    assert (found.right, found.items, found.shots, found.cut) == (2, 4, 0, 3)
    assert has_letters(task) and not has_letters(Task("t", "schema", [CAPITAL]))


def test_a_task_whose_answers_are_written() -> None:
    items = [Item(((f"{n} + {n}?", f"It is {2 * n}."),)) for n in range(4)]
    task = Task("sums", "written", items, right=said_in_the_end)

    def write(prompts: Sequence[PromptText], most: int) -> list[str]:
        assert [str(prompt) for prompt in prompts] == ["0 + 0?", "1 + 1?", "2 + 2?", "3 + 3?"] and most == 256
        return ["so it is 0", "2, or 3", "4.0", ""]

    found = measure_written_task(task, write, lambda text: text.encode(), 40)
    assert (found.right, found.items, found.cut) == (2, 4, 0)


@pytest.mark.parametrize("form", ["letters", "written"])
def test_evaluate_a_chat_model(talker: Path, terrarium: Terrarium, tmp_path: Path, form: str) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    done = terrarium("evaluate", "talker", "--suite", str(bundle), "--json", "-s", f"evaluate.suite_form={form}")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["form"] == form and list(found["tasks"]) == ["capitals"]  # the one with choices
    assert set(json.loads((talker / "out/default/suites.json").read_text())) == {f"bundle ({form})"}
    model = open_experiment("talker").run("default").load()
    items = [Item(tuple((item["query"], choice) for choice in item["choices"]), item["gold"]) for item in TASKS["capitals"][3]]  # fmt: skip
    prompts = [render_prompt(Conversation([Message("user", question_text(item))]), model.encoder) for item in items]
    questions = [AskedItem(item, tuple(prompt.tolist())) for item, prompt in zip(items, prompts, strict=True)]

    def write(prompts: Sequence[PromptText], most: int) -> list[str]:
        stop = model.trained.stop
        return complete(model.module, model.encoder, prompts, max_new_tokens=most, temperature=0.0, stop=stop)

    by_logits = chosen_by_logits(model.module, questions, model.encoder, CPU)
    chosen = by_logits if form == "letters" else chosen_by_writing(questions, write)
    assert found["tasks"]["capitals"]["right"] == sum(
        choice == item.gold for choice, item in zip(chosen, items, strict=True)
    )
    assert found["tasks"]["capitals"]["cut"] == sum(len(prompt) > 48 for prompt in prompts)


def test_continuations_follow_a_beginning_as_in_training(talker: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    found = json.loads(terrarium("evaluate", "talker", "--suite", str(bundle), "--json").stdout)
    model = open_experiment("talker").run("default").load()
    begin = model.trained.begin
    assert begin == special_ids(model.encoder)["<|bos|>"]
    suite = read_dclm(bundle)
    assert suite is not None
    for task in suite.tasks:
        assert found["tasks"][task.name] == measure_task(model.module, task, model.encoder, CPU, begin=begin).as_dict()


def test_forms_that_need_a_chat_model(spaces: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("train", "spaces", "-q").exit_code == 0
    bundle = write_bundle(tmp_path / "bundle")
    result = terrarium("evaluate", "spaces", "--suite", str(bundle), "-s", "evaluate.suite_form=letters")
    assert result.exit_code == 2
    assert "evaluate.suite_form: spaces/default was not trained on conversations\n  Leave it out" in result.stderr


def test_tasks_that_a_form_leaves_out_are_named(talker: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    command = ("evaluate", "talker", "--suite", str(bundle), "-s", "evaluate.suite_form=letters")
    line = "not asked in this form, which is for multiple choice: pronouns, sums"
    assert line in terrarium(*command).stdout
    assert json.loads(terrarium(*command, "--json").stdout)["not_asked"] == ["pronouns", "sums"]
    assert terrarium("report", "talker", "--run", "default").exit_code == 0
    assert line in (talker / "out/default/report.md").read_text()


def test_a_suite_without_choices(talker: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", {"sums": TASKS["sums"]})
    result = terrarium("evaluate", "talker", "--suite", str(bundle), "-s", "evaluate.suite_form=written")
    assert result.exit_code == 2
    assert 'evaluate.suite_form: the suite has no multiple choice task\n  Use "continuation".' in result.stderr
