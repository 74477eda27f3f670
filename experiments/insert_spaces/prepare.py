"""Put a space between the letters of a word: `cebe: c e b e`."""

from core import Example, UserError


def documents(rng, *, alphabet: str = "abcde", max_letters: int = 3):
    if not alphabet:
        raise UserError('alphabet = "" has no letters', place="prepare.params.alphabet", remedy="Name one at least.")
    if max_letters < 1:
        raise UserError(
            f"{max_letters = } leaves no words", place="prepare.params.max_letters", remedy="Set it to 1 or more."
        )
    while True:
        letters = rng.choices(alphabet, k=rng.randint(1, max_letters))
        yield Example(prompt="".join(letters) + ": ", completion=" ".join(letters) + "\n")
