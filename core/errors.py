"""Errors that users see: a place, what was found there, what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user's input, files or settings are wrong. The command line prints only the message and exits with 2.

    message: what was found. place: the file and line, config key or `argument` where. remedy: what to do next.
    """

    def __init__(self, message: str, *, place: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.place, self.remedy = message, place, remedy

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head}\n  {self.remedy}" if self.remedy else head

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"error: {self}"]


class RunFailed(Exception):
    """A run could not go on (the loss is not finite, the disk is full). What it saved is complete. Exit code 1."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"failed: {self}"]


class Interrupted(Exception):
    """A signal stopped the work; everything done so far is saved. number: the signal. remedy: how to go on."""

    def __init__(self, number: int, remedy: str) -> None:
        super().__init__(remedy)
        self.number, self.remedy = number, remedy

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"interrupted, and saved. {self.remedy}".strip()]


class Stopped(Exception):
    """A signal ended the work outside training, where there is nothing to save. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def first_line(error: BaseException) -> str:
    """The first line of an error of a library, or its class; at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the most similar known name, or a list of the known ones; "" if there are none."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(names)}." if names else ""
