"""The kinds of tasks of the DCLM bundle: a line of a data file -> an Item."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import UserError, did_you_mean
from core.evaluation.suites.task import Item, Option

Found = Mapping[str, Any]
MULTIPLE_CHOICE, SCHEMA, LANGUAGE_MODELING = "multiple choice", "schema", "language modeling"


def choice_options(found: Found) -> list[Option]:
    """One context with several continuations."""
    return [(text(found["query"]), text(choice)) for choice in found["choices"]]


def schema_options(found: Found) -> list[Option]:
    """Several contexts with one continuation."""
    return [(text(context), text(found["continuation"])) for context in found["context_options"]]


def language_options(found: Found) -> list[Option]:
    """One context with one continuation."""
    return [(text(found["context"]), text(found["continuation"]))]


KINDS: dict[str, tuple[Callable[[Found], list[Option]], str]] = {
    MULTIPLE_CHOICE: (choice_options, '{"query": "2+2=", "choices": ["4", "5"], "gold": 0}'),
    SCHEMA: (schema_options, '{"context_options": ["one is", "two are"], "continuation": "a number", "gold": 0}'),
    LANGUAGE_MODELING: (language_options, '{"context": "2+2=", "continuation": "4"}'),
}


def text(value: Any) -> str:
    """A text without the space around it, which datasets have by accident. Raises ValueError for no text and for other values."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def known_kind(kind: str, place: str) -> str:
    """A kind of KINDS. Raises UserError for an unknown one."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of task '{kind}'", place=place, remedy=did_you_mean(kind, KINDS))
    return kind


def read_item(kind: str, line: str, place: str) -> Item:
    """The item of a line. Raises UserError for a line of another form."""
    options_of, form = KINDS[kind]
    try:
        found = json.loads(line)
        options = options_of(found)
        gold = 0 if kind == LANGUAGE_MODELING else found["gold"]
        if type(gold) is not int or not 0 <= gold < len(options) or (kind != LANGUAGE_MODELING and len(options) < 2):
            raise ValueError
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UserError(f"no item of the kind {kind}", place=place, remedy=f"Each line is like {form}.") from None
    return Item(tuple(options), gold, place)
