"""Name the runs of a sweep after their settings and seeds. The names are short and unique."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from core.toml import toml_value

SHORT = {"learning_rate": "lr"}
LONGEST = 100  # characters: a file name may have 255 bytes, and that of the run's lock file is longer than its own


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Map each dotted key to its last part, or to as many parts as make it unique."""
    result: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            tail = parts[-count:]
            if sum(other.split(".")[-count:] == tail for other in keys) == 1:
                break
        result[key] = ".".join(tail)
    return result


def shown(value: Any) -> str:
    """A value as TOML; strings without quotes."""
    return value if isinstance(value, str) else toml_value(value)


def safe(text: str) -> str:
    """Replace everything but letters, digits and `._+=-` by _."""
    return re.sub(r"[^A-Za-z0-9._+=-]+", "_", text)


def digest(value: Any) -> str:
    """A checksum, six hexadecimal digits, of any value that JSON or TOML can hold."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:6]


def label(settings: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    """`lr0.001-n_layer2`, with a checksum at the end if it was shortened or characters were replaced."""
    plain = "-".join(f"{SHORT.get(keys[key], keys[key])}{shown(value)}" for key, value in settings.items())
    name = safe(plain)
    return name if name == plain and len(name) <= LONGEST else f"{name[:LONGEST]}-{digest(sorted(settings.items()))}"


def run_names(sweep: str, points: Sequence[tuple[Mapping[str, Any], int | None]]) -> list[str]:
    """`sweep-NAME-lr0.001-n_layer2-seed0` for each point. The names are unique even if upper and lower case are not told apart."""
    keys = short_keys(list(points[0][0]) if points else [])
    names = [
        "-".join(
            part for part in ("sweep", sweep, label(settings, keys), "" if seed is None else f"seed{seed}") if part
        )
        for settings, seed in points
    ]
    alike = Counter(name.lower() for name in names)
    return [
        f"{name}-{digest((sorted(settings.items()), seed))}" if alike[name.lower()] > 1 else name
        for name, (settings, seed) in zip(names, points, strict=True)
    ]
