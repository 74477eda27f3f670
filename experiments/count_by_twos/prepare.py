"""Count on by twos: `43 45 47 49`."""

from core import Example


def documents(rng, *, below: int = 100, step: int = 2, numbers: int = 4):
    while True:
        start = rng.randrange(below)
        first, *rest = (str(start + step * i) for i in range(numbers))
        yield Example(prompt=f"{first} ", completion=" ".join(rest) + "\n")
