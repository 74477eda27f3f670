"""Log a run's scalars as TensorBoard event files, in logs/tb."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from core import durable, files

if TYPE_CHECKING:
    from core.tracking.run import Run


class TensorBoard:
    """A tracker. The package is imported with the first row, so that it does not delay the first step."""

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "logs" / "tb"
        self.file: BinaryIO | None = None
        self.writer: Any = None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write each number of a row under its column's name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self.file is None:
            self.begin(step)
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items() if name != "step"]
        self.add(step=step, summary=Summary(value=values))

    def begin(self, step: int) -> None:
        """Open a new event file. What an earlier try logged from this step on is dropped, here and in an open TensorBoard."""
        # The package's own EventFileWriter would put the host's name into the file name, and buffer rows for minutes.
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        durable.make_folders(self.folder)
        for path in self.folder.glob("events.out.tfevents.*"):
            drop_from(path, step)
        self.file = new_file(self.folder)
        self.writer = RecordWriter(self.file)
        self.add(file_version="brain.Event:2")
        self.add(step=step, session_log=SessionLog(status=SessionLog.START))

    def add(self, **content: Any) -> None:
        """Write one event and flush it, so that a running TensorBoard shows it."""
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.write(Event(wall_time=time.time(), **content).SerializeToString())
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.file is not None:
            self.file.close()


def drop_from(path: Path, step: int) -> None:
    """Remove the events of a file from a step on. TensorBoard would hide them, with a warning about step -1."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = [bytes(record) for record in RawEventFileLoader(str(path)).Load()]
    kept = [record for record in records if (event := Event.FromString(record)).step < step or not event.step]
    if len(kept) < len(records):
        data = io.BytesIO()
        for record in kept:
            RecordWriter(data).write(record)
        files.write_bytes(path, data.getvalue())


def new_file(folder: Path) -> BinaryIO:
    """Create a file that TensorBoard recognises as an event file and reads after the existing ones."""
    number = 0
    while True:
        path = folder / f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}.{number}"
        try:
            return path.open("xb")
        except FileExistsError:
            number += 1
