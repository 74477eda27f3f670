"""Asynchronous successive halving (arXiv:1810.05934), done by Optuna: stop the worse half of the runs at each rung.

The rungs are an eighth, a quarter and a half of max_iters; a run is judged at its first evaluation from there on. Each run
follows its full learning rate schedule, so its loss at a rung is the one it would have there if it trained to the end.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from core import durable
from core.errors import UserError
from core.optional import installing
from core.report.comparable import other_tokens
from core.roles import flat
from core.sweeps.plan import Point, Sweep
from core.sweeps.state import Standing, State

if TYPE_CHECKING:
    from optuna.trial import Trial

FIRST_RUNG = 8  # an eighth of max_iters
FACTOR = 2  # the better half continues
STUDY = "study.db"


class Halving:
    """The Optuna study of a sweep, stored with SQLite in the sweep's folder. Each trial is a run."""

    def __init__(self, state: State) -> None:
        """Open or create the study. Raises UserError if Optuna is missing, or a run has no step at which it can be judged."""
        optuna = load_optuna()
        sweep = self.sweep = state.sweep
        self.trials: dict[str, Trial] = {}
        self.reported: dict[str, set[int]] = {}
        durable.make_folders(sweep.folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's, about its experimental features
            pruner = optuna.pruners.SuccessiveHalvingPruner(first_rung(sweep), FACTOR, 0)
            self.study = optuna.create_study(
                storage=f"sqlite:///{(sweep.folder / STUDY).absolute()}", study_name=sweep.name, direction="minimize",
                pruner=pruner, load_if_exists=True, sampler=optuna.samplers.RandomSampler(seed=0),
            )  # fmt: skip
        self.states = optuna.trial.TrialState
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == self.states.RUNNING and "run" in trial.user_attrs:  # left by a killed sweep
                run = trial.user_attrs["run"]
                self.trials[run] = optuna.trial.Trial(self.study, trial._trial_id)
                self.reported[run] = set(trial.intermediate_values)

    def watch(self, point: Point, rows: list[dict[str, Any]]) -> Standing | None:
        """Report the losses of a run to Optuna. Returns its new standing if it should stop."""
        trial, reported = self.trial(point), self.reported.setdefault(point.run, set())
        for row in rows:
            step, loss = int(row["step"]), row.get("val_loss", math.nan)
            if not math.isfinite(loss) or step in reported or step >= point.config.train.schedule.max_iters:
                continue
            reported.add(step)
            trial.report(loss, step)
            if trial.should_prune():
                return Standing("stopped", step=step, val_loss=loss)
        return None

    def trial(self, point: Point) -> Trial:
        """The trial of a run, created if there is none."""
        if (found := self.trials.get(point.run)) is not None:
            return found
        trial: Trial = self.study.ask()
        trial.set_user_attr("run", point.run)
        self.trials[point.run] = trial
        return trial

    def ended(self, state: State, point: Point) -> None:
        """Tell the study how a run ended."""
        standing, loss, trial = state.standings[point.run], state.loss(point), self.trial(point)
        if standing.status == "completed" and loss is not None:
            self.study.tell(trial, loss)
        elif standing.status == "stopped":
            self.study.tell(trial, state=self.states.PRUNED)
        elif standing.status == "failed":
            self.study.tell(trial, state=self.states.FAIL)


def load_optuna() -> Any:
    """Import Optuna and silence it. Raises UserError if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "successive halving needs Optuna", place="halving", remedy=f"Install it: {installing('sweep')}"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def first_rung(sweep: Sweep) -> int:
    """The step of the first rung.

    Raises UserError if a run is limited by time, or not evaluated in the first half of its steps, and if the losses of the
    settings cannot be compared.
    """
    if reasons := other_tokens([flat(point.config.model_dump()) for point in sweep.points]):
        raise UserError(
            f"halving compares losses, and those of these settings are means over other tokens ({'; '.join(reasons)})",
            place="halving",
            remedy="Sweep without halving. Exact match is compared at the end.",
        )
    if any(point.config.train.runtime.max_minutes is not None for point in sweep.points):
        raise UserError(
            "halving needs a number of steps, but this run is limited by time", place="train.runtime.max_minutes", remedy="Set train.schedule.max_iters instead."
        )  # fmt: skip
    steps = min(point.config.train.schedule.max_iters for point in sweep.points)
    between = max(point.config.train.runtime.eval_interval for point in sweep.points)
    if between > steps // FACTOR:
        raise UserError(
            f"with an evaluation every {between} steps there is none in the first half of {steps} steps",
            place="train.runtime.eval_interval",
            remedy=f"Evaluate more often: `train.runtime.eval_interval={max(1, steps // FIRST_RUNG)}`",
        )
    return max(1, steps // FIRST_RUNG)
