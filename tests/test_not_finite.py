"""A loss or gradient that is not finite: it never reaches weights or disk; the run stops, or goes back and on without that batch."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file

from core.tracking import answers
from core.training import ladder
from core.training.progress import Progress
from core.training.trainer import MOST_ROLLBACKS

Terrarium = Callable[..., Result]

POISON = '''
def build_model(config, vocab_size):
    import torch

    class Spoil(torch.autograd.Function):
        """Leaves a value alone and makes its gradient infinite."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    class Poisoned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.calls = torch.nn.Embedding(vocab_size, vocab_size), 0

        def forward(self, tokens):
            self.calls += self.training
            logits = self.table(tokens)
            if self.training and self.calls in CALLS:
                return Spoil.apply(logits) if WHERE == "gradient" else logits * float("nan")
            return logits

    return Poisoned()
'''
NOT_TIMED = ("-s", "train.runtime.threads=1")  # a rehearsal would count as calls; the dtype is given already


def poisoned(folder: Path, where: str, calls: str) -> None:
    """Have the training calls of those numbers, from 1, give a loss or a gradient that is not finite."""
    source = (folder / "prepare.py").read_text()
    (folder / "prepare.py").write_text(f"{source}\nWHERE, CALLS = {where!r}, {calls}\n{POISON}")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("where", "named"), [("loss", "loss is nan"), ("gradient", "norm of the gradient is nan")])
def test_a_run_stops_before_the_weights_are_touched(spaces: Path, terrarium: Terrarium, where: str, named: str) -> None:
    poisoned(spaces, where, "(5,)")
    result = terrarium("train", "spaces", *NOT_TIMED)
    assert result.exit_code == 1
    assert f"the {named} at step 5 (batch 4). What was saved before is whole." in result.stderr
    assert "-s train.runtime.on_nan=rollback" in result.stderr
    assert "Lower train.optim.learning_rate" in result.stderr
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["status"] == "failed"
    last = spaces / "out" / "default" / "checkpoints" / "last"
    assert json.loads((last / "state.json").read_text())["step"] == 4
    for name in ("model", "optimizer"):
        assert all(tensor.isfinite().all() for tensor in load_file(last / f"{name}.safetensors").values())


@pytest.mark.parametrize(("where", "named"), [("loss", "loss is nan"), ("gradient", "norm of the gradient is nan")])
def test_a_rollback_goes_on_without_the_batch(spaces: Path, terrarium: Terrarium, where: str, named: str) -> None:
    """Saved at 2 and 4 of 6 steps; call 6 is step 6. Back at step 4, batch 5 is left out and batch 6 comes instead."""
    poisoned(spaces, where, "(6,)")
    result = terrarium("train", "spaces", *NOT_TIMED, "-s", "train.runtime.on_nan='rollback'")
    assert result.exit_code == 0, result.output
    assert f"step 6: the {named} for batch 5. Back to step 4, without that batch, at 0.5 of the rates." in result.stdout
    folder = spaces / "out" / "default"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["skipped_batches"]) == ("completed", 6, [5])
    assert [row["step"] for row in rows(folder)] == ["2", "3", "4", "6"]
    assert len(json.loads((folder / "metrics.json").read_text())) == 4


def test_the_rates_are_halved_from_there_on(spaces: Path, terrarium: Terrarium) -> None:
    constant = ("-s", "train.schedule.decay='constant'", "-s", "train.runtime.log_interval=1")
    poisoned(spaces, "loss", "(4,)")
    result = terrarium("train", "spaces", *NOT_TIMED, *constant, "-s", "train.runtime.on_nan='rollback'")
    assert result.exit_code == 0, result.output
    rates = [float(row["learning_rate"]) for row in rows(spaces / "out" / "default")]
    assert rates == pytest.approx([rates[0]] * 3 + [rates[0] / 2] * 3)  # back to step 3, the best so far


def test_a_first_step_that_is_not_finite_goes_back_to_the_start(spaces: Path, terrarium: Terrarium) -> None:
    poisoned(spaces, "loss", "(1,)")
    result = terrarium("train", "spaces", *NOT_TIMED, "-s", "train.runtime.on_nan='rollback'")
    assert result.exit_code == 0, result.output
    assert "step 1: the loss is nan for batch 0. Back to step 0" in result.stdout


def test_rollbacks_come_to_an_end(spaces: Path, terrarium: Terrarium) -> None:
    poisoned(spaces, "loss", "range(5, 1000)")
    result = terrarium("train", "spaces", *NOT_TIMED, "-s", "train.runtime.on_nan='rollback'")
    assert result.exit_code == 1
    assert result.stdout.count("Back to step 4") == MOST_ROLLBACKS
    assert f"the loss is nan at step 5 (batch {4 + MOST_ROLLBACKS})" in result.stderr


def test_a_resume_leaves_the_same_batches_out(spaces: Path, terrarium: Terrarium) -> None:
    """The batch that was left out, and the lower rates, are part of the state."""
    poisoned(spaces, "loss", "(3,)")
    settings = (*NOT_TIMED, "-s", "train.runtime.on_nan='rollback'", "-s", "train.schedule.decay='constant'")
    assert terrarium("train", "spaces", *settings).exit_code == 0
    folder = spaces / "out" / "default"
    state = json.loads((folder / "checkpoints" / "last" / "state.json").read_text())
    assert state["progress"]["skipped"] == [2]
    resumed = terrarium("train", "spaces", *settings, "--resume", "-s", "train.schedule.max_iters=8")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads((folder / "summary.json").read_text())["skipped_batches"] == [2]
    rates = {row["step"]: float(row["learning_rate"]) for row in rows(folder)}
    assert rates["8"] == rates["6"] == pytest.approx(rates["2"] / 2)


@pytest.mark.parametrize(
    ("skipped", "numbers"),
    [([], [0, 1, 2, 3, 4]), ([2], [0, 1, 3, 4, 5]), ([0, 1], [2, 3, 4, 5, 6]), ([1, 3, 4], [0, 2, 5, 6, 7])],
)
def test_batches_are_taken_in_order_past_those_left_out(skipped: list[int], numbers: list[int]) -> None:
    assert [Progress(step=step, skipped=skipped).batch for step in range(5)] == numbers


ROLL_BACK = (*NOT_TIMED, "-s", "train.runtime.on_nan='rollback'")
NOT_SAVED = ("-s", "train.runtime.checkpoint_interval=1000")
ONLY_AT_THE_START = (*NOT_SAVED, "-s", "train.runtime.eval_interval=1000000")  # so that a rollback goes back to step 0


def norm_of(checkpoint: Path) -> float:
    """The norm of a checkpoint's weights, as the column param_norm has it."""
    tensors = load_file(checkpoint / "model.safetensors").values()
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())


def test_kept_steps_of_an_abandoned_branch_are_not_those_of_the_run(spaces: Path, terrarium: Terrarium) -> None:
    """Steps 1 and 2 are kept, step 4 fails: back to 0, at half of the rates. Each kept step is of the way that the rows tell of."""
    poisoned(spaces, "loss", "(4,)")
    keep = ("-s", "train.runtime.keep_checkpoints=4", "-s", "train.runtime.log_interval=1")
    result = terrarium("train", "spaces", *ROLL_BACK, *ONLY_AT_THE_START, *keep)
    assert result.exit_code == 0 and "Back to step 0" in result.stdout, result.output
    folder = spaces / "out" / "default"
    kept = ladder.kept_steps(folder / "checkpoints")
    assert kept == [0, 1, 2, 6]
    told = {int(row["step"]): float(row["param_norm"]) for row in rows(folder)}
    assert [norm_of(folder / "checkpoints" / ladder.kept_name(step)) for step in kept[1:]] == pytest.approx([told[step] for step in kept[1:]], rel=1e-5)  # fmt: skip


def good_only_after(folder: Path, call: int) -> None:
    """Have evaluations find a model that is sure of nonsense, but for those after a training call."""
    source = (folder / "prepare.py").read_text()
    scripted = f"logits = self.table(tokens) * (1.0 if self.training or self.calls == {call} else 30.0)"
    (folder / "prepare.py").write_text(source.replace("logits = self.table(tokens)", scripted))


def test_nothing_of_an_abandoned_branch_is_left_behind_a_rollback(spaces: Path, terrarium: Terrarium) -> None:
    """Step 1 is the best. Back to it from step 4, and failed for good: step 2 was kept, and steps 2 and 3 had answers."""
    poisoned(spaces, "loss", "range(4, 1000)")
    good_only_after(spaces, 1)
    settings = (*NOT_SAVED, "-s", "train.runtime.keep_checkpoints=4", "-s", "train.runtime.eval_interval=1")
    result = terrarium("train", "spaces", *ROLL_BACK, *settings)
    assert result.exit_code == 1 and "Back to step 1" in result.stdout, result.output
    folder = spaces / "out" / "default"
    assert ladder.kept_steps(folder / "checkpoints") == [0, 1]
    assert [row["step"] for row in rows(folder)] == ["1"]
    assert {each["step"] for each in answers.evaluations_in((folder / answers.FILE).read_bytes())} == {1}


def test_a_run_of_minutes_keeps_another_step_for_those_it_has_abandoned(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock is 10 ms later, of 3 s: the second rung is at 30 ms, the rollback soon after it."""
    clock = itertools.count()
    monkeypatch.setattr("core.training.pace.time", SimpleNamespace(perf_counter=lambda: next(clock) / 100))
    poisoned(spaces, "loss", "(10,)")
    minutes = ("-s", "train.runtime.max_minutes=0.05", "-s", "train.runtime.keep_checkpoints=3")
    result = terrarium("train", "spaces", *ROLL_BACK, *ONLY_AT_THE_START, *minutes)
    assert result.exit_code == 0 and "step 10: the loss is nan for batch 9. Back to step 0" in result.stdout, result.output  # fmt: skip
    first, middle, last = ladder.kept_steps(spaces / "out" / "default" / "checkpoints")
    assert (first, middle) == (0, 1) and last > 20


def test_the_best_checkpoint_is_never_of_an_abandoned_branch(spaces: Path, terrarium: Terrarium) -> None:
    """`last` is saved at 2 of 5 steps, step 3 is the best by far, step 4 fails, and nothing is as good again."""
    poisoned(spaces, "loss", "(4,)")
    good_only_after(spaces, 3)
    settings = ("-s", "train.runtime.eval_interval=1", "-s", "train.schedule.max_iters=5", "-s", "train.optim.learning_rate=0.1")  # fmt: skip
    result = terrarium("train", "spaces", *ROLL_BACK, *settings)
    assert result.exit_code == 0 and "step 4: the loss is nan for batch 3. Back to step" in result.stdout, result.output
    folder = spaces / "out" / "default"
    summary = json.loads((folder / "summary.json").read_text())
    state = json.loads((folder / "checkpoints" / "best" / "state.json").read_text())
    assert state["step"] == summary["best_step"] == state["progress"]["step"]
    told = {int(row["step"]): float(row["val_loss"]) for row in rows(folder)}
    assert summary["best_val_loss"] == pytest.approx(told[summary["best_step"]], rel=1e-5) and min(told.values()) == told[summary["best_step"]]  # fmt: skip


def test_a_norm_that_overflows_is_not_taken_for_a_number() -> None:
    from core.training.step import clip_gradient

    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.tensor([[float("nan")]])
    assert not clip_gradient(model, 0.0).isfinite()
