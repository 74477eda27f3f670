"""The tasks of the creature: each a question and its one right answer, from an item."""

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


def spelled(word):
    """The letters of a word, apart."""
    return " ".join(word)


def spelling(word):
    return f"{word}: {spelled(word)}."


def length(word):
    """Spelled first: a model counts what it has written."""
    return f"{spelled(word)}. That is {len(word)}."


def count(word, letter):
    """How often a letter is in a word."""
    return f"{spelled(word)}. I see {word.count(letter)}."


def addition(left, right):
    """As on paper: ones first, then tens with the carry."""
    ones, tens = left % 10 + right % 10, left // 10 + right // 10
    carry = ones // 10
    column = f"{left // 10} + {right // 10}" + (" + 1" if carry else "")
    return f"{left % 10} + {right % 10} is {ones}, {column} is {tens + carry}. So {left + right}."


def comparison(left, right):
    return f"{max(left, right)} is larger."


def name(given):
    return f"You are {given}."
