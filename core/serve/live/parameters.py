"""What an address asks for: its parameters, read with their limits."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import QueryParams

from core.serve.errors import Refused

LONGEST = 2000  # characters of a value


class Parameters:
    """The parameters of an address. Each way to read one raises Refused for what it cannot be.

    may_act: whether the request shows the token that actions need.
    """

    def __init__(self, values: QueryParams, *, may_act: bool = False) -> None:
        self.values, self.may_act = values, may_act

    def text(self, name: str) -> str:
        """A text; "" where it is not given."""
        found = self.values.get(name, "")
        if len(found) > LONGEST:
            raise Refused(f"{name} has more than {LONGEST:,} characters", param=name, code="too_large")
        return found

    def all(self, name: str) -> list[str]:
        """Every value of a parameter that may be given several times."""
        return self.values.getlist(name)

    def flag(self, name: str) -> bool:
        """Whether it is given, with another value than 0."""
        return self.values.get(name, "0") not in ("", "0", "false")

    def number(self, name: str, usual: int, least: int, most: int) -> int:
        """A whole number between two; the usual one where it is not given."""
        text = self.values.get(name, "")
        if not text:
            return usual
        if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
            raise Refused(
                f"{name} = {text[:60]!r} is no whole number from {least:,} to {most:,}",
                param=name,
                code="invalid_value",
            )
        return int(text)

    def one_of(self, name: str, known: Sequence[str]) -> str:
        """One of some words; the first one where it is not given."""
        found = self.values.get(name, "") or known[0]
        if found not in known:
            raise Refused(f"{name} = {found[:60]!r} is none of {', '.join(known)}", param=name, code="invalid_value")
        return found
