"""Write a sum as a prompt and a completion, in the formats of Lee et al. (arXiv:2307.03381) and two relatives of theirs."""

from typing import Literal

Format = Literal["plain", "zero_padded", "reversed", "dollar", "simple", "detailed"]


def written(left, right, format, width):
    """Prompt and completion. width: digits of each number if they are padded; the answer then has one more."""
    answer = str(left + right)
    if format == "zero_padded":
        return f"{left:0{width}}+{right:0{width}}=", f"{left + right:0{width + 1}}\n"
    if format == "dollar":
        return f"${left}+{right}=", f"{answer}$"
    if format in ("simple", "detailed"):
        steps = simple_steps(left, right) if format == "simple" else detailed_steps(left, right)
        return f"{left}+{right}:\n", "".join(f"{step}\n" for step in steps) + f"{answer}\n"
    return f"{left}+{right}=", f"{answer[::-1] if format == 'reversed' else answer}\n"


def columns(left, right):
    """Digits of both numbers, the carry that comes in, the digit of the answer, and the carry; from the ones on."""
    carry = 0
    for place in range(len(str(max(left, right)))):
        a, b = left // 10**place % 10, right // 10**place % 10
        carry_in, (carry, digit) = carry, divmod(a + b + carry, 10)
        yield a, b, carry_in, digit, carry


def simple_steps(left, right):
    """Digit and carry of each column: `A->5 , C->1`."""
    return [f"A->{digit} , C->{carry}" for _, _, _, digit, carry in columns(left, right)]


def detailed_steps(left, right):
    """Everything that is done by hand: which digits are left, the answer so far, and each column as a sum."""
    x, y, so_far, carry = digits(left), digits(right), [], 0
    steps = ["<scratch>"]
    steps += [f"{listed(number)} has {len(number)} digit{'s' * (len(number) > 1)}." for number in (x, y)]
    for a, b, carry_in, digit, carry_out in columns(left, right):
        steps.append(
            f"{listed(x)} + {listed(y)} , A={listed(so_far)} , C={carry_in} , "
            f"{a}+{b}+{carry_in}={a + b + carry_in} , A->{digit} , C->{carry_out}"
        )
        x, y, so_far, carry = x[:-1], y[:-1], [digit, *so_far], carry_out
    return [*steps, f"[] + [] , A={listed(so_far)} , C={carry} , END", "</scratch>"]


def digits(number):
    """12 -> [1, 2]."""
    return [int(digit) for digit in str(number)]


def listed(numbers):
    """[1, 2] -> "[1,2]"."""
    return str(numbers).replace(" ", "")
