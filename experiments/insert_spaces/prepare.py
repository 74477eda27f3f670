"""Put a space between the letters of a word: `cebe: c e b e`."""

from core import Example


def documents(rng, *, alphabet: str = "abcde", max_letters: int = 3):
    while True:
        letters = rng.choices(alphabet, k=rng.randint(1, max_letters))
        yield Example(prompt="".join(letters) + ": ", completion=" ".join(letters) + "\n")
