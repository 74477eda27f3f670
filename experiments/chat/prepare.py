"""Pip, a tree frog in a terrarium, learns to talk: stories, then tasks, then conversations, then being right."""

from core import Conversation, Message
from core.chat import gsm8k

from . import creature, items, stories, tasks
from .speedrun import read_tests, speedrun_base, speedrun_chat, speedrun_mid, speedrun_reward  # noqa: F401 - config.speedrun.toml

KINDS = ("talk", "story", *tasks.TASKS)
KINDS_OF_TALKS = tuple(kind for kind in KINDS if kind != "name")  # a talk has one name, or none
PUZZLES = ("spelling", "length", "counting", "counting")
ALONE = 0.5  # share of conversations with one question; the others have two to six


def base(rng):
    """Running text: stories, facts, who Pip is, and what visitors ask. The vocabulary of all stages is learnt from it."""
    while True:
        kind = rng.random()
        if kind < 0.5:
            yield stories.story(rng) + "\n"
        elif kind < 0.7:
            yield " ".join(stories.fact(rng) for _ in range(rng.randint(2, 5))) + "\n"
        elif kind < 0.75:
            yield creature.ABOUT.replace("\n", " ").strip() + "\n"
        else:
            questions = (turn(rng, asked=False)[0] for _ in range(rng.randint(3, 8)))
            yield "\n".join(("Visitors ask:", *questions)) + "\n"


def mid(rng):
    """Running text, with tasks and short talks between stories. Its words, names and numbers are practised ones."""
    stream = base(rng)
    while True:
        if rng.random() < 0.2:
            yield next(stream)
        else:
            turns = (turn(rng, asked=False) for _ in range(rng.randint(2, 5)))
            yield "\n".join(f"{question}\n{answer}" for question, answer, _ in turns) + "\n"


def chat(rng):
    """Conversations. One question alone is graded where it has one right answer; talks of several turns are not."""
    while True:
        if rng.random() < ALONE:
            question, answer, group = turn(rng, asked=True)
            yield Conversation([Message("user", question), Message("assistant", answer)], group=group)
        else:
            yield talk(rng)


def puzzles(rng):
    """Questions alone that have to be worked out, for training by reward."""
    while True:
        question, answer, group = turn(rng, PUZZLES, asked=True)
        yield Conversation([Message("user", question), Message("assistant", answer)], group=group)


def talk(rng):
    """Several turns. Some begin with a name and end with asking for it; some ask for a name that nobody has said."""
    opening, end = creature.small_talk(rng), []
    kind = rng.random()
    if kind < 0.3:
        given = items.draw(rng, items.name, ["name"], None)
        opening = (rng.choice(tasks.INTRODUCE).format(given), f"Hello {given}!")
        end = [(rng.choice(tasks.ASK_NAME), tasks.known(given))]
    elif kind < 0.5:
        end = [(rng.choice(tasks.ASK_NAME), tasks.NAMELESS)]
    while (kinds := rng.choices(KINDS_OF_TALKS, k=rng.randint(1, 4))).count("story") > 2:
        pass  # or the talk would not fit into a row, and lose its beginning with the name
    turns = [turn(rng, [kind], asked=False)[:2] for kind in kinds]
    first, *last = [(creature.typed(rng, said), answer) for said, answer in (opening, *end)]
    pairs = [(Message("user", question), Message("assistant", answer)) for question, answer in (first, *turns, *last)]
    return Conversation([message for pair in pairs for message in pair])


def turn(rng, kinds=KINDS, *, asked):
    """A question, its answer, and the task in which it is graded; None where many answers are right.

    asked: with an item that occurs nowhere else, in the words that are graded.
    """
    kind = rng.choice(kinds)
    if kind in tasks.TASKS:
        question, answer = tasks.exercise(rng, kind, asked=asked)
        return (question, answer, kind) if asked else (creature.typed(rng, question), answer, None)
    if kind == "talk":
        said, answer = creature.small_talk(rng)
    else:
        animal = rng.choice(stories.ANIMALS)
        said, answer = rng.choice(stories.WISHES).format(stories.a(animal)), stories.story(rng, animal)
    return creature.typed(rng, said), answer, None


def answer(text):
    """What counts is the last sentence, however it was found; of a problem of GSM8K the number behind ####, however it is written."""
    if gsm8k.FINAL in text:
        return gsm8k.final_answer(text) or ""
    return text.strip().rpartition(". ")[2]


def register_suites(register):
    """Tests of ARC and MMLU in their own formats, for `evaluate --suite`."""
    register("speedrun_tests", read_tests)
