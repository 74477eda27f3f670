"""The main job: prepare, train, evaluate, sample, report; and its first half."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.lab.evaluating import evaluate
from core.lab.model import load_model
from core.lab.opened import Opened, prepared
from core.lab.pipeline import loop_stages, train_stages
from core.lab.reporting import report_of_model, report_of_run, say_samples
from core.lab.sampling import sample
from core.lab.stages import named
from core.lab.together import leading
from core.lab.training import Wish, refuse_impossible, train_run
from core.tracking.run import Run


def train(opened: Opened, wish: Wish) -> Run:
    """Prepare, train, and write the run's curves and page. With stages, all of them: returns the last one's run.

    Raises UserError, RunFailed and Interrupted.
    """
    with leading() as team:
        wish = replace(wish, team=team)
        if opened.stages:
            return train_stages(opened, wish)
        _, run = trained(opened, wish)
        report_of_run(run.folder)
        return run


def trained(opened: Opened, wish: Wish) -> tuple[Opened, Run]:
    """Prepare and train. Returns the experiment, with the dataset's folder set, and the run."""
    if wish.stage:
        named(opened, wish.stage)  # there is none: this says so
    refuse_impossible(opened, wish)
    opened, dataset = prepared(opened)
    return opened, train_run(opened, dataset, wish)


def loop(opened: Opened, wish: Wish, show: Callable[[str], Any] | None = None) -> Path:
    """Take a run through all five steps. Returns the report's page.

    show: called with the pieces of the first sample, if it is running text. With stages, every stage goes through them.
    Raises UserError, RunFailed and Interrupted.
    """
    with leading() as team:
        wish = replace(wish, team=team)
        if opened.stages:
            return loop_stages(opened, wish, show)
        opened, run = trained(opened, wish)
        model = load_model(opened, run.name)
        evaluate(model)
        samples = sample(model, show=show)
        say_samples(opened.listener, samples, first_is_shown=show is not None)
        return report_of_model(model, samples)
