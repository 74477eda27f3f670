"""Expressions that would execute code, or take all memory or time, if a calculator were careless.

As a program, `python hostile_sums.py COUNT SEED LIMIT_MIB`: calculates so many under a limit on memory, and prints as JSON
how many gave a value and how many an error, what was executed, and the longest time of one in seconds.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Iterator

MIB = 1 << 20
CODE = [
    "__import__('os').system('touch /tmp/x')", "().__class__.__bases__[0].__subclasses__()", "open('/etc/passwd').read()",
    "exec('1')", "eval('1+1')", "lambda: 1", "[x for x in range(10**9)]", "'a'*10**10", "print(1)", "f'{1}'", "1 if 1 else 2",
    "globals()", "1;2", "1\n2", "import os", "`id`", "$(id)", "{{7*7}}", "%s%n", "\x00", "\ud800", "\uff11+\uff11", "²", "1_000", "0x10", "1e9", "1j", "inf", "nan",
]  # fmt: skip
LARGE = [
    "9**9**9**9", "9**999999999", "(9**99)**99", "2**-999999999", "0.1**99999999", "1.0000001**999999999", "10**99*10**99",
    "(1+1/10**99)**10**49", "(-1)**(10**99)", "1/3**60**2", "99999999999**0.00000001", "2**0.5**0.5**0.5", "(-2)**0.5", "0**-1", "1%0", "1//0", "1/0",
    "7%10**-99", "10**99%0.0000001", "(10**99)//(10**-99)", "1" + "/7" * 200, "*".join(["1.1"] * 120), "+".join(["1/7", "1/11", "1/13", "1/17"] * 20),
]  # fmt: skip
DEEP = [
    "(" * 200,
    "(" * 400 + "1" + ")" * 40,
    "-" * 400 + "1",
    "2**" * 150 + "2",
    "2^-" * 150 + "2",
    "+(-(" * 120 + "1" + "))" * 120,
]
LONG = ["1" * 10**6, "1+" * 10**6, "(" * 10**6, " " * 10**6, "9" * 499, "." * 500, "1," * 10**5, "0." + "0" * 497 + "1"]
PARTS = ["1", "9", "0", "0.1", "99999", "1,000", ".", ",", "+", "-", "*", "**", "^", "/", "//", "%", "(", ")", " ", "x", "=", "e", "__", "'", "\n", "é"]  # fmt: skip


def hostile(count: int, seed: int) -> Iterator[str]:
    """So many expressions, each whole, changed, or made at random."""
    rng = random.Random(seed)
    known = [*CODE, *LARGE, *DEEP, *LONG]
    for number in range(count):
        if number < len(known):
            yield known[number]
            continue
        way = rng.random()
        if way < 0.4:
            yield "".join(rng.choices(PARTS, k=rng.randint(1, 60)))
        elif way < 0.6:
            yield "**".join(
                str(rng.choice([rng.randint(0, 10**9), rng.random(), -rng.randint(1, 99)]))
                for _ in range(rng.randint(2, 8))
            )
        else:
            text = rng.choice([*CODE, *LARGE, *DEEP])
            at = rng.randint(0, len(text))
            yield text[:at] + rng.choice(PARTS) + text[at + rng.randint(0, 2) :]


def main(count: int, seed: int, limit: int) -> None:
    from core.chat.calculator import ERROR, calculate

    calculate("1/3+2**0.5")
    expressions = list(hostile(count, seed))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + limit * MIB, hard))
    executed: list[str] = []
    sys.addaudithook(lambda event, _: executed.append(event))
    values = errors = 0
    longest = 0.0
    for text in expressions:
        begin = time.perf_counter()
        found = calculate(text)
        longest = max(longest, time.perf_counter() - begin)
        assert len(found) <= 220 and "\n" not in found, (text, found)
        errors += found.startswith(ERROR)
        values += not found.startswith(ERROR)
    print(json.dumps({"values": values, "errors": errors, "executed": executed, "longest": longest}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
