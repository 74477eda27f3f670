"""Ask a training loop to stop: the first SIGINT or SIGTERM is noted, a second one ends the process at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """number: the signal that came, 0 while none has."""

    number: int = 0


@contextlib.contextmanager
def noting_signals() -> Iterator[StopRequest]:
    """Note signals instead of dying of them, inside this context; outside the main thread, where Python has none, do nothing."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        for either in STOPPING:
            signal.signal(either, signal.SIG_DFL)

    former = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
