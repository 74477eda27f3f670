"""Words, names and numbers, and what each may be used for.

Every item is either asked or practised, decided by a hash of it. An asked item stands in one conversation only: alone, in
the first question, always in the same words. So the hash of the question, which decides the side of a conversation,
decides the side of the question: no held-out question is asked in training, in whatever words. Another task may ask for the
same item. Practised items are for everything that has no side of
its own: the texts of the earlier stages, and later turns.
"""

import zlib

STARTS = ("b", "br", "d", "dr", "f", "g", "gr", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
REAL = """
acorn bark beetle berry branch bud cave clay cloud cricket dew drop dust earth fern flower fly fog frog garden glass grass
heron ivy lake lamp leaf lichen light lizard log moon moss moth mud mushroom newt night oak pebble petal pond puddle rain
river rock root sand seed shadow shell snail soil spider spring star stem stone stream sun swamp terrarium toad tree twig
vine water web willow wind window winter wood worm apple banana bread butter cheese lemon orange pepper potato tomato
""".split()  # noqa: SIM905 - a list of words would be a page long
ENDS = ("", "", "", "l", "m", "n", "r", "s", "t")


def number_of(item, purpose=""):
    """A number that depends on an item and a purpose only."""
    return zlib.crc32(f"{purpose}:{item}".encode())


def is_asked(item):
    """Whether an item is asked; three of four are. The others are practised."""
    return number_of(item, "use") % 4 != 0


def draw(rng, make, *, asked):
    """An item of the wanted use. make(rng): draws one of any use."""
    while is_asked(item := make(rng)) != asked:
        pass
    return item


def word(rng):
    """A made-up word of two or three syllables, so that no spelling is known from elsewhere; or a real one."""
    if rng.random() < 0.2:
        return rng.choice(REAL)
    return "".join(rng.choice(STARTS) + rng.choice(VOWELS) + rng.choice(ENDS) for _ in range(rng.choice((2, 2, 3))))


def name(rng):
    """A made-up name."""
    return "".join(rng.choice(STARTS) + rng.choice(VOWELS) + rng.choice(ENDS) for _ in range(2)).capitalize()


def two_numbers(rng):
    """Two different numbers below 100."""
    return tuple(rng.sample(range(1, 100), 2))


def in_same_words(phrases, item):
    """One of the phrases, always the same for an item."""
    return phrases[number_of(item, "words") % len(phrases)]
