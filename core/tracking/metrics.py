"""Write and read a run's metrics.csv and metrics.json: one row per line, intact after a crash."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core import durable, files
from core.errors import UserError

COLUMNS = (
    "step", "tokens", "seconds", "train_loss", "val_loss", "bits_per_byte", "learning_rate", "grad_norm",
    "param_norm", "tokens_per_second",
)  # fmt: skip
EPOCH = "epoch"  # the column of runs with train.data.order = "epochs": how often the training side was read


def accuracy_columns(groups: Sequence[str]) -> list[str]:
    """The columns for exact match, for a dataset of Examples with these groups."""
    return [f"{side}_accuracy{group}" for side in ("val", "train") for group in ("", *(f"/{name}" for name in groups))]


def accuracy_by_group(row: Mapping[str, float], side: str = "val") -> dict[str, float] | None:
    """A side's accuracy per group in a row; None if there are no groups."""
    prefix = f"{side}_accuracy/"
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)} or None


class MetricsFile:
    """metrics.csv, one row appended at a time."""

    def __init__(self, folder: Path, extra_columns: Sequence[str], keep_until: int) -> None:
        """Open the run's metrics.csv. Rows of an earlier try are kept up to a step, with their columns."""
        self.path, self.folder = folder / "metrics.csv", folder
        self.columns = [*COLUMNS, *extra_columns]
        self.begin(keep_until)

    def begin(self, keep_until: int) -> None:
        """Rewrite the file with the header and the rows up to a step, and open it to append."""
        self.rows = [row for row in read_rows(self.path) if row["step"] <= keep_until]
        self.columns = list(dict.fromkeys([*self.columns, *(name for row in self.rows for name in row)]))
        files.write_text(
            self.path, "".join(map(self.line, [dict(zip(self.columns, self.columns, strict=True)), *self.rows]))
        )
        self.descriptor = durable.open_end(self.path)

    def line(self, row: dict[str, Any]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(column, "") for column in self.columns])
        return text.getvalue()

    def append(self, row: dict[str, Any]) -> None:
        """Write one row. Missing columns stay blank, new ones are added. Raises DiskFull."""
        if new := [name for name in row if name not in self.columns]:
            self.add_columns(new)
        self.rows.append(row)
        line = self.line(row).encode()
        with files.room_for(self.folder, len(line)):
            durable.write_all(self.descriptor, line)

    def sync(self) -> None:
        """Flush all rows to the disk. They must be there before the next checkpoint."""
        durable.sync(self.descriptor)

    def rewind(self, step: int) -> None:
        """Drop the rows after a step, to which the run went back."""
        durable.close(self.descriptor)
        self.begin(step)

    def add_columns(self, names: Sequence[str]) -> None:
        """Rewrite the file with more columns, which are blank in the existing rows."""
        durable.close(self.descriptor)
        self.columns += names
        self.begin(keep_until=self.rows[-1]["step"] if self.rows else 0)

    def close(self) -> None:
        """Close metrics.csv and write metrics.json: the rows as a list of objects, null for numbers that are not finite."""
        try:
            self.sync()
        finally:
            durable.close(self.descriptor)
        files.write_json(self.folder / "metrics.json", files.finite(self.rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.csv, without blanks. A last line that a crash cut short or filled with zeros is dropped.

    Raises UserError for a cell that is not a number.
    """
    if not path.is_file():
        return []
    text = path.read_bytes().decode("utf-8", "replace").partition("\0")[0]
    table = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if not table:
        return []
    rows = []
    for line, cells in enumerate(table[1:], 2):
        try:
            row = {column: number(value) for column, value in zip(table[0], cells, strict=False) if value != ""}
        except ValueError as error:
            raise UserError(
                f"not a row of numbers: {error}", place=f"{path}:{line}", remedy="Fix or delete this line."
            ) from None
        if "step" in row:
            rows.append(row)
    return rows


def number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def speed_text(row: Mapping[str, float]) -> str:
    """The speed of a row, as far as it is known: `21,034 tokens/s  36.5 ms/step  MFU 41.2%`."""
    parts = [f"{row['tokens_per_second']:,.0f} tokens/s"]
    parts += [f"{row['ms_per_step']:,.1f} ms/step"] if "ms_per_step" in row else []
    return "  ".join([*parts, f"MFU {row['mfu']:.1%}"] if "mfu" in row else parts)
