"""Store what is measured once per machine, in measured.json of the cache folder.

A file that is damaged or cannot be written counts as empty: the values are measured again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import Any

import torch

from core import files
from core.errors import UserError
from core.tracking.environment import cpu_name


def recall(key: str) -> Any | None:
    """The JSON value stored under a key, or None. The caller checks its type."""
    return read().get(key)


def remember(key: str, value: Any) -> None:
    """Store a JSON value under a key. Does nothing if the file cannot be written, or another process is writing it."""
    with contextlib.suppress(OSError, RuntimeError, UserError):
        path = store()
        with files.lock(path.with_name(".measured.lock"), "the store of measured figures"):
            files.write_json(path, read() | {key: value})


def store() -> Path:
    """The path of the file. Raises RuntimeError if the user has no home folder."""
    return files.cache_folder() / "measured.json"


def read() -> dict[str, Any]:
    """Everything in the file; {} if it is missing or damaged."""
    try:
        values = json.loads(store().read_bytes())
    except (OSError, RuntimeError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


@functools.cache
def machine_key() -> str:
    """What a measurement depends on besides the settings: processor, cores, torch's version, GPUs."""
    parts = [cpu_name(), f"{cores()} cores", f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        parts += sorted({torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())})
    return ", ".join(parts)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # a container or batch system may allow only some of them
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
