"""Translate number words, both ways: `es>en veintidós: twenty-two`."""

from core import Example, UserError

from .numbers import LANGUAGES, spell


def documents(rng, *, languages: tuple[str, str] = ("es", "en"), below: int = 1000):
    unknown = set(languages) - set(LANGUAGES)
    if unknown:
        raise UserError(
            f"no number words for {', '.join(sorted(unknown))}",
            place="prepare.params.languages",
            remedy=f"Choose two of {', '.join(LANGUAGES)}.",
        )
    if not 0 < below <= 1_000_000:
        raise UserError(f"{below = } has no words", place="prepare.params.below", remedy="Choose from 1 to 1,000,000.")
    while True:
        source, target = rng.sample(languages, 2)
        number = rng.randrange(below)
        direction = f"{source}>{target}"
        yield Example(f"{direction} {spell(number, source)}: ", spell(number, target) + "\n", group=direction)
