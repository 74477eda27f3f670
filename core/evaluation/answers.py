"""What answers get right and wrong: pairs of a truth and an answer -> accuracy by place and by carries, and kinds of errors.

A place is a token of the encoder: a character, or a number that is one token. Places are counted from the start (1 is the
first token) and from the end (1 is the last one: the ones of a sum). The text that ends every completion is no place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from core.encoders.base import Encoder
from core.errors import UserError
from core.evaluation.exact_match import Answer

DETAILS = "details"  # the key of evaluation.json
MOST_PLACES = 64
SUM = re.compile(r"[^\d+.,-]*(\d+)\s*\+\s*(\d+)[^\d+.,]*")  # 12+34= and $12 + 34$, but no 1+2+3, 1.5+2 or -1+2
EMPTY, REVERSED = "empty", "reversed"
ONE, LOST, ADDED = "off by one", "a carry lost", "a carry too many"
FEW, MANY, DIGIT = "a digit too few", "a digit too many", "one digit wrong"
SHORT, LONG, ORDER, PLACE, OTHER = "too short", "too long", "in another order", "one character wrong", "other"
KINDS = (EMPTY, REVERSED, ONE, LOST, ADDED, FEW, MANY, DIGIT, SHORT, LONG, ORDER, PLACE, OTHER)  # of errors

Pair = tuple[Sequence[Hashable], Sequence[Hashable]]  # the tokens of a truth and of an answer
Shares = list[list[int]]  # [right, counted] of each place


def token_accuracy(pairs: Iterable[Pair]) -> tuple[int, int]:
    """How many tokens of the truths stand in the answers at the same place, counted from the start; and how many there are."""
    places = by_place(pairs)
    return sum(right for right, _ in places), sum(counted for _, counted in places)


def by_place(pairs: Iterable[Pair], *, from_end: bool = False) -> Shares:
    """[right, counted] of each place of the truths. An answer that is too short is wrong in the places that it lacks."""
    found: Shares = []
    for truth, answer in pairs:
        one, other = (truth[::-1], answer[::-1]) if from_end else (truth, answer)
        found += [[0, 0] for _ in range(len(one) - len(found))]
        for place, token in enumerate(one):
            found[place][0] += place < len(other) and other[place] == token
            found[place][1] += 1
    return found


def summands(prompt: str) -> tuple[int, int] | None:
    """a and b of a prompt `a+b`, with whatever stands before and behind; None for any other."""
    found = SUM.fullmatch(prompt)
    return None if found is None else (int(found[1]), int(found[2]))


def carries(a: int, b: int) -> list[int]:
    """The places, from the ones = 0, that get a carry when a and b are added in base ten."""
    found, carry, place = [], 0, 0
    while a or b:
        carry = (a % 10 + b % 10 + carry) >= 10
        a, b, place = a // 10, b // 10, place + 1
        if carry:
            found.append(place)
    return found


def by_carries(answers: Iterable[tuple[str, str, bool]]) -> dict[int, list[int]]:
    """Number of carries -> [right, counted], of (prompt, truth, whether the answer is right) where the prompt is `a+b`.

    {} if the truth of such a prompt does not have the digits of the sum, in either order: that is other arithmetic, such as
    addition modulo p.
    """
    found: dict[int, list[int]] = {}
    for prompt, truth, correct in answers:
        if (pair := summands(prompt)) is not None:
            digits, total = re.sub(r"\D", "", truth), str(sum(pair))
            if total not in digits and total[::-1] not in digits:
                return {}
            counts = found.setdefault(len(carries(*pair)), [0, 0])
            counts[0] += correct
            counts[1] += 1
    return dict(sorted(found.items()))


def kind_of_error(prompt: str, truth: str, answer: str) -> str:
    """What is wrong with an answer, as one of KINDS; the first that fits. Both without the text that ends a completion.

    Sums that are written from the ones on, as 12+9= -> 12, are read so: the prompt tells the sum.
    """
    pair = summands(prompt)
    if not answer.strip():
        return EMPTY
    if len(truth) > 1 and answer == truth[::-1]:
        return REVERSED
    if truth.isdecimal() and answer.isdecimal():
        if pair is not None and int(truth) != sum(pair) == int(truth[::-1]):
            truth, answer = truth[::-1], answer[::-1]
        return kind_of_wrong_number(truth, answer, carries(*pair) if pair and int(truth) == sum(pair) else None)
    if len(answer) != len(truth):
        return SHORT if len(answer) < len(truth) else LONG
    if sorted(answer) == sorted(truth):
        return ORDER
    return PLACE if differences(truth, answer) == 1 else OTHER


def kind_of_wrong_number(truth: str, answer: str, carried: Sequence[int] | None) -> str:
    """`kind_of_error` for decimal digits, the ones last. carried: the places that a sum's carries go to; None: it is no sum.

    A computation that forgets the carry into place k is too small by 10^k, whatever follows from that; one that carries into
    a place that gets none is too large by as much.
    """
    missing = int(truth) - int(answer)
    if abs(missing) == 1:
        return ONE
    digits = str(abs(missing))[::-1]
    places = [place for place, digit in enumerate(digits) if digit != "0"]
    if carried is not None and places and set(digits) <= {"0", "1"} and len(answer) <= len(truth) + 1:
        if missing > 0 and all(place in carried for place in places):
            return LOST
        if missing < 0 and not any(place in carried or place == 0 for place in places):
            return ADDED
    if len(answer) != len(truth):
        longer = len(answer) - len(truth)
        return {-1: FEW, 1: MANY}.get(longer, SHORT if longer < 0 else LONG)
    return DIGIT if differences(truth, answer) == 1 else OTHER


def differences(one: str, other: str) -> int:
    """How many characters differ, of texts of one length."""
    return sum(a != b for a, b in zip(one, other, strict=True))


def errors(answers: Iterable[Answer], stop: str) -> list[tuple[str, Answer]]:
    """The wrong answers, each with the kind of its error. stop: the text that ends every completion."""
    found = []
    for answer in answers:
        if not answer.correct:
            truth, text = (part.removesuffix(stop).strip() for part in answer.pair)
            found.append((kind_of_error(answer.example.prompt, truth, text), answer))
    return found


def tokens_of(encoder: Encoder, stop: str) -> Callable[[str], tuple[Hashable, ...]]:
    """A function from a completion to its tokens, without the text that ends it. Text that cannot be encoded: its characters."""
    known: dict[str, tuple[Hashable, ...]] = {}

    def tokens(text: str) -> tuple[Hashable, ...]:
        if text not in known:
            inner = text.removesuffix(stop)
            try:
                known[text] = tuple(encoder.encode(inner).tolist())
            except UserError:
                known[text] = tuple(inner)
        return known[text]

    return tokens


def details(answers: Sequence[Answer], encoder: Encoder, stop: str) -> dict[str, Any]:
    """For evaluation.json: what the answers to the prompts of one side get right and wrong.

    token_accuracy: share of the truths' tokens. from_start, from_end: [right, counted] of each place, the first MOST_PLACES.
    carries: number of carries -> [right, counted] answers, of prompts `a+b`. errors: kind -> number, of the wrong answers.
    """
    tokens = tokens_of(encoder, stop)
    pairs = [(tokens(truth), tokens(text)) for truth, text in (answer.pair for answer in answers)]
    right, counted = token_accuracy(pairs)
    kinds = Counter(kind for kind, _ in errors(answers, stop))
    carried = by_carries((answer.example.prompt, answer.pair[0], answer.correct) for answer in answers)
    return {
        "prompts": len(answers),
        "token_accuracy": right / counted if counted else None,
        "from_start": by_place(pairs)[:MOST_PLACES],
        "from_end": by_place(pairs, from_end=True)[:MOST_PLACES],
        "carries": {str(number): counts for number, counts in carried.items()},
        "errors": {kind: kinds[kind] for kind in KINDS if kinds[kind]},
    }
