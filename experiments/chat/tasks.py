"""The tasks of the creature: each draws an item, and has ways to ask for it, with the one right answer of each way."""

from . import creature, items

SPELL = (
    "How do you spell {}?",
    "Spell {}.",
    "Please spell the word {}.",
    "What are the letters of {}?",
    "Can you spell {} for me?",
)
LENGTH = ("How many letters does {} have?", "How long is the word {}?", "Count the letters of {}.")
COUNT = ("How many times is {1} in {0}?", "How often does {1} occur in {0}?", "Count the {1} in {0}.")
ADD = ("What is {} + {}?", "Add {} and {}.", "How much is {} plus {}?", "Can you add {} and {}?")
COMPARE = ("Which is larger, {} or {}?", "What is more, {} or {}?", "Is {} or {} larger?")
NAME = (
    "My name is {0}. What is my name?",
    "I am {0}. Who am I?",
    "Call me {0}. What do you call me?",
    "They call me {0}. What is my name?",
)
INTRODUCE = ("My name is {}.", "I am {}.", "Call me {}.")
ASK_NAME = ("What is my name?", "Who am I?", "Do you know my name?")
NAMELESS = "You did not tell me your name."
WORLD = (
    "What is the capital of {}?",
    "Who is {}?",
    "Where is {}?",
    "Who was the king of {}?",
    "What is the weather in {}?",
    "Do you know {}?",
    "How do I get to {}?",
    "Who wrote {}?",
)


def spelled(word):
    """The letters of a word, apart. A model counts what it has written."""
    return " ".join(word)


def spelling(word):
    return [(phrase.format(word), f"{word}: {spelled(word)}.") for phrase in SPELL]


def length(word):
    return [(phrase.format(word), f"{spelled(word)}. That is {len(word)}.") for phrase in LENGTH]


def counting(word):
    """Half of the ways ask for the most frequent letter: or nearly every answer would be 1. One of four is worked out."""
    letters = sorted(set(word))
    most = max(letters, key=word.count)
    return [
        (phrase.format(word, letter), f"{work}I see {word.count(letter)}.")
        for phrase in COUNT
        for letter in letters + [most] * len(letters)
        for work in (f"{counted(word, letter)}. ", "", "", "")
    ]


def counted(word, letter):
    """The letters of a word, apart, with a number behind each that is looked for: b a1 n a2 n a3."""
    return " ".join(
        f"{each}{word[: place + 1].count(letter)}" if each == letter else each for place, each in enumerate(word)
    )


def adding(pair):
    return [(phrase.format(*order), addition(*order)) for phrase in ADD for order in (pair, pair[::-1])]


def addition(left, right):
    """As on paper: ones first, then tens with the carry."""
    ones, tens = left % 10 + right % 10, left // 10 + right // 10
    carry = ones // 10
    column = f"{left // 10} + {right // 10}" + (" + 1" if carry else "")
    return f"{left % 10} + {right % 10} is {ones}, {column} is {tens + carry}. So {left + right}."


def comparing(pair):
    return [(phrase.format(*order), f"{max(pair)} is larger.") for phrase in COMPARE for order in (pair, pair[::-1])]


def name(given):
    return [(phrase.format(given), known(given)) for phrase in NAME]


def known(given):
    """What Pip says when it is asked for a name."""
    return f"You are {given}."


def world(given):
    return [(phrase.format(given), "I do not know. I am only a frog.") for phrase in WORLD]


def identity(item):
    return [item]


# What a task is about, what draws such an item, and what gives its pairs of question and answer. An item is asked in one of the
# tasks that are about the same.
TASKS = {
    "identity": ("Pip", creature.identity_question, identity),
    "name": ("name", items.name, name),
    "world": ("name", items.name, world),
    "spelling": ("word", items.word, spelling),
    "length": ("word", items.word, length),
    "counting": ("word", items.word_to_count, counting),
    "adding": ("numbers", items.two_numbers, adding),
    "comparing": ("numbers", items.two_numbers, comparing),
}


def exercise(rng, task, *, asked):
    """A question of a task, and its answer.

    asked: with an item that occurs nowhere else, in the one way that depends on the item.
    """
    about, make, ways = TASKS[task]
    alike = [each for each in TASKS if TASKS[each][0] == about]
    item = items.draw(rng, make, alike, task if asked else None)
    found = ways(item)
    return found[items.number_of(item, "way") % len(found)] if asked else rng.choice(found)
