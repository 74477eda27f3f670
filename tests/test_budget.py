"""A budget in time: the run ends by the clock, its rates follow the clock, and a resume gets what is left."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from copies import AtOnce

from core.cli.console import Console
from core.config import Train
from core.listener import SECONDS, STEPS
from core.tracking.metrics import read_rows
from core.training import checkpoints, saver
from core.training import pace as pacing
from core.training.checkpoints import read_state
from core.training.pace import Pace
from core.training.progress import Progress

Terrarium = Callable[..., Result]
MINUTES = "train.runtime.max_minutes"
SELDOM = [
    part for key in ("eval", "checkpoint") for part in ("-s", f"train.runtime.{key}_interval=1000000")
]  # so that the loop must find out for itself what closing takes


class Clock:
    """A monotonic clock that moves only when something is done: a step, a row, an evaluation, a save."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, step: float, evaluation: float, save: float) -> None:
        from core.evaluation.evaluate import Evaluation
        from core.lab import assemble
        from core.training import trainer

        self.now, self.evaluations = 1000.0, 0
        monkeypatch.setattr(pacing, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(assemble, "batch", self.taking(step, assemble.batch))
        monkeypatch.setattr(trainer, "publish", self.taking(0.001, trainer.publish))
        monkeypatch.setattr(saver, "time", pacing.time)
        monkeypatch.setattr(
            saver, "ThreadPoolExecutor", AtOnce
        )  # one clock for both threads could not tell whose time it is
        monkeypatch.setattr(checkpoints, "save", self.taking(save, checkpoints.save))
        evaluate = self.taking(evaluation, Evaluation.while_training)

        def counted(questions: Evaluation, model: torch.nn.Module) -> dict[str, float]:
            self.evaluations += 1
            return dict(evaluate(questions, model))

        monkeypatch.setattr(Evaluation, "while_training", counted)

    def taking(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any) -> Any:
            self.now += seconds
            return function(*arguments)

        return slow


def summary_of(spaces: Path, run: str = "default") -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((spaces / "out" / run / "summary.json").read_text())
    return summary


@pytest.mark.parametrize(
    ("evaluation", "save", "options"),
    [(0.01, 0.01, []), (0.5, 0.05, SELDOM), (1.2, 0.03, SELDOM), (0.3, 0.0, [*SELDOM, "-s", "train.runtime.log_interval=7"])],
)  # fmt: skip
def test_a_run_ends_within_two_percent_of_its_budget(
    spaces: Path,
    terrarium: Terrarium,
    monkeypatch: pytest.MonkeyPatch,
    evaluation: float,
    save: float,
    options: list[str],
) -> None:
    clock = Clock(monkeypatch, step=0.03, evaluation=evaluation, save=save)
    options = options or ["-s", "train.runtime.eval_interval=50", "-s", "train.runtime.checkpoint_interval=30"]
    result = terrarium("train", "spaces", "-s", f"{MINUTES}=0.1", *options)
    assert result.exit_code == 0, result.output
    summary, rows = summary_of(spaces), read_rows(spaces / "out" / "default" / "metrics.csv")
    assert summary["status"] == "completed"
    assert summary["wall_seconds"] == pytest.approx(6, rel=0.02)
    assert clock.now - 1000 == pytest.approx(summary["wall_seconds"], abs=1e-3)
    assert summary["steps"] > 6  # which is max_iters
    assert summary["train_seconds"] == pytest.approx(0.03 * summary["steps"], abs=1e-3)
    assert rows[-1]["step"] == summary["steps"]
    assert rows[-1]["val_loss"] == summary["final_val_loss"]
    assert read_state(spaces / "out" / "default" / "checkpoints" / "last")["step"] == summary["steps"]
    if options[:2] == SELDOM[:2]:
        assert clock.evaluations == 2  # one at a tenth of the budget, one at its end
        assert next(row["seconds"] for row in rows if "val_loss" in row) == pytest.approx(0.6, abs=0.07)


def test_the_last_state_is_saved_whatever_saves_take(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the latest save took says when a run is over. It becomes known between two steps, here just after an evaluation."""
    Clock(monkeypatch, step=0.03, evaluation=0.05, save=0.0)
    whole, looks = saver.Saver.poll, itertools.count(1)

    def poll(self: saver.Saver) -> list[saver.Saved]:
        slow = [saver.Saved(0, Path("last"), 100.0)] if next(looks) >= 14 else []
        return [*whole(self), *slow]

    monkeypatch.setattr(saver.Saver, "poll", poll)
    often = ("-s", "train.runtime.eval_interval=1", "-s", "train.runtime.checkpoint_interval=1000000")
    done = terrarium("train", "spaces", "-s", f"{MINUTES}=0.1", *often)
    assert done.exit_code == 0, done.output
    summary = summary_of(spaces)
    assert 0 < summary["steps"] < 50  # the budget alone allows more
    assert read_state(spaces / "out" / "default" / "checkpoints" / "last")["step"] == summary["steps"]


def test_rates_reach_their_end_with_the_budget(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, step=0.02, evaluation=0.5, save=0.3)
    quick = ("-s", "train.runtime.log_interval=1", *SELDOM)
    assert terrarium("train", "spaces", "-s", f"{MINUTES}=0.1", *quick).exit_code == 0
    rates = [row["learning_rate"] for row in read_rows(spaces / "out" / "default" / "metrics.csv")]
    assert rates[0] == max(rates) == 0.02
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.02 * 0.02, rel=0.5)  # min_lr, but for a step or two


def test_a_budget_that_the_first_evaluation_uses_up_ends_there(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, step=0.05, evaluation=5.0, save=0.2)
    assert terrarium("train", "spaces", "-s", f"{MINUTES}=0.1", *SELDOM).exit_code == 0
    summary = summary_of(spaces)
    assert (summary["status"], clock.evaluations) == ("completed", 1)
    assert read_state(spaces / "out" / "default" / "checkpoints" / "last")["step"] == summary["steps"]


def test_a_resumed_run_gets_the_time_that_is_left(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (spaces / "prepare.py").read_text()
    kill = "\nimport os, signal\n\ndef on_metrics(run, step, metrics):\n    if step == 100:\n        os.kill(os.getpid(), signal.SIGINT)\n"
    (spaces / "prepare.py").write_text(source + kill)
    clock = Clock(monkeypatch, step=0.02, evaluation=0.3, save=0.05)
    command = ("train", "spaces", "-s", f"{MINUTES}=0.1", *SELDOM)
    first = terrarium(*command)
    assert first.exit_code == 130, first.output
    assert "for 0.1 minutes on cpu" in first.output
    spent = summary_of(spaces)["wall_seconds"]
    assert 2 < spent < 3
    begun = clock.now
    resumed = terrarium(*command)
    assert resumed.exit_code == 0, resumed.output
    assert "resumed at step 100, 3." in resumed.output
    assert "s left" in resumed.output
    summary = summary_of(spaces)
    assert summary["wall_seconds"] == pytest.approx(6, rel=0.02)
    assert spent + clock.now - begun == pytest.approx(
        6, rel=0.04
    )  # the save of the interruption is not in the first sum
    before = (spaces / "out" / "default" / "metrics.csv").read_bytes()
    for options in ([], ["--resume"]):
        again = terrarium(*command, *options)
        assert "spaces/default is finished" in again.output
    assert (spaces / "out" / "default" / "metrics.csv").read_bytes() == before


def test_resume_may_change_the_budget(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, step=0.02, evaluation=0.1, save=0.05)
    assert terrarium("train", "spaces", "-s", f"{MINUTES}=0.05").exit_code == 0
    steps = summary_of(spaces)["steps"]
    refused = terrarium("train", "spaces", "-s", f"{MINUTES}=0.1")
    assert refused.exit_code == 2
    assert "made with other settings: train.runtime.max_minutes: 0.05 -> 0.1" in refused.stderr
    without = terrarium("train", "spaces")
    assert without.exit_code == 2
    assert "train.runtime.max_minutes: 0.05 -> None" in without.stderr
    shorter = terrarium("train", "spaces", "-s", f"{MINUTES}=0.04", "--resume")
    assert "is finished" in shorter.output
    longer = terrarium("train", "spaces", "-s", f"{MINUTES}=0.1", "--resume")
    assert longer.exit_code == 0, longer.output
    summary = summary_of(spaces)
    assert summary["wall_seconds"] == pytest.approx(6, rel=0.02)
    assert summary["steps"] > steps
    by_steps = terrarium("train", "spaces", "-s", f"train.schedule.max_iters={summary['steps'] + 4}", "--resume")
    assert by_steps.exit_code == 0, by_steps.output
    assert summary_of(spaces)["steps"] == summary["steps"] + 4


def test_an_interruption_of_the_last_step_leaves_nothing_to_do(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (spaces / "prepare.py").read_text()
    kill = "\nimport os, signal\n\ndef on_metrics(run, step, metrics):\n    if step > 100 and 'val_loss' in metrics:\n        os.kill(os.getpid(), signal.SIGINT)\n"
    (spaces / "prepare.py").write_text(source + kill)
    clock = Clock(monkeypatch, step=0.02, evaluation=0.3, save=0.05)
    command = ("train", "spaces", "-s", f"{MINUTES}=0.1", *SELDOM)
    assert terrarium(*command).exit_code == 130
    begun, steps = clock.now, summary_of(spaces)["steps"]
    resumed = terrarium(*command)
    assert resumed.exit_code == 0, resumed.output
    assert (clock.now, summary_of(spaces)["steps"], summary_of(spaces)["status"]) == (begun, steps, "completed")


def test_a_checkpoint_of_a_run_by_steps_needs_no_clock() -> None:
    config = Train.model_validate({"schedule": {"max_iters": 3}, "runtime": {"eval_interval": 2, "log_interval": 5}})
    pace = Pace(config, Progress(step=1))
    assert pace.gone() is None
    assert not pace.over()
    assert (pace.due().evaluation, pace.due().row, pace.due().checkpoint) == (True, True, False)
    pace = Pace(config, Progress(step=2))
    assert (pace.due().evaluation, pace.due().losses) == (True, True)  # the last one
    assert Pace(config, Progress(step=3)).over()


def test_a_short_budget_on_the_real_clock(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces", "-s", f"{MINUTES}=0.05")
    assert result.exit_code == 0, result.output
    summary = summary_of(spaces)
    assert summary["wall_seconds"] == pytest.approx(3, rel=0.25)  # a busy machine is not steady
    assert summary["steps"] > 6
    assert "/3 s" in result.output


def test_lines_and_bar_show_the_share_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"step": 20, "train_loss": 1.5, "seconds": 10.0, "tokens_per_second": 1234.0, "wall_seconds": 12.5}
    by_time, by_steps = (SECONDS, 12.5, 180.0), (STEPS, 20, 1000)
    for length, line in (
        (by_time, "step 20  loss 1.5000  12.5/180 s  1,234 tokens/s"),
        (by_steps, "step   20/1000  loss 1.5000  10.0 s  1,234 tokens/s"),
    ):
        console = Console()
        console.progress(*length)
        assert console.sentence(row) == line
    monkeypatch.setattr(Console, "interactive", True)
    for length in (by_time, by_steps):
        console = Console()
        console.progress(*length)
        console.row(row)
        assert console.status is not None
        assert (console.status.done, console.status.total) == length[1:]
        assert "loss 1.500" in console.latest
        console.progress(length[0], length[2], length[2])
        assert console.status is None, "the bar goes when the run is over"


def test_the_last_step_that_is_kept_is_the_end_and_none_shortly_before_it() -> None:
    config = Train.model_validate({"runtime": {"max_minutes": 1.0, "keep_checkpoints": 4}})
    pace = Pace(config, Progress(step=20, wall_seconds=1.0))
    assert not pace.due().kept
    pace.progress.wall_seconds = 10.0  # beyond the third of the four
    assert pace.due().kept
    pace.note_kept()
    pace.progress.wall_seconds, pace.progress.evaluation_seconds = (
        58.0,
        5.0,
    )  # what is left is for the closing evaluation
    assert not pace.due().kept
