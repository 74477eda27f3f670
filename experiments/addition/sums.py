"""Draw pairs of numbers to add, balanced by digits and carries."""

import itertools

# Digit pairs of one column: those that carry, and those that do not, without and with a carry that comes in.
COLUMNS = {
    (carries, carry_in): [
        (a, b) for a, b in itertools.product(range(10), repeat=2) if (a + b + carry_in >= 10) == carries
    ]
    for carries, carry_in in itertools.product((False, True), repeat=2)
}


def pairs(rng, min_digits, max_digits):
    """Endless pairs. Every length of the longer number is equally likely, and then every number of carries."""
    while True:
        digits = rng.randint(min_digits, max_digits)
        carrying = set(rng.sample(range(digits), rng.randint(0, digits)))  # columns, 0 for the ones
        yield pair_that_carries(rng, digits, carrying)


def pair_that_carries(rng, digits, carrying):
    """A pair whose longer number has this many digits, and whose sum carries in these columns only."""
    left = right = 0
    for column in range(digits):
        a, b = rng.choice(COLUMNS[column in carrying, column - 1 in carrying])
        while a == b == 0 and column == digits - 1 > 0:  # the longer number begins with a digit above 0
            a, b = rng.choice(COLUMNS[column in carrying, column - 1 in carrying])
        left, right = left + a * 10**column, right + b * 10**column
    return left, right


def different_pairs(rng, min_digits, max_digits, count):
    """As many different pairs. More than half of all there are cannot be balanced: they are drawn from all alike."""
    smallest = smallest_longer(min_digits)
    if 2 * count <= number_of_pairs(min_digits, max_digits):
        source = pairs(rng, min_digits, max_digits)
    else:
        every = range(10 ** (2 * max_digits))
        source = (pair for pair in (divmod(number, 10**max_digits) for number in rng.sample(every, len(every))))
        source = (pair for pair in source if max(pair) >= smallest)
    seen = set()
    while len(seen) < count:
        pair = next(source)
        if pair not in seen:
            seen.add(pair)
            yield pair


def number_of_pairs(min_digits, max_digits):
    """How many pairs there are whose longer number has min_digits to max_digits digits."""
    return 10 ** (2 * max_digits) - smallest_longer(min_digits) ** 2


def smallest_longer(min_digits):
    """The smallest number of this many digits; 0 has one."""
    return 10 ** (min_digits - 1) if min_digits > 1 else 0


def carries(left, right):
    """How often a sum carries: 2 for 28 + 87."""
    count = carry = 0
    while left or right:
        carry = left % 10 + right % 10 + carry >= 10
        count, left, right = count + carry, left // 10, right // 10
    return count
