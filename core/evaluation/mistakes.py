"""What is wrong in wrong answers: their kinds, and the share of right tokens by position and by number of carries.

Answers are compared without the line break that ends them. Positions count from 1, from the start and from the end of the
truth; a token that the answer does not have is wrong.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from core.evaluation.exact_match import Answer

SUM = re.compile(r"\D*(\d+)\s*\+\s*(\d+)\D*")  # a prompt that asks for a sum of two numbers
Encode = Callable[[str], Sequence[int]]
Right = tuple[int, int]  # how many are right, and of how many


@dataclass(frozen=True)
class Anatomy:
    """What a set of answers looks like inside.

    kinds: of wrong answers, the most frequent first. tokens: right tokens of all. from_start, from_end: by position. carries:
    right answers by the number of carries, of prompts that ask for a sum.
    """

    kinds: dict[str, int]
    tokens: Right
    from_start: list[Right]
    from_end: list[Right]
    carries: dict[int, Right]

    def metrics(self, side: str) -> dict[str, float]:
        """For evaluation.json: `<side>_token_accuracy`, `<side>_start_accuracy/<position>`, `<side>_end_accuracy/<position>`,
        `<side>_carry_accuracy/<carries>`, and `<side>_mistakes/<kind>`."""
        shares = {f"{side}_token_accuracy": self.tokens}
        for name, places in (("start", self.from_start), ("end", self.from_end)):
            shares |= {f"{side}_{name}_accuracy/{place}": found for place, found in enumerate(places, 1)}
        shares |= {f"{side}_carry_accuracy/{carries}": found for carries, found in self.carries.items()}
        found = {name: right / count for name, (right, count) in shares.items() if count}
        return found | {f"{side}_mistakes/{kind}": count for kind, count in self.kinds.items()}


def anatomy(answers: Iterable[Answer], encode: Encode) -> Anatomy:
    """Look at all answers, right and wrong. encode: text to ids."""
    kinds: Counter[str] = Counter()
    by_carries: dict[int, list[bool]] = defaultdict(list)
    start: list[list[bool]] = []
    end: list[list[bool]] = []
    for answer in answers:
        truth, text = answer.example.completion.rstrip("\n"), answer.text.rstrip("\n")
        if not answer.correct:
            kinds[kind_of(answer.example.prompt, truth, text)] += 1
        if found := SUM.fullmatch(answer.example.prompt):
            by_carries[carries_of(int(found[1]), int(found[2]))].append(answer.correct)
        wanted, got = list(encode(truth)) if truth else [], list(encode(text)) if text else []
        note(start, wanted, got)
        note(end, wanted[::-1], got[::-1])
    every = [right for place in start for right in place]
    return Anatomy(
        dict(kinds.most_common()),
        (sum(every), len(every)),
        [(sum(place), len(place)) for place in start],
        [(sum(place), len(place)) for place in end],
        {carries: (sum(right), len(right)) for carries, right in sorted(by_carries.items())},
    )


def note(places: list[list[bool]], wanted: Sequence[int], got: Sequence[int]) -> None:
    """Add which of the wanted tokens are right to the lists of their positions."""
    for place, token in enumerate(wanted):
        if place == len(places):
            places.append([])
        places[place].append(place < len(got) and got[place] == token)


def kind_of(prompt: str, truth: str, text: str) -> str:
    """What is wrong with an answer, in the words of a table.

    Numbers: off by one, a carry lost or too many, digits too few or too many. An answer that is written backwards (the ones
    first), as the truth of the prompt's sum shows, is read backwards. Other text: too short, too long, reversed, in another
    order, one place wrong.
    """
    if not text:
        return "empty"
    if text == truth[::-1]:
        return "reversed"
    if truth.isdecimal() and text.isdecimal():
        asked = SUM.fullmatch(prompt)
        backwards = asked is not None and int(truth) != int(asked[1]) + int(asked[2]) == int(truth[::-1])
        return kind_of_number(*(part[::-1] if backwards else part for part in (truth, text)))
    if len(text) != len(truth):
        return "too short" if len(text) < len(truth) else "too long"
    if sorted(text) == sorted(truth):
        return "in another order"
    places = sum(a != b for a, b in zip(truth, text, strict=True))
    return "one place wrong" if places == 1 else f"{'several' if places < len(truth) else 'all'} places wrong"


def kind_of_number(truth: str, text: str) -> str:
    """What is wrong with a number of the usual order of digits."""
    if len(text) != len(truth):
        many = "a digit" if abs(len(text) - len(truth)) == 1 else "several digits"
        return f"{many} too {'few' if len(text) < len(truth) else 'many'}"
    difference = int(text) - int(truth)
    if abs(difference) == 1:
        return "off by one"
    if re.fullmatch("10+", str(abs(difference))):
        return "a carry lost" if difference < 0 else "a carry too many"
    places = sum(a != b for a, b in zip(truth, text, strict=True))
    return "one digit wrong" if places == 1 else "several digits wrong"


def carries_of(left: int, right: int) -> int:
    """How often a sum in base ten carries: 2 for 28 + 87."""
    count = carry = 0
    while left or right:
        carry = int(left % 10 + right % 10 + carry >= 10)
        count, left, right = count + carry, left // 10, right // 10
    return count
