"""The Python API: what `from core import ...` gives, for notebooks and scripts.

exp = open_experiment("insert_spaces", {"train.model.n_embd": 64})
run = exp.train("wide", seed=1)
run.load().complete(["cab: "], temperature=0)
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.lab.notebook import listener_here
from core.lab.opened import Opened, as_overrides, open_folder, prepared, with_overrides
from core.listener import Listener, Listening
from core.tracking.metrics import read_rows
from core.tracking.run import find_run, read_summary, run_folders

if TYPE_CHECKING:
    import pandas

    from core.data.dataset import Dataset
    from core.lab.model import LoadedModel

SEED = "train.runtime.seed"


@dataclass(frozen=True)
class Page:
    """A report on disk. It may stand where a path is expected, and shows itself in a notebook."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        from core.lab.comparing import framed

        return framed(self.path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class TrainedRun:
    """A run in its folder. What it tells is read from disk, as it is now."""

    opened: Opened
    folder: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json: how it ended, and its figures."""
        return read_summary(self.folder)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv, by step."""
        return read_rows(self.folder / "metrics.csv")

    def frame(self) -> pandas.DataFrame:
        """The rows of metrics.csv as a pandas DataFrame. Raises UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError(
                "a frame needs pandas, which is not installed",
                place="frame",
                remedy="pip install pandas, or use `metrics`.",
            ) from None
        return pandas.DataFrame(self.metrics)

    def load(self, checkpoint: str = "best") -> LoadedModel:
        """The model of a checkpoint, "best" or "last". Raises UserError where none is whole."""
        from core.lab.model import load_model

        return load_model(self.opened, self.name, checkpoint)

    def report(self) -> Page:
        """Write the run's page again."""
        from core.lab.reporting import report_of_run

        return Page(report_of_run(self.folder))

    def __repr__(self) -> str:
        return f"TrainedRun({self.opened.experiment.name}/{self.name}, {self.summary.get('status')})"

    def _repr_html_(self) -> str:
        """For a notebook: the figures, and the curves if they are drawn."""
        summary, curves = self.summary, self.folder / "loss_curves.png"
        shown = ("status", "steps", "best_val_loss", "accuracy", "bits_per_byte", "train_seconds", "parameters")
        rows = "".join(
            f"<tr><th style='text-align:left'>{name.replace('_', ' ')}</th><td>{html.escape(str(summary[name]))}</td></tr>"
            for name in shown
            if summary.get(name) is not None
        )
        picture = as_image(curves) if curves.is_file() else ""
        title = html.escape(f"{self.opened.experiment.name} / {self.name}")
        return f"<b>{title}</b><table>{rows}</table>{picture}"


def as_image(path: Path) -> str:
    """A picture inside a page."""
    import base64

    return f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" style="max-width:100%">'


@dataclass(frozen=True)
class OpenExperiment:
    """An experiment, open for work. Settings are fixed; open it again for others."""

    opened: Opened
    call: str  # how it was opened, to be recorded with its runs

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.opened.experiment.name

    @property
    def folder(self) -> Path:
        """The experiment's folder."""
        return self.opened.experiment.folder

    def prepare(self, *, force: bool = False) -> Dataset:
        """The dataset, made if it is not current: .train, .val, .encoder, .examples("val", 5)."""
        return prepared(self.opened, force=force)[1]

    def train(
        self,
        name: str | None = None,
        *,
        seed: int | None = None,
        on_row: Callable[[dict[str, float]], object] | None = None,
        resume: bool = False,
        exact: bool = False,
        fresh: bool = False,
        description: str = "",
        listener: Listener | None = None,
    ) -> TrainedRun:
        """Train a run to its end: a new one, or go on with one that is unfinished.

        name: of the run; without one it is the variant's name or `default`, with the seed if one is given. on_row: called
        with each row of metrics. resume: go on where schedule and runtime differ from what it began with. exact: resume
        bit for bit or not at all. fresh: start again; the run that is there is kept under another name. listener: hears
        how it goes; a live display in a notebook, else silent.

        Raises UserError for what cannot be trained so, RunFailed where it could not go on, and Interrupted after Ctrl-C,
        when all is saved.
        """
        from core.lab.reporting import report_of_run
        from core.lab.training import Wish, refuse_impossible, train_run

        opened = replace(self.opened, listener=listener or (Listening(on_row) if on_row else listener_here()))
        if seed is not None:
            opened = with_overrides(opened, (*opened.overrides, *as_overrides({SEED: seed})))
            name = name or f"{opened.default_run}-seed{seed}"
        given = {"seed": seed, "resume": resume, "exact": exact, "fresh": fresh, "description": description}
        command = f"{self.call}.train({call_arguments(name, given)})"
        again = f"{self.call}.train({call_arguments(name, {'seed': seed})})"
        wish = Wish(name, resume, exact, fresh, description, command, again)
        refuse_impossible(opened, wish)
        opened, dataset = prepared(opened)
        run = train_run(opened, dataset, wish)
        report_of_run(run.folder)
        return TrainedRun(opened, run.folder)

    def run(self, name: str | None = None) -> TrainedRun:
        """A run that is there. Raises UserError, with the runs that there are, for one that is not."""
        folder = find_run(self.opened.experiment, self.opened.out, name or self.opened.default_run)
        return TrainedRun(self.opened, folder)

    def runs(self) -> list[TrainedRun]:
        """All runs of the experiment, by name."""
        return [TrainedRun(self.opened, folder) for folder in run_folders(self.opened.experiment, self.opened.out)]

    def check(self, *, timing: bool = True) -> dict[str, Any]:
        """What the data is, what n-gram baselines reach, what the run will cost, and suspicious settings."""
        from core.lab.check import account_of

        return account_of(self.opened, timing=timing)

    def report(self) -> Page:
        """Write the page of all runs."""
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

    overrides: config keys, dotted or nested, laid over config.toml. variant: lays config.VARIANT.toml over config.toml.
    listener: hears how the work goes. Raises UserError for an unknown experiment and for wrong settings.
    """
    given = as_overrides(overrides or {})
    opened = open_folder(str(name), variant, given, listener or listener_here())
    rest = {"variant": variant} if variant else {}
    positional = [repr(str(name)), *([repr(dict(overrides))] if overrides else [])]
    return OpenExperiment(opened, f"open_experiment({', '.join([*positional, *named(rest)])})")


def train_model(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Train one run from a flat dict. Returns its figures and the folder of checkpoint `best`.

    settings: "experiment" (required), "run" and "variant", and config keys such as "train.model.kind". The figures are
    the metrics of checkpoint `best` (val_loss, val_accuracy, ...) and summary.json's. Raises as `OpenExperiment.train`.
    """
    experiment, run = split_settings(settings)
    trained = experiment.train(run, fresh=False)
    return figures_of(trained), trained.folder / "checkpoints" / "best"


def split_settings(settings: Mapping[str, Any]) -> tuple[OpenExperiment, str | None]:
    """The experiment that a flat dict names, and the name of its run. Raises UserError where there is no "experiment"."""
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
    """summary.json, and the columns of the row of metrics that checkpoint `best` was evaluated in."""
    summary = run.summary
    best: dict[str, Any] = next((row for row in reversed(run.metrics) if row["step"] == summary.get("best_step")), {})
    return {name: value for name, value in best.items() if name.startswith(("val_", "train_accuracy"))} | summary


def call_arguments(name: str | None, given: Mapping[str, Any]) -> str:
    """Arguments of a call as Python writes them, those that were given."""
    return ", ".join([*([] if name is None else [repr(name)]), *named(given)])


def named(given: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in given.items() if value not in (None, False, "")]
