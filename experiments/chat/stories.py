"""Very short stories and facts of the terrarium, from a small grammar."""

ANIMALS = ("snail", "frog", "beetle", "ant", "spider", "worm", "moth", "lizard", "cricket", "newt")
FORMS = ("small", "green", "old", "shy", "brave", "quick", "slow", "happy", "sleepy", "round")
PLACES = ("leaf", "stone", "pond", "root", "log", "moss", "branch", "fern", "puddle", "cave")
THINGS = ("drop of water", "seed", "shell", "feather", "berry", "bit of sand", "petal", "twig")
TROUBLES = ("it was too heavy", "the rain began", "it fell down", "it got dark", "the wind was strong", "it was lost")
ENDS = (
    "They shared it and were friends.",
    "In the end they slept side by side.",
    "From then on they met every day.",
    "They laughed and went home.",
    "And the {first} was not alone any more.",
)
WISHES = ("Tell me a story.", "Tell me a story about {}.", "A story about {}, please.", "Do you know a story of {}?")


def a(noun):
    """A noun, or an adjective, with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def story(rng, first=""):
    """A story about an animal."""
    first = first or rng.choice(ANIMALS)
    second = rng.choice([animal for animal in ANIMALS if animal != first])
    form, place, thing = rng.choice(FORMS), rng.choice(PLACES), rng.choice(THINGS)
    begin = rng.choice(
        (f"Once {a(form)} {first} lived under a {place}.", f"There was {a(form)} {first} who lived near a {place}.")
    )
    middle = rng.choice(
        (
            f"One day it found {a(thing)}, but {rng.choice(TROUBLES)}.",
            f"It wanted {a(thing)}. But {rng.choice(TROUBLES)}.",
        )
    )
    help_came = rng.choice(
        (
            f"{a(rng.choice(FORMS)).capitalize()} {second} came and helped.",
            f'"I will help you," said {a(rng.choice(FORMS))} {second}.',
        )
    )
    return " ".join((begin, middle, help_came, rng.choice(ENDS).format(first=first)))


def fact(rng):
    """A sentence about the terrarium."""
    animal, place = rng.choice(ANIMALS), rng.choice(PLACES)
    return rng.choice(
        (
            f"The {animal} sits on the {place}.",
            f"{a(animal).capitalize()} likes the {place} when it is wet.",
            f"At night the {animal} hides in the {place}.",
            f"Water runs down the {place}, and the {animal} drinks.",
            f"By day the {animal} is {rng.choice(FORMS)}.",
        )
    )
