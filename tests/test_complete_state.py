"""A resume is exact because everything that counts is saved: whatever is dropped from a checkpoint makes the comparison fail."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from cutting import outcome

import core.report.plots
import core.report.run_report
from core.config import Config
from core.defaults import resolve
from core.training import checkpoints
from core.training.checkpoints import Checkpoint
from core.training.pace import Pace
from core.training.progress import Progress

Terrarium = Callable[..., Result]
Mutation = Callable[[Checkpoint], object]
MIDDLE, END = 5, 8  # steps: between two rows of metrics and two evaluations; and the last one
KEYS = ("schedule.max_iters=8", "schedule.warmup_iters=2", "runtime.eval_interval=4", "runtime.log_interval=2",
        "runtime.checkpoint_interval=1", "model.dropout=0.1", "model.n_embd=4")  # fmt: skip
# What a budget in time is kept by; the results of a run that counts its steps do not depend on it.
CLOCK = ("seconds", "wall_seconds", "evaluation_seconds", "saving_seconds", "evaluated_step")
# A function of the step, set anew before each; what the group is called; and what torch's AdamW sets itself.
DERIVED = ("lr", "name", "params", "decoupled_weight_decay")


class Trial:
    """A run that was stopped at two steps, and what it comes to when it goes on."""

    def __init__(self, folder: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
        self.folder, self.terrarium, self.monkeypatch = folder, terrarium, monkeypatch
        self.run = folder / "out" / "default"
        self.command = ("train", "spaces", *(part for key in (*KEYS, *keys) for part in ("-s", f"train.{key}")))
        monkeypatch.setattr(core.report.plots, "write_plots", lambda *arguments: [])
        monkeypatch.setattr(core.report.run_report, "write_report", lambda folder, *arguments: folder)
        whole = checkpoints.save

        def save(parent: Path, name: str, model: Any, optimizer: Any, state: dict[str, Any], write: Any) -> Path:
            path = whole(parent, name, model, optimizer, state, write)
            if name == "last" and state["step"] in (MIDDLE, END):
                shutil.copytree(self.run, folder / f"killed-{state['step']}")  # what a kill just there leaves
            return path

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "save", save)
            result = terrarium(*self.command)
        assert result.exit_code == 0, result.output
        self.unbroken = outcome(self.run)
        self.stored = checkpoints.read(folder / f"killed-{MIDDLE}" / "checkpoints" / "last")

    def is_exact(self, mutation: Mutation, steps: tuple[int, ...] = (MIDDLE, END)) -> bool:
        """Whether a run that goes on from each of the steps, from a checkpoint that was changed so, ends as the unbroken one."""
        return all(self.goes_on(mutation, step) for step in steps)

    def goes_on(self, mutation: Mutation, step: int) -> bool:
        shutil.rmtree(self.run)
        shutil.copytree(self.folder / f"killed-{step}", self.run)
        load = checkpoints.load

        def changed(parent: Path, name: str) -> Checkpoint:
            checkpoint = load(parent, name)
            mutation(checkpoint)
            return checkpoint

        with self.monkeypatch.context() as patch:
            patch.setattr(checkpoints, "load", changed)
            result = self.terrarium(*self.command)
        return result.exit_code == 0 and outcome(self.run) == self.unbroken


# Of progress, and empty here: see test_not_finite.py and test_stop_when.py.
EMPTY = ("skipped", "stopped_by", "sums", "silent")  # the last two are of other objectives: tests/test_reward.py


def dropped(stored: Checkpoint) -> Iterator[tuple[str, Mutation]]:
    """Every field of a checkpoint, and how to do without it: the tensor, counter or setting is what a new run has."""
    for name in stored.model:
        yield f"weights of {name}", lambda found, name=name: found.model[name].zero_()  # type: ignore[misc]
    for name in stored.optimizer:
        yield f"optimizer's {name}", lambda found, name=name: found.optimizer.pop(name)  # type: ignore[misc]
    for name in stored.state["optimizer"]["state"]:
        yield f"optimizer's {name}", lambda found, name=name: found.state["optimizer"]["state"].pop(name)  # type: ignore[misc]
    for number, group in enumerate(stored.state["optimizer"]["groups"]):
        for key in sorted(group.keys() - set(DERIVED)):
            if group[key]:

                def without(found: Checkpoint, number: int = number, key: str = key) -> None:
                    value = found.state["optimizer"]["groups"][number][key]
                    smaller = [0.5 * part for part in value] if isinstance(value, list) else 0.5 * value
                    found.state["optimizer"]["groups"][number][key] = False if value is True else smaller

                yield f"setting {key} of the optimizer's {group['name']}", without
    for field in fields(Progress):
        if field.name not in (*CLOCK, *EMPTY):

            def fresh(found: Checkpoint, name: str = field.name) -> None:
                found.state["progress"][name] = copy.deepcopy(getattr(Progress(), name))

            yield f"progress.{field.name}", fresh
    yield "random numbers", lambda found: found.state["rng"].update(cpu=other_numbers())


def other_numbers() -> str:
    """The state of random numbers of another seed."""
    from core.training.progress import random_state

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        return random_state()["cpu"]


@pytest.mark.parametrize("preset", [pytest.param(preset, marks=pytest.mark.slow) for preset in ("modern", "gpt2")])
def test_whatever_is_dropped_from_a_checkpoint_is_missed(
    preset: str, spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(spaces, terrarium, monkeypatch, f"model.preset={preset}")
    assert trial.is_exact(lambda found: None)
    mutations = dict(dropped(trial.stored))
    kinds = {name.rpartition(".")[2] for name in mutations if name.startswith("optimizer's ")}
    assert kinds == (
        {"momentum", "mean", "square", "step"} if preset == "modern" else {"exp_avg", "exp_avg_sq", "step"}
    )
    unmissed = [name for name, mutation in mutations.items() if trial.is_exact(mutation)]
    print(f"{len(mutations)} fields, unmissed: {unmissed}")
    assert unmissed == []


@pytest.mark.parametrize("name", CLOCK)
def test_a_budget_in_time_goes_on_where_it_was(name: str) -> None:
    config = resolve(Config.model_validate({"train": {"runtime": {"max_minutes": 1.0}}})).train
    saved = Progress(
        step=10, seconds=4.0, wall_seconds=56.5, evaluation_seconds=2.0, saving_seconds=1.0, evaluated_step=10
    )

    def plan(progress: Progress) -> list[Any]:
        pace = Pace(config, progress)
        return [pace.over(), pace.gone(), pace.closing_seconds, pace.row_seconds]

    other = copy.deepcopy(saved)
    assert plan(other) == plan(saved)
    setattr(other, name, getattr(Progress(), name))
    assert plan(other) != plan(saved)
