"""Words, names and numbers, and what each may be used for.

A hash of every item decides its use: it is asked in one task, or practised. An asked item stands in conversations with one
question only, always in the same words and in no other task. So the hash of the question, which decides the side of a
conversation, decides the side of the item, and held-out items occur nowhere else. Practised items are for everything that
has no side of its own: the texts of the earlier stages, and longer talks.
"""

import hashlib

STARTS = ("b", "br", "d", "dr", "f", "g", "gr", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
REAL = """
acorn bark beetle berry branch bud cave clay cloud cricket dew drop dust earth fern flower fly fog frog garden glass grass
heron ivy lake lamp leaf lichen light lizard log moon moss moth mud mushroom newt night oak pebble petal pond puddle rain
river rock root sand seed shadow shell snail soil spider spring star stem stone stream sun swamp terrarium toad tree twig
vine water web willow wind window winter wood worm apple banana bread butter cheese lemon orange pepper potato tomato
""".split()  # noqa: SIM905 - a list of words would be a page long
ENDS = ("", "", "", "l", "m", "n", "r", "s", "t")
NAMES = """
Ada Alex Amir Anna Ben Carla Chen Clara David Ella Emil Emma Eva Felix Finn Hana Hugo Ida Ines Jan Jonas Julia Kai Lara Lena Leo Li
Lina Luca Maria Max Mia Milo Nina Noah Nora Olga Oliver Omar Oscar Paul Priya Rosa Ruth Sam Sara Sofia Sophie Tara Theo Tim Tom
Vera Wei Yara Yusuf Zoe
""".split()  # noqa: SIM905
NAME_STARTS = (*STARTS, "", "", "c", "ch", "h", "j", "j", "ph", "sh", "th", "w", "y")
NAME_VOWELS = (*VOWELS, *VOWELS, "ai", "ea", "ee", "ia", "ie", "oo", "ou")
NAME_ENDS = (*ENDS, *ENDS, "ck", "h", "lf", "ll", "nd", "nn", "rt", "ss", "x", "y")
COMMON = frozenset((*REAL, *NAMES))


def number_of(item, purpose):
    """A number that depends on an item and a purpose only."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}:{item}".encode(), digest_size=8).digest(), "little")


def use_of(item, tasks):
    """The one of these tasks in which an item is asked, or None if it is practised.

    Three of four items are asked. Of real words and names it is one of four, because visitors say them in longer talks, too.
    """
    asked = (number_of(item, "use") % 4 == 0) == (item in COMMON)
    return tasks[number_of(item, "task") % len(tasks)] if asked else None


def draw(rng, make, tasks, use):
    """An item of this use. make(rng): draws one of any use."""
    while use_of(item := make(rng), tasks) != use:
        pass
    return item


def word(rng):
    """A made-up word of two or three syllables, so that no spelling is known from elsewhere; or a real one."""
    if rng.random() < 0.2:
        return rng.choice(REAL)
    return "".join(rng.choice(STARTS) + rng.choice(VOWELS) + rng.choice(ENDS) for _ in range(rng.choice((2, 2, 3))))


def word_to_count(rng):
    """A word; three of four times one in which a letter occurs twice or more."""
    repeats = rng.random() < 0.75
    while repeats and len(set(found := word(rng))) == len(found):
        pass
    return found if repeats else word(rng)


def name(rng):
    """A made-up name of a person or a place, of many forms, so that any name can be said again; or a real one."""
    if rng.random() < 0.2:
        return rng.choice(NAMES)
    syllables = rng.choice((1, 2, 2, 2, 3))
    parts = (rng.choice(NAME_STARTS) + rng.choice(NAME_VOWELS) + rng.choice(NAME_ENDS) for _ in range(syllables))
    return "".join(parts).capitalize()


def two_numbers(rng):
    """Two different numbers below 100, the smaller one first: 3 + 5 and 5 + 3 are one item."""
    return tuple(sorted(rng.sample(range(1, 100), 2)))
