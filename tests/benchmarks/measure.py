"""Timing that a shared machine does not spoil: functions in, their median times out, measured in turns."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Step = Callable[[], Any]


def medians(steps: dict[str, Step], repeats: int, warmup: int = 3) -> dict[str, float]:
    """Median seconds of each function. They run in turns, so that what slows the machine slows all of them."""
    for step in steps.values():
        for _ in range(warmup):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def nanogpt_model(folder: Path, **arguments: Any) -> Any:
    """nanoGPT's GPT, from a checkout of https://github.com/karpathy/nanoGPT; arguments: those of its GPTConfig."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.GPT(module.GPTConfig(dropout=0.0, bias=False, **arguments))


def print_table(title: str, rows: dict[str, dict[str, str]]) -> None:
    """A Markdown table: the name of a row, then its cells by column."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    print(f"\n| {title} | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row.get(column, '') for column in columns)} |")
