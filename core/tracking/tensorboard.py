"""Scalars of a run as TensorBoard event files, in logs/tb."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.tracking.run import Run


class TensorBoard:
    """A tracker. The package is imported with the first row, so that it never stands before the first step."""

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "logs" / "tb"
        self.writer: Any = None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write each number of a row under its column's name."""
        # torch.utils.tensorboard would import half of torch's tools; the writer below is what it wraps.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self.writer is None:
            self.writer = EventFileWriter(str(self.folder))
            # Tells TensorBoard to forget rows from this step on that a try before the resume had written.
            self.writer.add_event(
                Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
            )
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items() if name != "step"]
        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Flush and close the event file."""
        if self.writer is not None:
            self.writer.close()
