"""Put a space between the letters of a word: `cebe: c e b e`."""

from core import Example, UserError


def documents(rng, *, alphabet: str = "abcdefgh", max_letters: int = 4):
    if not alphabet or max_letters < 1:
        raise UserError("there are no such words", place="prepare.params", remedy="Give a letter and max_letters >= 1.")
    while True:
        letters = rng.choices(alphabet, k=rng.randint(1, max_letters))
        yield Example(prompt="".join(letters) + ": ", completion=" ".join(letters) + "\n")
