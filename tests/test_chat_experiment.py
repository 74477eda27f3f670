"""The experiment chat: its answers are right, and what is asked on the held-out sides stands nowhere else."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from core import Conversation
from core.data.dataset import load_dataset
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
    seen, worked_out = set(), 0
    for conversation in asked:
        question, answer = question_and_answer(conversation)
        seen.add(conversation.group)
        if conversation.group == "adding":
            left, right = numbers(question)
            assert answer.endswith(f"So {left + right}.") and numbers(answer)[2] == left % 10 + right % 10
        elif conversation.group == "comparing":
            assert answer == f"{max(numbers(question))} is larger."
        elif conversation.group in ("spelling", "length"):
            letters = re.match(r"(?:\w+: )?((?:\w )*\w)\.", answer)
            assert letters is not None
            word = letters[1].replace(" ", "")
            assert re.search(rf"\b{word}\b", question)
            if conversation.group == "length":
                assert numbers(answer) == [len(word)]
        elif conversation.group == "counting":
            word = re.findall(r"\w+", question)[-1]
            (letter,) = re.findall(r"\b\w\b", question)
            *work, count = numbers(answer)
            assert count == word.count(letter) and answer.endswith(f"I see {count}.")
            worked_out += bool(work)
            if work:
                assert work == list(range(1, count + 1))
                assert re.sub(r"[ \d]", "", answer.partition(".")[0]) == word
                assert len(re.findall(rf"{letter}\d", answer)) == count
        elif conversation.group == "name":
            assert answer.removeprefix("You are ").rstrip(".") in question
    assert 0.15 < worked_out / sum(each.group == "counting" for each in asked) < 0.35
    assert seen == {"identity", "name", "world", "spelling", "length", "counting", "adding", "comparing"}


def test_no_one_number_answers_most_counting_questions(asked: list[Conversation]) -> None:
    counted = Counter(numbers(question_and_answer(each)[1])[-1] for each in asked if each.group == "counting")
    assert max(counted.values()) < 0.6 * sum(counted.values()) and len(counted) >= 3


Item = frozenset[int] | str


def item_of(question: str, answer: str) -> Item | None:
    """What a task is about: a word, a name or two numbers in any order. A question about Pip is its own item."""
    if len(numbers(question)) == 2:
        return frozenset(numbers(question))
    if named := re.fullmatch(r"You are (\w+)\.", answer):
        return named[1]
    if re.search(r"I see \d+\.", answer):
        return re.findall(r"\w+", question)[-1]
    if letters := re.match(r"(?:\w+: )?(\w(?: \w)+)\.", answer):
        return letters[1].replace(" ", "")
    if answer.endswith("only a frog."):
        return re.findall(r"\w+", question)[-1]
    return question if answer.startswith(("I ", "No, ", "A snail ")) else None


def test_an_item_is_asked_in_one_way_and_occurs_nowhere_else(code: ModuleType, asked: list[Conversation]) -> None:
    uses: dict[Item, set[tuple[str, str]]] = {}
    for conversation in asked:
        question, answer = question_and_answer(conversation)
        item = item_of(question, answer)
        assert item is not None
        uses.setdefault(item, set()).add((str(conversation.group), question))
    assert all(len(ways) == 1 for ways in uses.values())

    texts = [line for text in islice(code.mid(random.Random(2)), 3000) for line in text.splitlines()]
    practised = {item_of(*pair) for pair in pairwise(texts)}
    for talk in islice(code.chat(random.Random(3)), 5000):
        if len(talk.messages) > 2:
            practised |= {item_of(*pair) for pair in pairwise(message.content for message in talk.messages)}
    practised -= {None}
    assert {type(item) for item in practised} == {str, frozenset} and len(practised) > 2000
    assert not practised & set(uses)
    words = set(re.findall(r"\w+", " ".join(islice(code.base(random.Random(1)), 3000))))
    real = set(code.items.REAL) | {"a", "i"}  # base may tell of a pond whose spelling is asked, and never asks for it
    assert words & {item for item in practised if isinstance(item, str)}
    assert not (words - real) & {item for item in uses if isinstance(item, str)}


@pytest.mark.parametrize(("noun", "with_article"), [("ant", "an ant"), ("old", "an old"), ("snail", "a snail")])
def test_articles(code: ModuleType, noun: str, with_article: str) -> None:
    assert code.stories.a(noun) == with_article


def bare(text: str) -> str:
    """A message without what people leave out when they type."""
    return text.lower().rstrip(".?!")


def test_people_type_as_they_like_where_nothing_is_graded(code: ModuleType, asked: list[Conversation]) -> None:
    assert all(question[0].isupper() and question[-1] in ".?!" for question, _ in map(question_and_answer, asked))
    typed = Counter(code.creature.typed(random.Random(seed), "Who are you?") for seed in range(1000))
    assert typed.keys() == {"Who are you?", "who are you?", "Who are you", "who are you"}
    assert min(typed.values()) > 100 and typed["Who are you?"] > 400
    said = {m.content for each in islice(code.chat(random.Random(8)), 3000) for m in each.messages if m.role == "user"}
    assert {"hi", "Hi", "hello", "thanks", "Tell me a story.", "tell me a story", "what is my name?"} <= said


def test_talks_come_back_to_a_name_that_was_said_and_only_to_that(code: ModuleType) -> None:
    talks = [each for each in islice(code.chat(random.Random(4)), 400) if len(each.messages) > 2]
    named, nameless, asking = 0, 0, tuple(map(bare, code.tasks.ASK_NAME))
    for each in talks:
        name = re.fullmatch(r"Hello (\w+)!", each.messages[1].content)
        is_asked = bare(each.messages[-2].content) in asking
        assert is_asked or name is None
        assert not any(bare(message.content).endswith(asking) for message in each.messages[:-2])
        if is_asked:
            assert each.messages[-1].content == (f"You are {name[1]}." if name else "You did not tell me your name.")
            named, nameless = named + bool(name), nameless + (not name)
    assert named > 20 and nameless > 15


def test_talks_have_two_to_six_turns_and_fit_a_row(code: ModuleType) -> None:
    talks = [each for each in islice(code.chat(random.Random(6)), 4000) if len(each.messages) > 2]
    assert {len(each.messages) // 2 for each in talks} == {2, 3, 4, 5, 6}
    assert max(sum(len(message.content) > 90 for message in each.messages) for each in talks) == 2  # stories


@pytest.mark.slow
def test_no_held_out_question_of_a_stage_is_in_training(lab: Path, terrarium: Callable[..., Result]) -> None:
    assert terrarium("new", "pip", "--from", str(FOLDER)).exit_code == 0
    done = terrarium("check", "pip", "--no-timing", "--json", "-s", "prepare.size=200000")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    parts = [part for part in found["stages"]["chat"]["overlap"] if part["what"] == "prompts"]
    assert parts and all(part["in_train"] == 0 for part in parts)


def test_base_may_read_a_text_of_your_own(lab: Path, terrarium: Callable[..., Result]) -> None:
    assert terrarium("new", "pip", "--from", str(FOLDER)).exit_code == 0
    (lab / "pip" / "mine.txt").write_text("A newt told me this: the moon is round, and the pond is deep.\n" * 200)
    done = terrarium("prepare", "pip", "-s", "prepare.size=20000", "-s", "stages.base.prepare.input=mine.txt")
    assert done.exit_code == 0, done.output
    vocabulary = load_dataset(lab / "pip" / "datasets" / "basic" / "chat").encoder
    assert len(vocabulary.encode("told me this")) < 6
