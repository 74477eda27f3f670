"""Figures that are measured once per machine: a key and a value go in, later runs get the value back.

They are kept in measured.json of the cache folder (core.files.cache_folder). A store that is damaged or cannot be
written is as good as an empty one: what is missing is measured again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable
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
    """Keep a JSON value under a key. Where the store is not to be had, or another process is writing it, nothing happens."""
    change(lambda values: values | {key: value})


def forget(beginning: str) -> None:
    """Drop the values of all keys that begin so; as `remember`, where it can be done."""
    change(lambda values: {key: value for key, value in values.items() if not key.startswith(beginning)})


def change(new: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with contextlib.suppress(OSError, RuntimeError, UserError):
        path = store()
        with files.lock(path.with_name(".measured.lock"), "the store of measured figures"):
            files.write_json(path, new(read()))


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
