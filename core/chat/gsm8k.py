"""Answers of GSM8K as turns of the assistant with calls of the calculator, and back; and a verifier of such answers.

GSM8K (Cobbe et al. 2021, arXiv:2110.14168) marks what to calculate, and writes the final answer behind four signs:

    She sold 48/2 = <<48/2=24>>24 clips.
    #### 24
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from core.chat.conversation import Message
from core.errors import UserError

CALCULATOR = "calculator "
FINAL = "####"
# What stands before the last = is the expression. A mark of another form stays text.
MARK = re.compile(r"<<([^<>\s=]+(?: [^<>\s=]+)*)=([^<>\n=]*)>>")
NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
STRICT = re.compile(rf"\s*(-?)\s*\$?\s*({NUMBER})[.%]?\s*")
LAST = re.compile(rf"(?:(?<![\w.,)])(-)\s?\$?)?({NUMBER})")  # a minus behind a word or a number is none of the number
MOST_DIGITS = 100  # of a number that can be a final answer


def turns_of(answer: str) -> tuple[Message, ...]:
    """An answer of GSM8K as turns: each mark becomes a call of the calculator, with the result that the mark has.

    `answer_of` gives the answer back. Raises UserError if nothing stands behind the last mark, where a turn must end.
    """
    turns, end = list[Message](), 0
    for mark in MARK.finditer(answer):
        turns += [Message("assistant", answer[end : mark.start()], CALCULATOR + mark[1]), Message("tool", mark[2])]
        end = mark.end()
    if not answer[end:]:
        raise UserError(
            f"the answer ends with a call: {answer[-40:]!r}",
            remedy="Write what the assistant says about the result behind it.",
        )
    return (*turns, Message("assistant", answer[end:]))


def answer_of(turns: Sequence[Message]) -> str:
    """Turns of the assistant and the calculator as one text with marks. Raises UserError for a call of another tool."""
    parts = list[str]()
    for turn in turns:
        if turn.role == "tool":
            parts.append(f"{turn.content}>>")
            continue
        parts.append(turn.content)
        if turn.call:
            name, space, expression = turn.call.partition(" ")
            if name + space != CALCULATOR:
                raise UserError(
                    f"the call {turn.call!r} has no mark in GSM8K", remedy="Only calls of the calculator have one."
                )
            parts.append(f"<<{expression}=")
    return "".join(parts)


def final_answer(text: str, *, lenient: bool = False) -> str | None:
    """The number that an answer gives, in one spelling: 70000 for `#### $70,000.00`. None if it gives none.

    It stands behind the last `####` with nothing else. lenient: if it does not, it is the last number of the text.
    """
    _, sign, rest = text.rpartition(FINAL)
    if sign and (found := STRICT.fullmatch(rest)):
        return spelled(found[1] + found[2])
    numbers = LAST.findall(text) if lenient else []
    return spelled("".join(numbers[-1])) if numbers else None


def spelled(number: str) -> str | None:
    """A number without commas, and without zeros that say nothing. None if it is too long to be an answer."""
    if len(number) > MOST_DIGITS:
        return None
    value = Decimal(number.replace(",", ""))
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if not value else text


def score(text: str, reference: str, *, lenient: bool = False) -> float:
    """1.0 if an answer gives the same number as GSM8K's own answer, else 0.0. lenient: as for `final_answer`, of the text only."""
    truth = final_answer(reference)
    return float(truth is not None and final_answer(text, lenient=lenient) == truth)
