"""Record what a function starts on a GPU, once, and start all of it again by one call (CUDA graphs).

Python takes about 10 microseconds to start an operation, and a GPU less to do a small one. A replay starts hundreds at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

# Recording was written without a GPU at hand. Until the tests marked `gpu` have passed on one, "auto" records nothing.
BY_RULE = False
REHEARSALS = 3  # calls before one is recorded: in them, libraries choose their kernels and compilers compile
Result = TypeVar("Result")
Recorder = Callable[[Callable[[], Any]], tuple[Callable[[], Any], Any]]


def record(function: Callable[[], Result]) -> tuple[Callable[[], Any], Result]:
    """Record a function. Returns what replays it, and its result, whose tensors each replay overwrites.

    Nothing is computed yet. A replay reads and writes the memory that the function did, and repeats no Python. Raises RuntimeError
    for a function that waits for the GPU or takes numbers from the CPU.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
        result = function()
    return graph.replay, result


@contextlib.contextmanager
def rehearsing(device: torch.device) -> Iterator[None]:
    """A context for the calls before a recording: on a stream of their own, as torch asks for where gradients are recorded."""
    if device.type != "cuda":
        yield
        return
    now, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    aside.wait_stream(now)
    with torch.cuda.stream(aside):
        yield
    now.wait_stream(aside)


def fill(place: torch.Tensor, source: torch.Tensor) -> None:
    """Copy from main memory into a tensor that a replay reads, without waiting for the device."""
    if place.is_cuda:
        source = source.pin_memory()
    place.copy_(source, non_blocking=True)
