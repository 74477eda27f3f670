"""Copy, reverse or sort the letters of a string: `cab: bac`."""

from typing import Literal

from core import Example, UserError

Task = Literal["copy", "reverse", "sort"]


def documents(
    rng,
    *,
    task: Task = "reverse",
    alphabet: str = "abcdefghij",
    min_letters: int = 2,
    max_letters: int = 8,
):
    if not alphabet or any(letter.isspace() for letter in alphabet):
        raise UserError(
            f"{alphabet = } has no letter, or white space",
            place="prepare.params.alphabet",
            remedy="Give letters: a line break ends an answer.",
        )
    if not 1 <= min_letters <= max_letters:
        raise UserError(
            f"there is no string of {min_letters} to {max_letters} letters",
            place="prepare.params.min_letters",
            remedy="Set 1 <= min_letters <= max_letters.",
        )
    while True:
        yield example(task, rng.choices(alphabet, k=rng.randint(min_letters, max_letters)))


def held_out(rng, *, task: Task = "reverse", alphabet: str = "abcdefghij", max_letters: int = 8, probes: int = 200):
    """Strings with one or two letters more than training ever shows. probes: how many."""
    for index in range(probes):
        yield example(task, rng.choices(alphabet, k=max_letters + 1 + index % 2))


def example(task, letters):
    answer = {"copy": letters, "reverse": letters[::-1], "sort": sorted(letters)}[task]
    count = f"{len(letters)} letter{'s' * (len(letters) > 1)}"
    return Example("".join(letters) + ": ", "".join(answer) + "\n", group=count)
