"""Remember figures that are measured once per machine, in measured.json of the cache folder.

A store that is damaged or cannot be written counts as empty: what is missing is measured again.
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
    """What was remembered under a key: a JSON value, or None. Whoever asks checks that it is of the right kind."""
    return read().get(key)


def remember(key: str, value: Any) -> None:
    """Keep a JSON value under a key. Does nothing where the store cannot be written, or another process writes it."""
    with contextlib.suppress(OSError, RuntimeError, UserError):
        path = store()
        with files.lock(path.with_name(".measured.lock"), "the store of measured figures"):
            files.write_json(path, read() | {key: value})


def store() -> Path:
    """The file. Raises RuntimeError where the user has no home."""
    return files.cache_folder() / "measured.json"


def read() -> dict[str, Any]:
    """Everything that is remembered; {} where the store is missing or damaged."""
    try:
        values = json.loads(store().read_bytes())
    except (OSError, RuntimeError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


@functools.cache
def machine_key() -> str:
    """Names what a figure depends on and no setting changes: processor, cores, version of torch, GPUs."""
    parts = [cpu_name(), f"{cores()} cores", f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        parts += sorted({torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())})
    return ", ".join(parts)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # a container or a batch system may have given it some of them only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
