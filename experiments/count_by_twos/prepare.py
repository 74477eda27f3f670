"""Count on by twos: `43 45 47 49`."""

from core import Example, UserError


def documents(rng, *, below: int = 100, step: int = 2, numbers: int = 4):
    if below < 1:
        raise UserError(
            f"{below = } leaves no number to start at", place="prepare.params.below", remedy="Set it to 1 or more."
        )
    if numbers < 2:
        raise UserError(
            f"{numbers = } leaves none to answer", place="prepare.params.numbers", remedy="Set it to 2 or more."
        )
    while True:
        start = rng.randrange(below)
        first, *rest = (str(start + step * i) for i in range(numbers))
        digits = f"{len(first)} digit{'s' * (len(first) > 1)}"
        yield Example(prompt=f"{first} ", completion=" ".join(rest) + "\n", group=digits)
