"""The experiment chat: its answers are right, and what is asked on the held-out sides stands nowhere else."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from core import Conversation
from core.plugins.code import load_code
from core.plugins.discovery import Experiment

FOLDER = Path(__file__).parents[1] / "experiments" / "chat"


@pytest.fixture(scope="module")
def code() -> ModuleType:
    found = load_code(Experiment(FOLDER))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def asked(code: ModuleType) -> list[Conversation]:
    """Conversations with one question and one right answer."""
    return [each for each in islice(code.chat(random.Random(5)), 6000) if each.group is not None]


def question_and_answer(conversation: Conversation) -> tuple[str, str]:
    question, answer = conversation.messages
    return question.content, answer.content


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def test_the_answers_are_right(asked: list[Conversation]) -> None:
    seen = set()
    for conversation in asked:
        question, answer = question_and_answer(conversation)
        seen.add(conversation.group)
        if conversation.group == "adding":
            left, right = numbers(question)
            assert answer.endswith(f"So {left + right}.") and numbers(answer)[2] == left % 10 + right % 10
        elif conversation.group == "comparing":
            assert answer == f"{max(numbers(question))} is larger."
        elif conversation.group in ("spelling", "length", "counting"):
            letters = re.match(r"(?:\w+: )?((?:\w )*\w)\.", answer)
            assert letters is not None
            word = letters[1].replace(" ", "")
            assert re.search(rf"\b{word}\b", question)
            if conversation.group == "length":
                assert numbers(answer) == [len(word)]
            if conversation.group == "counting":
                assert any(numbers(answer) == [word.count(letter)] for letter in re.findall(r"\b\w\b", question))
        elif conversation.group == "name":
            assert answer.removeprefix("You are ").rstrip(".") in question
    assert seen == {"identity", "name", "spelling", "length", "counting", "adding", "comparing"}


def test_an_item_is_asked_in_one_way_and_occurs_nowhere_else(code: ModuleType, asked: list[Conversation]) -> None:
    ways: dict[tuple[str, str], set[str]] = {}
    items = set()
    for conversation in asked:
        question, answer = question_and_answer(conversation)
        if conversation.group in ("adding", "comparing"):
            item = " ".join(map(str, numbers(question)))
        elif conversation.group == "name":
            item = answer.removeprefix("You are ").rstrip(".")
        elif conversation.group == "identity":
            continue
        else:
            item = re.findall(r"((?:\w )*\w)\.", answer)[0].replace(" ", "")
            items.add(item)
        ways.setdefault((str(conversation.group), item), set()).add(question)
    assert all(len(questions) == 1 for questions in ways.values())
    spelled = {" ".join(item) for item in items}
    texts = [*islice(code.base(random.Random(1)), 1500), *islice(code.mid(random.Random(2)), 3000)]
    talks = [each for each in islice(code.chat(random.Random(3)), 3000) if len(each.messages) > 2]
    texts += [message.content for each in talks for message in each.messages]
    practised = {match for text in texts for match in re.findall(r"\b(?:\w )+\w\b(?=\.)", text)}
    assert len(practised) > 500 and not spelled & practised


def test_talks_come_back_to_a_name(code: ModuleType) -> None:
    talks = [each for each in islice(code.chat(random.Random(4)), 400) if len(each.messages) > 2]
    named = [
        each
        for each in talks
        if each.messages[1].content.startswith("Hello ") and each.messages[-1].content.startswith("You are ")
    ]
    assert len(named) > 20
    for each in named:
        name = each.messages[1].content.removeprefix("Hello ").rstrip("!")
        assert each.messages[-1].content == f"You are {name}."


def test_no_held_out_question_of_a_stage_is_in_training(lab: Path, terrarium: Callable[..., Result]) -> None:
    assert terrarium("new", "pip", "--from", str(FOLDER)).exit_code == 0
    done = terrarium("check", "pip", "--no-timing", "--json", "-s", "prepare.size=200000")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    parts = [part for part in found["stages"]["chat"]["overlap"] if part["what"] == "prompts"]
    assert parts and all(part["in_train"] == 0 for part in parts)
    assert all(part["in_train"] == 0 for part in found["across"] if part["stage"] == "chat")
