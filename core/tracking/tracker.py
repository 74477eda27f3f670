"""Track your own training loop: `Tracker` writes a run folder with metrics, plots, a summary and a report.

with Tracker("experiments/mine/out/first", config={"lr": 3e-4}) as tracker:
    for step in range(1000):
        ...
        tracker.log_step(step=step, train_loss=loss, learning_rate=lr)
"""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from core import durable, files, private
from core.errors import UserError, did_you_mean
from core.plugins.discovery import Experiment, is_experiment
from core.plugins.manager import plugins
from core.toml import dump
from core.tracking.environment import code_hash, environment, own_command, own_script
from core.tracking.metrics import MetricsFile, accuracy_by_group
from core.tracking.run import Run, check_fields, lock_file, read_summary, set_aside
from core.tracking.trackers import Status, close_trackers, ending, find_trackers
from core.tracking.values import figure, number, plain, whole

# plots and report are in core.report, a higher layer, so they are registered through the hook like any plugin's.
TRACKERS = ("tensorboard", "plots", "report")


@dataclass(frozen=True)
class OwnRun(Run):
    """A run in a folder that the user chose. Its config is a dict of the user's own settings."""

    place: Path = field(kw_only=True)

    @property
    def folder(self) -> Path:
        return self.place

    def write_config(self) -> None:
        private.write_text(self.folder / "config.toml", dump(self.config))  # type: ignore[arg-type]


class Tracker:
    """Writes a run folder, row by row. A context manager: how its block ends decides the run's status.

    folder: of the run. With `EXPERIMENT/out/NAME`, the commands `runs`, `compare` and `report` find it by name. config:
    any settings, nested or not. seed: of the random draws. trackers: names, as in `train.runtime.trackers`.

    An existing run is never overwritten: resume_at=STEP goes on with it and drops its rows after that step, and
    fresh=True renames it. Raises UserError if neither is given, and if another process writes this run. A description
    that is not text or a seed that is not a whole number is refused before anything is created.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        description: str = "",
        seed: int | None = None,
        trackers: Sequence[str] = TRACKERS,
        resume_at: int | None = None,
        fresh: bool = False,
    ) -> None:
        self.folder = Path(folder).expanduser().absolute()
        settings: Any = plain(config or {})
        self.run = OwnRun(owner(self.folder), self.folder.name, settings, description, place=self.folder)
        self.given = {"description": description or None, "seed": None if seed is None else whole("seed", seed)}
        check_fields(self.given, "Tracker")
        openers = find_trackers(trackers, plugins(), "trackers")
        self.held = contextlib.ExitStack()
        self.open = False
        with contextlib.ExitStack() as stack:  # releases the lock if the rest fails
            stack.enter_context(files.lock(lock_file(self.folder), f"run {self.run.title}"))
            self.make_folder(resume_at, fresh)
            if config is not None or not (self.folder / "config.toml").is_file():
                self.run.write_config()
            self.run.write_summary(self.opening())
            self.metrics = MetricsFile(self.folder, [], -1 if resume_at is None else resume_at)
            stack.callback(self.metrics.close)
            self.trackers = [opener(self.run) for opener in openers]
            self.held = stack.pop_all()
        self.open = True
        self.former_seconds = float(self.latest("seconds") or 0.0)  # of earlier tries
        self.own_seconds = 0.0  # spent in `log_step`
        self.start = time.perf_counter()

    def make_folder(self, resume_at: int | None, fresh: bool) -> None:
        """Create the folder. Raises UserError if there is a run already, or none to resume."""
        summary = read_summary(self.folder)
        if summary and fresh:
            set_aside(self.folder)
        elif summary and resume_at is None:
            raise UserError(
                f"there is a run already: it is {summary.get('status')} at step {summary.get('steps')}",
                place=str(self.folder),
                remedy="Choose another folder. Or set fresh=True, which keeps this run under another name, or "
                "resume_at=STEP, which goes on with it.",
            )
        elif not summary and resume_at is not None:
            raise UserError(
                "there is no run to go on with",
                place=str(self.folder),
                remedy="Leave out resume_at to start a new run.",
            )
        elif not summary and self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(
                "this folder is not a run, and it is not empty",
                place=str(self.folder),
                remedy="Choose a folder that does not exist yet. It is created for you.",
            )
        durable.make_folders(self.folder)

    def opening(self) -> dict[str, Any]:
        """summary.json at the start. The status is "interrupted", because a killed process cannot write it later."""
        started = read_summary(self.folder).get("started") or datetime.datetime.now().isoformat()
        script, experiment = own_script(), self.run.experiment
        folder = experiment.folder if is_experiment(experiment.folder) else None
        return {
            "experiment": self.run.experiment.name,
            "run": self.run.name,
            "started": started,
            "status": "interrupted",
            "environment": environment(script.parent if script else Path.cwd()) | {"code": code_hash(folder, script)},
            "command": private.command_line(own_command()),
        } | {key: value for key, value in self.given.items() if value is not None}

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.open:
            try:
                self.finalize(ending(kind))
            finally:  # even if the summary could not be written
                self.open = False
                self.held.close()

    def log_step(self, *, step: int, **values: Any) -> None:
        """Write one row. Any columns are allowed; the documented ones are plotted and compared. None stays blank.

        step: optimizer steps done; it never decreases. Numbers may come from numpy or torch. If they are not given,
        `seconds` is the time since the Tracker was created, without its own, and `tokens_per_second` follows from
        `tokens`. Raises UserError for anything but a number.
        """
        begin = time.perf_counter()
        self.refuse_closed()
        row = {name: number(name, value) for name, value in {"step": step, **values}.items() if value is not None}
        if not isinstance(row["step"], int) or row["step"] < (latest := self.latest("step") or 0):
            raise UserError(
                f"step is {row['step']}" + (f" after step {latest}" if isinstance(row["step"], int) else ""),
                place="log_step",
                remedy="It must be a whole number and never decrease. To go back, open the run with resume_at=STEP.",
            )
        row.setdefault("seconds", round(self.former_seconds + begin - self.start - self.own_seconds, 4))
        if "tokens" in row and "tokens_per_second" not in row:
            elapsed = row["seconds"] - (self.latest("seconds") or 0.0)
            row["tokens_per_second"] = round((row["tokens"] - (self.latest("tokens") or 0)) / max(elapsed, 1e-9), 1)
        self.metrics.append(row)
        for tracker in self.trackers:
            tracker.log(row["step"], row)
        self.own_seconds += time.perf_counter() - begin

    def finalize(self, status: Status = "completed", **figures: Any) -> dict[str, Any]:
        """End the run: write summary.json, metrics.json, plots and report. Returns the summary.

        figures: more values for the summary, such as parameters=1_000_000 or accuracy=0.9. Raises UserError for an
        unknown status, and for a value that JSON cannot hold; then the run stays open.
        """
        self.refuse_closed()
        if status not in get_args(Status):
            raise UserError(f"unknown status '{status}'", place="status", remedy=did_you_mean(status, get_args(Status)))
        more = {name: figure(name, value) for name, value in figures.items()}
        self.metrics.sync()  # "completed" must not be on disk before the rows
        summary = self.run.write_summary(files.finite({"status": status, **self.closing(), **more}))
        self.open = False
        with self.held:  # closes metrics.csv, then releases the lock
            close_trackers(self.trackers, status)  # after the summary, which the report reads
        return summary

    def closing(self) -> dict[str, Any]:
        """The figures of summary.json at the end."""
        rows = self.metrics.rows
        scored = [row for row in rows if math.isfinite(row.get("val_loss", math.nan))]
        best = min(scored, key=lambda row: float(row["val_loss"]), default={})
        seconds, tokens = self.latest("seconds"), self.latest("tokens")
        wall = self.former_seconds + time.perf_counter() - self.start
        return {
            "steps": self.latest("step") or 0,
            "tokens": tokens,
            "train_seconds": seconds,
            "wall_seconds": round(wall, 3),
            "tokens_per_second": round(tokens / seconds, 1) if tokens and seconds else None,
            "best_val_loss": best.get("val_loss"),
            "best_step": best.get("step"),
            "final_train_loss": self.latest("train_loss"),
            "final_val_loss": self.latest("val_loss"),
            "bits_per_byte": best.get("bits_per_byte"),
            "accuracy": best.get("val_accuracy"),
            "accuracy_by_group": accuracy_by_group(best),
        }

    def latest(self, column: str) -> Any:
        """The last value of a column; None if there is none."""
        return next((row[column] for row in reversed(self.metrics.rows) if column in row), None)

    def refuse_closed(self) -> None:
        if not self.open:
            raise UserError(
                "this run is finalized", place=str(self.folder), remedy="Open another Tracker with resume_at=STEP."
            )


def owner(folder: Path) -> Experiment:
    """The experiment that contains a run's folder; if there is none, the parent folder (of `out`, if the run is in one)."""
    around = next((parent for parent in folder.parents[:3] if is_experiment(parent)), None)
    return Experiment(around or (folder.parent.parent if folder.parent.name == "out" else folder.parent))
