"""The Python API, for notebooks and scripts: `from core import open_experiment`.

exp = open_experiment("insert_spaces", {"train.model.n_embd": 64})
run = exp.train("wide", seed=1)
run.load().complete(["cab: "], temperature=0)
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import RunFailed, UserError
from core.lab.notebook import listener_here
from core.lab.opened import Opened, as_overrides, open_folder, prepared, with_overrides
from core.listener import Listener, Listening
from core.process import launch
from core.roles import role_of
from core.tracking.metrics import read_rows
from core.tracking.run import find_run, name_of, read_summary, run_folders

if TYPE_CHECKING:
    import pandas

    from core.data.dataset import Dataset
    from core.lab.model import LoadedModel
    from core.lab.moments import OverTime

SEED = "train.runtime.seed"
HARMLESS = ("machine", "place", "shown")  # roles of keys that may differ from those a run was trained with


@dataclass(frozen=True)
class Page:
    """A report on disk. It can be used like a path, and displays itself in a notebook."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        from core.lab.comparing import framed

        return framed(self.path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class TrainedRun:
    """A run in its folder. Its values are read from disk each time."""

    opened: Opened
    folder: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return name_of(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json: how it ended, and its figures."""
        return read_summary(self.folder)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv, by step."""
        return read_rows(self.folder / "metrics.csv")

    def frame(self) -> pandas.DataFrame:
        """The rows of metrics.csv as a pandas DataFrame. Raises UserError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError(
                "a frame needs pandas, which is not installed",
                place="frame",
                remedy="pip install pandas, or use `metrics`.",
            ) from None
        return pandas.DataFrame(self.metrics)

    @property
    def moments(self) -> list[int]:
        """The steps whose weights the run has kept, see train.runtime.keep_checkpoints."""
        from core.training.ladder import kept_steps

        return kept_steps(self.folder / "checkpoints")

    def over_time(self, prompt: str | None = None) -> OverTime:
        """What the run answered to a prompt, attended to and held in its embeddings at each of `moments`.

        prompt: by default one of validation. Raises UserError if no step was kept, and for a prompt that cannot be encoded.
        """
        from core.lab.moments import Moments

        return Moments(self.with_harmless(), self.name).over_time(prompt)

    def load(self, checkpoint: str | int = "best") -> LoadedModel:
        """The model of a checkpoint: "best", "last", or a step of `moments`.

        The run's own settings count; of those that the experiment was opened with, only what changes no model does, such
        as the device. Raises UserError where no checkpoint is whole.
        """
        from core.lab.model import load_model

        return load_model(self.with_harmless(), self.name, checkpoint)

    def with_harmless(self) -> Opened:
        """The experiment with those of its overrides that change no model."""
        harmless = [text for text in self.opened.overrides if role_of(text.partition("=")[0]) in HARMLESS]
        return replace(self.opened, overrides=tuple(harmless))

    def __fspath__(self) -> str:
        return str(self.folder)

    def report(self) -> Page:
        """Write the run's report again."""
        from core.lab.reporting import report_of_run

        return Page(report_of_run(self.folder))

    def __repr__(self) -> str:
        return f"TrainedRun({self.opened.experiment.name}/{self.name}, {self.summary.get('status')})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures, and the curves if there are any."""
        from core.report.run_report import figures
        from core.tracking.figures import read_figures

        summary, curves = read_figures(self.folder), self.folder / "loss_curves.png"
        shown = [
            (str(summary.get("status")), "status", f"{summary.get('steps') or 0:,} steps"),
            *figures(summary, None),
        ]
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(value)}</td>"
            f"<td>{html.escape(remark)}</td></tr>"
            for value, name, remark in shown
        )
        picture = ""
        if curves.is_file():
            data = base64.b64encode(curves.read_bytes()).decode()
            picture = f'<img src="data:image/png;base64,{data}" style="max-width:100%">'
        title = html.escape(f"{self.opened.experiment.name} / {self.name}")
        return f"<b>{title}</b><table>{rows}</table>{picture}"


@dataclass(frozen=True)
class OpenExperiment:
    """An open experiment. Its settings are fixed; to change them, open it again."""

    opened: Opened
    call: str  # the call that opened it, recorded with its runs
    listener: Listener | None = None  # None: a live display for each call in a notebook, else nothing

    def heard(self) -> Listener:
        """The listener of one call."""
        return self.listener or listener_here()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.opened.experiment.name

    @property
    def folder(self) -> Path:
        """The experiment's folder."""
        return self.opened.experiment.folder

    def prepare(self, *, force: bool = False) -> Dataset:
        """Return the dataset, and make it if it is not current: .train, .val, .encoder, .examples("val", 5)."""
        return prepared(replace(self.opened, listener=self.heard()), force=force)[1]

    def train(
        self,
        run: str | None = None,
        *,
        seed: int | None = None,
        on_row: Callable[[dict[str, float]], object] | None = None,
        resume: bool = False,
        exact: bool = False,
        fresh: bool = False,
        description: str = "",
        listener: Listener | None = None,
    ) -> TrainedRun:
        """Train a run to its end: a new one, or an unfinished one.

        run: its name; by default the variant's name or `default`, plus the seed if one is given. on_row: called with
        each row of metrics. resume: continue even if schedule and runtime settings have changed. exact: fail if a resume
        would not be bit-exact. fresh: start again; an old run of this name is renamed. listener: receives messages and
        progress; by default a live display in a notebook, else nothing.

        Raises UserError for wrong settings, RunFailed if training could not go on, and Interrupted after Ctrl-C, when
        everything is saved.
        """
        from core.lab.loop import train
        from core.lab.together import follow
        from core.lab.training import Wish

        heard = listener or self.heard()
        opened = replace(self.opened, listener=Listening(on_row, heard) if on_row else heard)
        if seed is not None:
            opened = with_overrides(opened, (*opened.overrides, *as_overrides({SEED: seed})))
            run = run or f"{opened.default_run}-seed{seed}"
        given = {"seed": seed, "resume": resume, "exact": exact, "fresh": fresh, "description": description}
        command = f"{self.call}.train({call_arguments(run, given)})"
        again = f"{self.call}.train({call_arguments(run, {'seed': seed})})"
        if launch().rank and follow():
            raise RunFailed("the main process, which trains this run, has failed.")
        if launch().rank:
            return TrainedRun(self.opened, opened.out / (run or opened.default_run))
        trained = train(opened, Wish(run, resume, exact, fresh, description, command, again))
        return TrainedRun(self.opened, trained.folder)

    def run(self, name: str | None = None) -> TrainedRun:
        """An existing run. Raises UserError, which suggests existing runs, if there is none of this name."""
        folder = find_run(self.opened.experiment, self.opened.out, name or self.opened.default_run)
        return TrainedRun(self.opened, folder)

    def runs(self) -> list[TrainedRun]:
        """All runs of the experiment, by name."""
        return [TrainedRun(self.opened, folder) for folder in run_folders(self.opened.experiment, self.opened.out)]

    def check(self, *, timing: bool = True) -> dict[str, Any]:
        """Check the experiment before training: the data, n-gram baselines, the cost of the run, suspicious settings."""
        from core.lab.check import account_of

        return account_of(replace(self.opened, listener=self.heard()), timing=timing)

    def report(self) -> Page:
        """Write the report on all runs."""
        from core.lab.reporting import report_of_experiment

        return Page(report_of_experiment(self.opened.experiment, self.opened.out))

    def __repr__(self) -> str:
        return self.call


def open_experiment(
    name: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    variant: str = "",
    listener: Listener | None = None,
) -> OpenExperiment:
    """Open an experiment by its name or its folder's path.

    overrides: config keys, dotted or nested, that override config.toml. variant: applies config.VARIANT.toml on top of
    config.toml. listener: receives messages and progress. Raises UserError for an unknown experiment or wrong settings.
    """
    given = as_overrides(overrides or {})
    place = name if isinstance(name, str) else str(name.expanduser().absolute())
    opened = open_folder(place, variant, given, listener or listener_here())
    rest = {"variant": variant} if variant else {}
    positional = [repr(str(name)), *([repr(dict(overrides))] if overrides else [])]
    return OpenExperiment(opened, f"open_experiment({', '.join([*positional, *named(rest)])})", listener)


def train_model(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Train one run from a flat dict. Returns its figures and the folder of checkpoint `best`.

    settings: "experiment" (required), "run" and "variant", and config keys such as "train.model.kind". The figures are
    the metrics of checkpoint `best` (val_loss, val_accuracy, ...) and summary.json's. Raises as `OpenExperiment.train`.
    """
    experiment, run = split_settings(settings)
    trained = experiment.train(run)
    return figures_of(trained), trained.folder / "checkpoints" / "best"


def split_settings(settings: Mapping[str, Any]) -> tuple[OpenExperiment, str | None]:
    """Open the experiment that a flat dict names. Returns it and the run's name. Raises UserError without "experiment"."""
    keys = dict(settings)
    if "experiment" not in keys:
        raise UserError(
            'the settings have no "experiment"',
            place="settings",
            remedy='For example: {"experiment": "insert_spaces", "train.model.n_embd": 64}',
        )
    name, run, variant = keys.pop("experiment"), keys.pop("run", None), keys.pop("variant", "")
    return open_experiment(name, keys, variant=variant), run


def figures_of(run: TrainedRun) -> dict[str, Any]:
    """summary.json, plus the metrics of checkpoint `best` from metrics.csv."""
    summary = run.summary
    best: dict[str, Any] = next((row for row in reversed(run.metrics) if row["step"] == summary.get("best_step")), {})
    return {name: value for name, value in best.items() if name.startswith(("val_", "train_accuracy"))} | summary


def call_arguments(name: str | None, given: Mapping[str, Any]) -> str:
    """The given arguments of a call, as Python code."""
    return ", ".join([*([] if name is None else [repr(name)]), *named(given)])


def named(given: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in given.items() if value not in (None, False, "")]
