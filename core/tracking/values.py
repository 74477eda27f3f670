"""Convert values from a user's training loop (numpy, torch or Python) for a run folder."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Mapping
from typing import Any

from core.errors import UserError
from core.private import without_home


def number(name: str, value: Any) -> int | float:
    """Convert a number of Python or numpy, or a tensor with one element. Raises UserError for anything else."""
    value = unwrapped(value)
    if not name.isprintable() or not isinstance(value, (int, float)):
        raise UserError(
            f"{name!r} is {type(value).__name__}, but a row has only numbers",
            place="log_step",
            remedy="Give a number, or a tensor with one element.",
        )
    return float(value) if isinstance(value, float) else int(value)


def whole(name: str, value: Any) -> int:
    """Convert a whole number of Python, numpy or a tensor. Raises UserError for anything else."""
    value = unwrapped(value)
    if not isinstance(value, int):
        raise UserError(f"{name} is {value!r}", place="Tracker", remedy="Give a whole number, or leave it out.")
    return int(value)


def figure(name: str, value: Any) -> Any:
    """Convert a value for JSON; None for a number that is not finite. Raises UserError for types that JSON does not have."""
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
    """Convert a numpy number or a tensor with one element to a Python number. Anything else is returned as it is."""
    item = getattr(value, "item", None)
    if callable(item):
        with contextlib.suppress(ValueError, RuntimeError, TypeError):  # several elements; `item` of another kind
            return item()
    return value


def plain(value: Any) -> Any:
    """Convert a setting for TOML; other types become text. A path in the home folder starts with ~."""
    value = unwrapped(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value if item is not None]
    if isinstance(value, (bool, int, float, datetime.date, datetime.time)):
        return value
    return without_home(str(value))
