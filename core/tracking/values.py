"""Convert what a user's own loop hands over (numpy, torch or Python) to what a run folder can hold."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Mapping
from typing import Any

from core.errors import UserError
from core.private import without_home


def number(name: str, value: Any) -> int | float:
    """A number of Python, of numpy or of a tensor with one element. Raises UserError for anything else."""
    value = unwrapped(value)
    if not name.isprintable() or not isinstance(value, (int, float)):
        raise UserError(
            f"{name!r} is {type(value).__name__}, and a row holds numbers",
            place="log_step",
            remedy="Give a number, or a tensor with one element.",
        )
    return float(value) if isinstance(value, float) else int(value)


def whole(name: str, value: Any) -> int:
    """A whole number of Python, of numpy or of a tensor. Raises UserError for anything else."""
    value = unwrapped(value)
    if not isinstance(value, int):
        raise UserError(f"{name} is {value!r}", place="Tracker", remedy="Give a whole number, or leave it out.")
    return int(value)


def figure(name: str, value: Any) -> Any:
    """A figure as JSON can hold it, null for a number that is not finite. Raises UserError for what JSON has no type for."""
    value = unwrapped(value)
    if isinstance(value, Mapping):
        return {str(key): figure(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [figure(name, item) for item in value]
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise UserError(
            f"{name} is {type(value).__name__}, which summary.json cannot hold",
            place="finalize",
            remedy="Give a number, text, or a list or dict of these.",
        )
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unwrapped(value: Any) -> Any:
    """A number of numpy, or a tensor with one element, as Python's own; anything else as it is."""
    item = getattr(value, "item", None)
    if callable(item):
        with contextlib.suppress(
            ValueError, RuntimeError, TypeError
        ):  # more elements than one; an item of another sort
            return item()
    return value


def plain(value: Any) -> Any:
    """A setting as TOML can hold it; what it has no type for as text. A path in the home folder starts with ~."""
    value = unwrapped(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value if item is not None]
    if isinstance(value, (bool, int, float, datetime.date, datetime.time)):
        return value
    return without_home(str(value))
