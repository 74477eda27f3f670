"""Is the number of ones even or odd? A few of the solutions are worked out, most are the bare answer."""

from core import Example, UserError


def documents(rng, *, bits: int = 20, long: float = 0.2):
    """bits: digits of a question. long: the share of the solutions that are worked out."""
    if not 1 <= bits <= 1000:
        raise UserError(f"{bits = } is impossible", place="prepare.params.bits", remedy="Give 1 to 1,000.")
    if not 0 <= long <= 1:
        raise UserError(f"{long = } is not a share", place="prepare.params.long", remedy="Give a number from 0 to 1.")
    while True:
        yield example([rng.randrange(2) for _ in range(bits)], worked_out=rng.random() < long)


def example(digits, *, worked_out):
    """`0110=0`, or `0110=>0100:0`: after the arrow stands the parity of the first digit, of the first two, and so on."""
    parity, steps = 0, []
    for digit in digits:
        parity ^= digit
        steps.append(str(parity))
    work = f">{''.join(steps)}:" if worked_out else ""
    return Example("".join(map(str, digits)) + "=", f"{work}{parity}\n", group="long" if worked_out else "short")


def answer(text):
    """What counts is the last digit, however it was found."""
    return text.rstrip("\n")[-1:]
