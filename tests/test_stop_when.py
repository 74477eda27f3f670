"""`train.runtime.stop_when` ends a run early, and `reached` says when an accuracy was passed; both survive a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from core.evaluation.evaluate import Evaluation
from core.training import checkpoints
from core.training.progress import Progress, delay_of, note_reached

Terrarium = Callable[..., Result]
STOP = ("-s", 'train.runtime.stop_when="val_accuracy >= 0.9"')
STEADY = (
    "-s",
    "train.schedule.max_iters=12",
    "-s",
    "train.runtime.attention=explicit",
    "-s",
    "train.runtime.threads=1",
)


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Evaluations whose accuracy rises: 0.4, 0.7, 0.95, 1.0, ... by step, at steps 3, 6, 9, 12."""
    values: dict[int, float] = {3: 0.4, 6: 0.7, 9: 0.95, 12: 1.0}
    whole = Evaluation.while_training
    steps: Iterator[int] = iter(())

    def begin() -> None:
        nonlocal steps
        steps = iter(sorted(values))

    def scored(self: Evaluation, model: Any) -> dict[str, float]:
        step = next(steps)
        return whole(self, model) | {"val_accuracy": values[step], "train_accuracy": min(1.0, values[step] + 0.1)}

    begin()
    monkeypatch.setattr(Evaluation, "while_training", scored)
    return begin


def summary(spaces: Path, run: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((spaces / "out" / run / "summary.json").read_text())
    return found


def test_a_run_ends_where_the_condition_holds(spaces: Path, terrarium: Terrarium, rising: Callable[[], None]) -> None:
    result = terrarium("train", "spaces", *STEADY, *STOP)
    assert result.exit_code == 0, result.output
    found = summary(spaces)
    assert (found["status"], found["steps"], found["stopped_by"]) == ("completed", 9, "val_accuracy >= 0.9")
    assert found["best_step"] == 9 and found["val_accuracy"] == 0.95
    assert "Stopped early: val_accuracy >= 0.9." in result.stdout
    assert checkpoints.load(spaces / "out" / "default" / "checkpoints", "last").state["step"] == 9
    assert {side: list(passed) for side, passed in found["reached"].items()} == {
        "train": ["0.5", "0.9", "0.99", "1"], "val": ["0.5", "0.9"],
    }  # fmt: skip
    assert found["reached"]["val"]["0.5"]["step"] == 6 and found["reached"]["val"]["0.9"]["step"] == 9
    assert found["reached"]["train"]["0.5"]["step"] == 3
    assert 0 < found["reached"]["val"]["0.5"]["seconds"] < found["reached"]["val"]["0.9"]["seconds"]


def test_a_run_that_never_meets_it_takes_all_its_steps(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", "-s", 'train.runtime.stop_when="val_loss < 1e-9"').exit_code == 0
    assert (summary(spaces)["steps"], summary(spaces)["stopped_by"]) == (6, None)


def test_a_stopped_run_is_finished_until_the_condition_is_another(
    spaces: Path, terrarium: Terrarium, rising: Callable[[], None]
) -> None:
    assert terrarium("train", "spaces", *STEADY, *STOP).exit_code == 0
    for more in ((), ("--resume",)):
        again = terrarium("train", "spaces", *STEADY, *STOP, *more)
        assert again.exit_code == 0 and "is finished" in again.stdout and summary(spaces)["steps"] == 9
    further = terrarium("train", "spaces", "--resume", *STEADY, "-s", 'train.runtime.stop_when="val_accuracy >= 1"')
    assert further.exit_code == 0, further.output
    assert (summary(spaces)["steps"], summary(spaces)["stopped_by"]) == (12, "val_accuracy >= 1")


@pytest.mark.parametrize("status", ["interrupted", "completed"])
def test_a_kill_behind_the_last_save_does_not_train_on(
    spaces: Path, terrarium: Terrarium, rising: Callable[[], None], status: str
) -> None:
    """The state says that the condition held: a run that is killed before its summary is written ends as it would have."""
    assert terrarium("train", "spaces", *STEADY, *STOP).exit_code == 0
    weights = spaces / "out" / "default" / "checkpoints" / "last" / "model.safetensors"
    before, path = weights.read_bytes(), spaces / "out" / "default" / "summary.json"
    path.write_text(json.dumps(summary(spaces) | {"status": status, "steps": 0, "stopped_by": None}))
    again = terrarium("train", "spaces", *STEADY, *STOP, *(("--resume",) if status == "completed" else ()))
    assert again.exit_code == 0, again.output
    found = summary(spaces)
    assert (found["status"], found["steps"], found["stopped_by"]) == ("completed", 9, "val_accuracy >= 0.9")
    assert found["reached"]["val"]["0.9"]["step"] == 9
    assert weights.read_bytes() == before


def test_a_group_may_decide(spaces: Path, terrarium: Terrarium) -> None:
    stop = ("-s", 'train.runtime.stop_when="train_accuracy/3 letters >= 0"')  # no such group: it never holds
    assert terrarium("train", "spaces", *stop).exit_code == 0
    assert summary(spaces)["stopped_by"] is None


def test_what_was_reached_is_noted_once() -> None:
    progress = Progress(step=5, seconds=1.5)
    note_reached(progress, {"val_accuracy": 0.93})
    progress.step, progress.seconds = 10, 3.0
    note_reached(progress, {"val_accuracy": 0.4, "val_loss": 1.0})
    note_reached(progress, {"val_accuracy": 1.0})
    assert progress.reached == {
        "val": {
            "0.5": {"step": 5, "seconds": 1.5}, "0.9": {"step": 5, "seconds": 1.5},
            "0.99": {"step": 10, "seconds": 3.0}, "1": {"step": 10, "seconds": 3.0},
        }
    }  # fmt: skip
    note_reached(progress, {"val_loss": 1.0})
    assert list(progress.reached) == ["val"]


@pytest.mark.parametrize(
    ("train", "val", "delay"),
    [({"0.99": 3}, {"0.99": 12}, 9), ({"0.99": 12}, {"0.99": 9}, -3), ({"0.99": 3}, {"0.9": 3}, None), ({}, {}, None)],
)
def test_the_delay_is_from_memorising_to_generalising(
    train: dict[str, int], val: dict[str, int], delay: int | None
) -> None:
    sides = {"train": train, "val": val}
    passed = {side: {name: {"step": step, "seconds": 1.0} for name, step in of.items()} for side, of in sides.items()}
    assert delay_of(passed) == delay
    assert delay_of({}) is None


def test_summary_and_report_say_when_it_generalised(
    spaces: Path, terrarium: Terrarium, rising: Callable[[], None]
) -> None:
    assert terrarium("train", "spaces", *STEADY).exit_code == 0
    assert summary(spaces)["delay"] == 3
    assert terrarium("report", "spaces").exit_code == 0
    page = (spaces / "out" / "default" / "report.md").read_text()
    assert "## Memorising and generalising" in page
    assert re.search(r"Memorised, 99% of the training prompts right: at step 9, after [\d.]+ s\.", page)
    assert re.search(r"Generalised, 99% of the validation prompts right: at step 12, after [\d.]+ s\.", page)
    assert "It generalised 3 steps after it had memorised." in page
    assert "Measured at evaluations, every 3 steps." in page
    assert "Memorising and generalising" in (spaces / "out" / "default" / "report.html").read_text()


def test_a_report_says_what_was_not_reached(spaces: Path, terrarium: Terrarium, rising: Callable[[], None]) -> None:
    assert terrarium("train", "spaces", *STEADY, *STOP).exit_code == 0
    assert summary(spaces)["delay"] is None
    assert terrarium("report", "spaces").exit_code == 0
    page = (spaces / "out" / "default" / "report.md").read_text()
    assert "Generalised, 99% of the validation prompts right: not reached." in page
    assert "had memorised" not in page
