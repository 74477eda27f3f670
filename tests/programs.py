"""Programming problems in HumanEval's form, of our own making, with right and wrong answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# name, parameters, what it does, right body, a mutation of it, what check asserts
MADE = [
    ("add_all", "numbers", "The sum of the numbers.", "return sum(numbers)", ("sum", "max"), ["candidate([1, 2]) == 3", "candidate([]) == 0"]),
    ("longest", "words", "The longest word, the first of equal ones.", "return max(words, key=len)", ("max", "min"), ["candidate(['a', 'bb', 'cc']) == 'bb'"]),
    ("is_even", "number", "Whether a number is even.", "return number % 2 == 0", ("== 0", "== 1"), ["candidate(4) is True", "candidate(-3) is False"]),
    ("backwards", "text", "The text from its end.", "return text[::-1]", ("::-1", "::1"), ["candidate('abc') == 'cba'"]),
    ("gcd", "a, b", "The greatest common divisor.", "while b:\n        a, b = b, a % b\n    return a", ("return a", "return b"), ["candidate(12, 18) == 6", "candidate(7, 3) == 1"]),
    ("evens", "numbers", "The even numbers in their order.", "return [n for n in numbers if n % 2 == 0]", ("% 2 == 0", "% 2"), ["candidate([3, 2, 4]) == [2, 4]"]),
    ("count", "text", "How often each letter occurs.", "found = {}\n    for letter in text:\n        found[letter] = found.get(letter, 0) + 1\n    return found", ("+ 1", "+ 2"), ["candidate('aba') == {'a': 2, 'b': 1}"]),
    ("power", "base, exponent", "A power with a whole exponent.", "return 1 if exponent == 0 else base * power(base, exponent - 1)", ("base *", "base +"), ["candidate(2, 10) == 1024"]),
    ("flat", "rows", "The rows one after the other.", "return [each for row in rows for each in row]", ("[each for row", "[row for row"), ["candidate([[1], [2, 3]]) == [1, 2, 3]"]),
    ("rounded", "number", "Rounded up.", "return math.ceil(number)", ("ceil", "floor"), ["candidate(1.2) == 2", "candidate(-0.5) == 0"]),
    ("raises", "number", "The number; ValueError if it is negative.", "if number < 0:\n        raise ValueError\n    return number", ("raise ValueError", "pass"), ["candidate(3) == 3", "refused(candidate)"]),
    ("twice", "text", "The text encoded and decoded.", "return half(text) + half(text)", ("half(text) + half(text)", "half(text)"), ["candidate('abcd') == 'abab'"]),
]  # fmt: skip
HEAD = "import math\n\n\ndef half(text):\n    return text[: len(text) // 2]\n\n\n"
TEST = "def refused(function):\n    try:\n        function(-1)\n    except ValueError:\n        return True\n    return False\n\n\n"


def problems() -> list[dict[str, str]]:
    """The problems as HumanEval writes them."""
    return [
        {
            "task_id": f"Made/{number}",
            "prompt": f'{HEAD}def {name}({parameters}):\n    """{what}"""\n',
            "entry_point": name,
            "canonical_solution": f"    {body}\n",
            "test": TEST + "def check(candidate):\n" + "".join(f"    assert {each}\n" for each in checks),
        }
        for number, (name, parameters, what, body, _, checks) in enumerate(MADE)
    ]


def mutated() -> list[str]:
    """A wrong answer to each problem."""
    return [f"    {body.replace(old, new, 1)}\n" for _, _, _, body, (old, new), _ in MADE]


def write_problems(path: Path, lines: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """A file of problems, packed where its name says so."""
    data = "".join(f"{json.dumps(line)}\n" for line in (problems() if lines is None else lines)).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
