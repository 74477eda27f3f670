"""Find the fastest way to take a run's step on this machine.

Which precision, attention and number of threads are fastest depends on the processor, the shapes and what else is
running. So we time the real step with each, for two seconds at most, once per machine and shape. The run keeps the
choice, and a resume uses it again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from core import process
from core.config import Attention
from core.training.measured import recall, remember

SECONDS = 2.0  # for all timings together
ROUNDS = 5  # for each pair of ways, at most
WORTH = 0.97  # a way replaces another if it takes less than this share of its time; smaller differences are noise

Step = Callable[[], Any]


@dataclass(frozen=True)
class Way:
    """How a step is taken. dtype and attention are as in [train.runtime]; threads: CPU threads."""

    dtype: str
    attention: Attention
    threads: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.dtype}, {self.attention} attention, {threads}"


def fastest_way(
    key: str, first: Way, choices: dict[str, list[Any]], step: Callable[[Way], Step]
) -> tuple[Way, dict[str, float]]:
    """Find the fastest way, starting from `first`. Returns it and the timings: name of a way -> milliseconds.

    key: everything the choice depends on; an earlier choice under the same key is used again. choices: the values to
    try for each field. step: makes the step of a way. Leaves torch with the number of threads of the result.
    """
    known = remembered(key, choices)
    if known is not None:
        process.set_threads(known[0].threads)
        return known
    best, timings, end, complete = first, dict[str, float](), time.perf_counter() + SECONDS, True
    for field, values in choices.items():
        for value in values:
            other = replace(best, **{field: value})
            if other == best:
                continue
            found = in_turn(best, other, step, end)
            if found is None:
                complete = False
                continue
            timings[str(best)], timings[str(other)] = (round(1000 * seconds, 3) for seconds in found)
            if found[1] < WORTH * found[0]:
                best = other
    process.set_threads(best.threads)
    if complete:  # otherwise the next run tries again
        remember(key, {"way": asdict(best), "milliseconds": timings})
    return best, timings


def in_turn(way: Way, other: Way, step: Callable[[Way], Step], end: float) -> tuple[float, float] | None:
    """Median seconds of a step in both ways, timed alternately until `end` at most; None if no time is left.

    They alternate so that another process on the machine affects both.
    """
    if time.perf_counter() >= end:
        return None
    times: tuple[list[float], list[float]] = ([], [])
    one, two = step(way), step(other)
    for number in range(ROUNDS + 1):
        began = time.perf_counter()
        for place, threads, call in ((times[0], way.threads, one), (times[1], other.threads, two)):
            process.set_threads(threads)
            since = time.perf_counter()
            if since > end:
                return None
            call()
            if number:  # the first call is warm-up
                place.append(time.perf_counter() - since)
        now = time.perf_counter()
        if times[1] and now + (now - began) > end:
            break
    return statistics.median(times[0]), statistics.median(times[1])


def seconds_of(step: Step) -> float:
    """Seconds of one step, after a warm-up step."""
    step()
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def rows_within(longest: float, most: int, seconds: Callable[[int], float], parts: int = 1) -> int | None:
    """How many rows a step can have to take `longest` seconds at most; None if `parts` steps of `most` rows fit into that.

    seconds(rows) -> of one step. A row costs more in a small batch, so we estimate twice.
    """
    rows = 1
    if most * parts == 1:
        return None
    for _ in range(2):
        taken = seconds(rows)
        if taken * parts * most / rows <= longest:
            return None
        rows = max(rows, min(most, int(rows * longest / taken)))
    return rows


def remembered(key: str, choices: dict[str, list[Any]]) -> tuple[Way, dict[str, float]] | None:
    """The choice stored under a key, if it is still one of the choices."""
    stored = recall(key)
    try:
        way = Way(**stored["way"])  # type: ignore[index]
        timings = {str(name): float(value) for name, value in stored["milliseconds"].items()}  # type: ignore[index]
    except (TypeError, KeyError, AttributeError, ValueError):
        return None
    allowed = all(getattr(way, field) in values for field, values in choices.items())
    return (way, timings) if allowed else None


def thread_counts(most: int) -> Iterator[int]:
    """All threads, half of them, ..., one. In small steps, threads can cost more by waiting than they gain."""
    while most > 1:
        yield most
        most //= 2
    yield 1
