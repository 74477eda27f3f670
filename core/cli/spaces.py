"""Read the options --seeds, --grid and --range of `sweep`. Imported only when a sweep starts: it needs pydantic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.cli.overrides import full_key
from core.errors import UserError
from core.sweeps.space import MOST_POINTS, Grid, Range
from core.toml import NoToml, parsed, read_override, shortened


def read_seeds(text: str) -> tuple[int, ...]:
    """Read `0..4` (both ends included), `0,1,2`, or a mixture: `0..2,7`. Repeated seeds count once. Raises UserError."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})\s*(?:\.\.\s*(\d{1,18})\s*)?", part, re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last:
            raise UserError(
                "seeds are whole numbers, or ranges of them", place=f"--seeds {shortened(text)}", remedy="For example: --seeds 0..4 or --seeds 0,1,2"
            )  # fmt: skip
        if last - first >= MOST_POINTS:
            raise UserError(f"a sweep of {last - first + 1:,} runs", place=f"--seeds {shortened(text)}", remedy=f"Take fewer: {MOST_POINTS:,} runs at most.")  # fmt: skip
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def read_grid(text: str) -> Grid:
    """Read `KEY=V1,V2`. The values are TOML; anything that is not valid TOML is a string. Raises UserError."""
    key, raw = parts_of(text, "--grid", "train.optim.learning_rate=1e-3,3e-3")
    try:
        found = parsed(f"value = [{raw}]")
        values = found["value"] if len(found) == 1 else []
    except NoToml:
        values = [
            value_at(read_override(f"{key}={part.strip()}").values, key) for part in raw.split(",") if part.strip()
        ]
    if not values:
        raise UserError(
            "no values to try", place=f"--grid {shortened(text)}", remedy="For example: --grid train.model.n_layer=2,4"
        )
    return Grid(key, tuple({repr(value): value for value in values}.values()))


def read_range(text: str) -> Range:
    """Read `KEY=LOW..HIGH` or `KEY=LOW..HIGH:log`. Raises UserError."""
    example = "train.optim.learning_rate=1e-4..1e-2:log"
    key, raw = parts_of(text, "--range", example)
    found = re.fullmatch(r"([^:]+?)\.\.([^:]+?)(:log)?", raw.strip())
    low, high = (number(found[1]), number(found[2])) if found else (None, None)
    place = f"--range {shortened(text)}"
    if found is None or low is None or high is None:
        raise UserError("a range is KEY=LOW..HIGH or KEY=LOW..HIGH:log, with numbers", place=place, remedy=f"For example: --range {example}")  # fmt: skip
    if not low < high:
        raise UserError(f"{low:g} is not below {high:g}", place=place, remedy=f"For example: --range {example}")
    if found[3] and low <= 0:
        raise UserError("a logarithmic range must start above 0", place=place, remedy=f"For example: --range {example}")
    return Range(key, low, high, bool(found[3]))


def parts_of(text: str, option: str, example: str) -> tuple[str, str]:
    """Split `KEY=...` into the key and the rest. Raises UserError."""
    key, equals, raw = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key.strip()):
        raise UserError(
            "it must have the form section.key=...",
            place=f"{option} {shortened(text)}",
            remedy=f"For example: {option} {example}",
        )
    return full_key(key.strip()), raw


def number(text: str) -> int | float | None:
    """A finite number, an int if it is written as one; None for anything else."""
    try:
        value = parsed(f"value = {text.strip()}").get("value")
    except NoToml:
        return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else None


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of nested values."""
    for part in key.split("."):
        values = values[part]
    return values
