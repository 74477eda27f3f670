"""Translate number words, both ways: `es>en veintidós: twenty-two`."""

from core import Example

from .numbers import LANGUAGES, spell


def documents(rng, *, languages: tuple[str, str] = ("es", "en"), below: int = 1000):
    unknown = set(languages) - set(LANGUAGES)
    if unknown:
        raise ValueError(f"no number words for {', '.join(sorted(unknown))}; there are {', '.join(LANGUAGES)}")
    while True:
        source, target = rng.sample(languages, 2)
        number = rng.randrange(below)
        direction = f"{source}>{target}"
        yield Example(f"{direction} {spell(number, source)}: ", spell(number, target) + "\n", group=direction)
