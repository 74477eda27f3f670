"""The training loop.

Legend: G micro-batches of an optimizer step, B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from core import process
from core.conditions import read_condition
from core.config import Train
from core.errors import RunFailed
from core.listener import Listener
from core.plugins.manager import Plugins
from core.process import StopRequest
from core.tracking.answers import keep_answers
from core.tracking.metrics import EPOCH, MetricsFile
from core.tracking.run import Run
from core.training import checkpoints, ladder
from core.training import progress as saving
from core.training.machine import Machine
from core.training.pace import Pace
from core.training.progress import Progress, note_reached
from core.training.saver import Saved, Saver
from core.training.schedules import after_evaluation, fraction
from core.training.speed import Speed
from core.training.step import Step

Row = dict[str, float]
COLLAPSE = "collapse: "
MOST_ROLLBACKS = 10  # after ten halvings the rates are at a thousandth, so something else is wrong


@dataclass(frozen=True)
class Parts:
    """Everything that the loop needs; `core.lab.assemble` builds it.

    batch(step) -> inputs and targets (G, B, T), -1 where there is no target, and what else the objective takes; a pure
    function of the step and, for an objective that reads what the model writes, of its weights.
    step: the optimizer step of the model. evaluate(model, number of the step) -> metrics, val_loss among them.
    trackers: objects with log(step, row). saver: writes checkpoints while training goes on.
    identity: the dataset's fingerprint and encoder, kept in every checkpoint.
    listener: receives rows and progress. epochs(batches) -> how often these read the dataset; None: batches are random.
    figures() -> what is to be told of the last batch; its mean goes into each row. collapsed(row, best evaluation, steps in a
    row without a target) -> why training on makes no sense, or "". Where it is given, the weights at the start are evaluated
    too, because they may stay the best.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    machine: Machine
    batch: Callable[[int], tuple[Any, ...]]
    step: Step
    evaluate: Callable[[torch.nn.Module, int], Row]
    trackers: list[Any]
    plugins: Plugins
    identity: dict[str, Any]
    saver: Saver
    speed: Speed
    listener: Listener
    epochs: Callable[[int], float] | None = None
    figures: Callable[[], Row] | None = None
    collapsed: Callable[[Row, Row, int], str] | None = None


def train(run: Run, parts: Parts, progress: Progress, metrics: MetricsFile, stop: StopRequest) -> None:
    """Train from `progress`, and keep it up to date, until the steps or minutes are used up or a stop is requested.

    A run also ends at the first evaluation where train.runtime.stop_when holds, or where it has collapsed. The final state is always saved, and
    evaluated unless a request ended the run. A loss or gradient that is not finite never reaches the weights: the run
    fails (RunFailed) or goes back, see `roll_back`.
    """
    config, model, optimizer, step = run.config.train, parts.model, parts.optimizer, parts.step
    step.share_state()
    pace = Pace(config, progress, compiling=step.compiles)
    parts.plugins.manager.hook.on_train_start(run=run)
    unread: list[Any] = []  # losses and gradient norms that a device may still be computing
    model.train()
    checkpoints.forget(run.checkpoints, after=progress.step or -1)  # what a try that came further has kept
    if config.runtime.keep_checkpoints > 1 and not progress.step:
        keep(run, parts, progress, pace)
    rolls_back = config.runtime.on_nan == "rollback"
    if parts.collapsed is not None and not progress.best_evaluation:
        evaluate(run, parts, progress, pace)
        progress.stopped_by = ""  # a run takes at least one step
    if rolls_back and not progress.step:
        save(run, parts, progress, pace, "last")  # something to go back to

    if progress.stopped_by != config.runtime.stop_when and not progress.stopped_by.startswith(COLLAPSE):
        progress.stopped_by = ""  # it is from an earlier try with another condition
    stopping, over = False, bool(progress.stopped_by) or pace.over()
    while not (stopping or over):
        due = pace.due()
        set_learning_rate(optimizer, config, progress, pace.gone())
        batch = parts.batch(progress.batch)
        unread.append(step.gradient(*batch))
        # Reading the losses stalls a GPU. On a CPU it is free.
        if due.losses or stop.number or step.reads_freely:
            figures = step.read(unread)
            unread.clear()
            if not all(math.isfinite(figure) for pair in figures for figure in pair):
                roll_back(run, parts, progress, pace, metrics, figures)
                continue
            for loss_read, _ in figures:
                progress.count(loss_read)
        progress.silent = 0 if step.update(batch[1]) else progress.silent + 1
        progress.step += 1
        progress.tokens += batch[0].size
        if parts.figures is not None:
            progress.note(parts.figures())
        pace.count_step()

        if due.row:
            row = pace.figures() | {
                "train_loss": progress.take_mean_loss(),
                "grad_norm": figures[-1][1],
                "learning_rate": optimizer.param_groups[0]["lr"],
                "param_norm": step.norm(),
            }
            row |= progress.take_means()
            if parts.epochs is not None:
                row[EPOCH] = round(parts.epochs(progress.batch), 4)
            if due.evaluation:
                best = dict(progress.best_evaluation)
                row |= evaluate(run, parts, progress, pace)
                if parts.collapsed is not None and (why := parts.collapsed(row, best, progress.silent)):
                    progress.stopped_by = f"{COLLAPSE}{why}"
            metrics.append(row)
            publish(run, parts, row, pace)
            publishing = pace.lap()
            if due.evaluation:
                progress.evaluation_seconds += publishing
        note_saved(run, parts, progress, parts.saver.poll())
        over = bool(progress.stopped_by) or pace.over()
        # Only losses that were read may be saved. A request that comes after this waits for the next step.
        stopping = bool(stop.number) and not unread
        if due.kept or (over and config.runtime.keep_checkpoints):
            keep(run, parts, progress, pace)
        is_best = due.evaluation and progress.best_step == progress.step
        if due.checkpoint or stopping or over or (rolls_back and is_best):  # so that `best` stays on the run's way
            if stopping or over:
                pace.count_rest()
            metrics.sync()  # a resume keeps the rows up to its checkpoint, so they must be on disk before it
            save(run, parts, progress, pace, "last")
    note_saved(run, parts, progress, parts.saver.finish())
    pace.lap()
    what, _, length = pace.position()
    parts.listener.progress(what, length, length)  # over, whether all of it was needed or not


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Train, progress: Progress, gone: float | None) -> None:
    """Scale every group's peak rate by the schedule, and halve it for each skipped batch.

    gone: used share of a time budget; None if the run is limited by steps.
    """
    scale = fraction(progress.step, config.schedule, config.optim.learning_rate or 0.0, gone, progress.plateau)
    scale *= 0.5 ** len(progress.skipped)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * scale


def roll_back(
    run: Run, parts: Parts, progress: Progress, pace: Pace, metrics: MetricsFile, figures: list[list[float]]
) -> None:
    """Go back to the last checkpoint, skip the batch whose loss or gradient is not finite, and halve the rates.

    figures: loss and gradient norm of the steps since they were last read. Raises RunFailed if
    train.runtime.on_nan = "stop", and after `MOST_ROLLBACKS`. Checkpoints are always finite, because losses are read
    before anything is saved.
    """
    place = next(index for index, pair in enumerate(figures) if not all(map(math.isfinite, pair)))
    loss, gradient = figures[place]
    what, value = ("loss", loss) if not math.isfinite(loss) else ("norm of the gradient", gradient)
    step, number = progress.step + 1 - (len(figures) - 1 - place), progress.batch - (len(figures) - 1 - place)
    if run.config.train.runtime.on_nan == "stop" or len(progress.skipped) >= MOST_ROLLBACKS:
        raise diverged(run, what, value, step, number)
    parts.optimizer.zero_grad(set_to_none=True)
    pace.lap()
    note_saved(run, parts, progress, parts.saver.finish())
    former = saving.restore(run, parts.model, parts.optimizer, parts.identity)
    keep_answers(run.folder, former.step)
    if checkpoints.forget(run.checkpoints, after=former.step):
        pace.passed = 0  # a run of minutes keeps its next step in their place
    kept = {
        "skipped": sorted([*progress.skipped, number]),
        "seconds": progress.seconds,
        "wall_seconds": progress.wall_seconds,
    }
    vars(progress).update(vars(former) | kept)  # the time used so far still counts
    parts.step.share_state()
    pace.rewind()
    metrics.rewind(progress.step)
    parts.listener.say(
        f"step {step}: the {what} is {value} for batch {number}. Back to step {progress.step}, without that batch, "
        f"at {0.5 ** len(progress.skipped):g} of the rates."
    )


def diverged(run: Run, what: str, value: float, step: int, number: int | None = None) -> RunFailed:
    """The error for a figure that is not finite: training cannot continue from here."""
    batch = "" if number is None else f" (batch {number})"
    return RunFailed(
        f"{run.title}: the {what} is {value} at step {step}{batch}. What was saved before is whole.\n"
        f"  Lower train.optim.learning_rate (now {run.config.train.optim.learning_rate:g}), "
        "raise train.schedule.warmup_iters, or set train.optim.grad_clip = 1.0; then train with `fresh=True`. "
        "Or go on without such batches: `train.runtime.on_nan=rollback`."
    )


def evaluate(run: Run, parts: Parts, progress: Progress, pace: Pace) -> Row:
    """Evaluate on the validation side, and save checkpoint `best` if the state is the best so far. Returns the metrics."""
    parts.model.eval()
    with parts.step.whole(), torch.inference_mode():
        row = parts.evaluate(parts.model, progress.step)
    parts.model.train()
    if not math.isfinite(row["val_loss"]):
        raise diverged(run, "validation loss", row["val_loss"], progress.step)
    progress.evaluation, progress.evaluated_step, progress.evaluation_seconds = row, progress.step, pace.lap()
    if (
        progress.step % run.config.train.runtime.eval_interval == 0
    ):  # not the closing one, which a longer run does not have
        progress.plateau = after_evaluation(progress.plateau, row["val_loss"], run.config.train.schedule)
    note_reached(progress, row)
    condition = run.config.train.runtime.stop_when
    progress.stopped_by = condition if condition and read_condition(condition).holds(row) else ""
    if not progress.best_evaluation or saving.score(row) > saving.score(progress.best_evaluation):
        progress.best_evaluation, progress.best_step, progress.best_val_loss = row, progress.step, row["val_loss"]
        save(run, parts, progress, pace, "best")
    return row


def save(run: Run, parts: Parts, progress: Progress, pace: Pace, name: str) -> None:
    """Copy the state and start writing it as checkpoint `name`."""
    note_saved(run, parts, progress, parts.saver.make_room())
    parts.step.bring_back()
    step, writing = parts.step, parts.step.writing()
    write = saving.copy(run, name, progress, step.model, step.optimizer, parts.identity, writing)
    if writing is None:
        parts.saver.start(progress.step, write)
    else:  # the other processes write, too, so this one cannot go on
        parts.saver.at_once(progress.step, write)
    if parts.machine.device.type == "cpu":
        process.limit_memory()  # other processes may have freed memory since
    pace.lap()


def keep(run: Run, parts: Parts, progress: Progress, pace: Pace) -> None:
    """Copy the weights and start writing them, for those who want to see later how the run has learnt."""
    note_saved(run, parts, progress, parts.saver.make_room())
    with parts.step.whole():
        write = saving.copy_weights(run, progress.step, parts.model, parts.identity)
    parts.saver.start(progress.step, write)
    pace.note_kept()


def note_saved(run: Run, parts: Parts, progress: Progress, written: list[Saved]) -> None:
    """Tell plugins about `best` and `last` when they are on disk, and note how long the last one took."""
    for checkpoint in written:
        if ladder.KEPT.fullmatch(checkpoint.path.name):
            continue
        parts.plugins.manager.hook.on_checkpoint(run=run, step=checkpoint.step, path=checkpoint.path)
        progress.saving_seconds = checkpoint.seconds


def publish(run: Run, parts: Parts, row: Row, pace: Pace) -> None:
    """Send a row of metrics to trackers, plugins and the listener. The listener also gets the speed and the time so far."""
    step = int(row["step"])
    for tracker in parts.trackers:
        tracker.log(step, row)
    parts.plugins.manager.hook.on_metrics(run=run, step=step, metrics=row)
    parts.listener.progress(*pace.position())
    parts.listener.row(
        row | parts.speed.figures(row["tokens_per_second"], pace.ms_per_step) | {"wall_seconds": pace.wall_seconds()}
    )
