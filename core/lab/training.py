"""Train a run: open it, run the loop, conclude."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from core import durable, files
from core.data.batches import batch
from core.data.dataset import Dataset
from core.errors import Interrupted, RunFailed, UserError
from core.lab.assemble import Fresh, assemble, fresh_model, identity_of, refuse_unknown
from core.lab.cautions import warn_before_training
from core.lab.fitting import model_does_not_fit, step_does_not_fit
from core.lab.opened import Opened
from core.lab.settle import settle
from core.lab.summaries import closing, first_line, last_line, opening, surroundings
from core.models.build import parameter_count
from core.plugins.discovery import find
from core.process import StopRequest, computing, noting_signals
from core.report.log import has_log_entry, write_log_entry
from core.sampling.load import run_config
from core.tracking.begin import Beginning, begin
from core.tracking.environment import changes
from core.tracking.metrics import MetricsFile, accuracy_columns
from core.tracking.run import Run, find_run, lock_file, out_folder, read_summary
from core.tracking.trackers import Status, close_trackers, ending
from core.training import checkpoints, compiling, memory
from core.training.machine import choose_device
from core.training.progress import Progress, restore
from core.training.saver import saving_thread
from core.training.speed import Speed
from core.training.step import Step
from core.training.trainer import train


@dataclass(frozen=True)
class Started:
    """A run that can train: its folder is there, and nothing is missing."""

    opened: Opened
    run: Run
    dataset: Dataset
    fresh: Fresh
    progress: Progress

    @property
    def step(self) -> Step:
        """The step of the run, alone."""
        fresh, optim = self.fresh, self.run.config.train.optim
        return Step.of(fresh.model, fresh.optimizer, fresh.settled.machine, optim.grad_clip)

    @property
    def speed(self) -> Speed:
        return Speed.of(self.run.config.train, self.fresh.settled.machine, self.fresh.model)


@dataclass(frozen=True)
class Wish:
    """How a run is to be trained.

    name: of the run, None for the default one. resume: go on, schedule and runtime may differ. exact: resume bit for bit
    or not at all. fresh: start again. command: what is recorded as the way to this run. again: how to go on after an
    interrupt.
    """

    name: str | None = None
    resume: bool = False
    exact: bool = False
    fresh: bool = False
    description: str = ""
    command: str = ""
    again: str = ""


def refuse_impossible(opened: Opened, wish: Wish) -> None:
    """Raise UserError for what a run needs and this machine lacks, before anything is made."""
    refuse_unknown(opened)
    folder = opened.out / (wish.name or opened.default_run)
    if opened.config.train.runtime.compile is True and (wish.fresh or not folder.exists()):
        compiling.refuse_without_compiler(choose_device(opened.config.train.runtime.device))


def train_run(opened: Opened, dataset: Dataset, wish: Wish) -> Run:
    """Train one run to its end, or find that it is finished.

    Raises Interrupted after a signal, RunFailed, UserError.
    """
    if wish.resume and wish.fresh:
        raise UserError(
            "`resume=True` and `fresh=True` exclude each other",
            remedy="Choose one: go on with the run, or start it again.",
        )
    run = Run(opened.experiment, wish.name or opened.default_run, opened.config, wish.description)
    busy = "Wait until it ends, or choose another name: `run=NAME`."
    with files.lock(lock_file(run.folder), f"run {run.title}", busy):
        beginning = begin(run, dataset.fingerprint, resume=wish.resume, fresh=wish.fresh)
        if beginning.kind == "finished":
            if not has_log_entry(run):
                write_log_entry(run)
            opened.listener.say(
                f"{run.title} is finished. To train it again: `fresh=True`; to train another: `run=NAME`."
            )
            return beginning.run
        return train_locked(opened, beginning, dataset, wish)


def train_locked(opened: Opened, beginning: Beginning, dataset: Dataset, wish: Wish) -> Run:
    """Train while this process holds the run's lock. summary.json tells how it ended, whatever happens."""
    with contextlib.ExitStack() as stack:
        started = open_run(stack, opened, beginning, dataset, wish)
        stop = StopRequest()
        try:
            with explaining(started, stop):
                run_loop(started, stop)
        except BaseException as error:
            conclude(started, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        conclude(started, "interrupted" if stop.number else "completed")
    if stop.number:
        raise Interrupted(stop.number, f"Go on with: {wish.again}" if wish.again else "")
    opened.listener.say(last_line(started.run, started.progress, started.speed))
    return started.run


def open_run(
    stack: contextlib.ExitStack, opened: Opened, beginning: Beginning, dataset: Dataset, wish: Wish
) -> Started:
    """Make everything that can fail, then the run's folder. stack: what lasts as long as the run computes.

    Raises UserError where the run cannot start; then nothing on disk has changed.
    """
    run = beginning.run
    stack.enter_context(computing(choose_device(run.config.train.runtime.device).type))
    try:
        with memory.noticing():
            settled = settle(run.experiment, run.config, dataset, opened.plugins)
            stack.enter_context(settled.machine.computing())
            run = replace(run, config=settled.config)
            opened = replace(opened, config=settled.config)
            fresh = fresh_model(settled, dataset, opened.plugins)
            batch(dataset.train, run.config.train.data, run.config.train.runtime.seed, 0)  # it must fit, too
    except memory.NoRoom:
        raise model_does_not_fit(run) from None
    progress = Progress()
    if beginning.kind == "resumed":
        compare_machines(opened, run, wish.exact)
        progress = restore(run, fresh.model, fresh.optimizer, identity_of(dataset))
    elif run.config.train.model.init_from:
        start_from(run, run.config.train.model.init_from, fresh.model, dataset)
    for sentence in beginning.make_way():
        opened.listener.say(sentence)
    durable.make_folders(run.folder)
    warn_of_little_room(run, fresh.model)
    if beginning.kind == "new":
        warn_before_training(opened, dataset, parameter_count(fresh.model))
    run.write_config()
    run.write_summary(opening(run, dataset, fresh, wish.command))
    return Started(opened, run, dataset, fresh, progress)


def run_loop(started: Started, stop: StopRequest) -> None:
    """Train, with everything open that lasts as long as the loop. stop: is told of a signal."""
    run, progress, dataset = started.run, started.progress, started.dataset
    with contextlib.ExitStack() as stack:
        noted = stack.enter_context(noting_signals(stop))
        saver = stack.enter_context(saving_thread())
        parts = assemble(started.opened, run, dataset, started.fresh, saver)
        stack.push(lambda kind, *_: close_trackers(parts.trackers, "interrupted" if noted.number else ending(kind)))
        columns = accuracy_columns(dataset.groups) if dataset.has_examples else []
        metrics = stack.enter_context(contextlib.closing(MetricsFile(run.folder, columns, keep_until=progress.step)))
        started.opened.listener.say(first_line(run, dataset, parts.model, progress))
        train(run, parts, progress, metrics, stop)


@contextlib.contextmanager
def explaining(started: Started, stop: StopRequest) -> Iterator[None]:
    """Raise UserError or RunFailed, with what to do about it, for errors of a machine that lacks room or a compiler."""
    run, progress = started.run, started.progress
    try:
        with memory.noticing():
            yield
    except memory.NoRoom as error:
        first = batch(started.dataset.train, run.config.train.data, run.config.train.runtime.seed, 0)
        raise step_does_not_fit(run, started.step, first, error, "`fresh=True` ") from None
    except OSError as error:
        if error.errno not in durable.FULL:
            raise
        full = files.disk_full(error, run.folder)
        raise RunFailed(
            f"{run.title}: {full.strerror} in {full.filename}, at step {progress.step}.\n"
            "  What was saved before is whole. Make room, then give the same command again."
        ) from None
    except checkpoints.Damaged as error:
        raise RunFailed(
            f"{run.title}: a checkpoint does not come back from the disk as it was written: {error}.\n"
            "  The checkpoint before is whole. Check the disk, or put train.runtime.out_dir on another one."
        ) from None
    except RuntimeError as error:
        if not (started.fresh.settled.machine.compile and compiling.is_compilers(error)):
            raise
        if not stop.number:  # a signal reaches the compiler too: then what it says is no error
            raise compiling.as_user_error(error, progress.step) from None


def conclude(started: Started, status: Status) -> None:
    """Write the summary and the log entry, and tell plugins. A failed run's own error matters more than one here."""
    run = started.run
    with contextlib.suppress(OSError) if status == "failed" else contextlib.nullcontext():
        summary = run.write_summary({"status": status} | closing(started.progress, started.speed))
        write_log_entry(run)
        started.opened.plugins.manager.hook.on_train_end(run=run, summary=summary)


def compare_machines(opened: Opened, run: Run, exact: bool) -> None:
    """Say where a resume cannot be bit-exact, as the run began on something else. Raises UserError if it must be exact."""
    summary = read_summary(run.folder)
    before = {**(summary.get("environment") or {}), **(summary.get("choices") or {}), "device": summary.get("device")}
    now = {**surroundings(run), **run.config.train.runtime.model_dump()}
    if not (found := changes(before, now)):
        return
    if exact:
        raise UserError(
            f"this resume would not be bit-exact: {'; '.join(found)}",
            place=str(run.folder),
            remedy="Go on where the run began, or without `exact=True`.",
        )
    opened.listener.say(f"This resume is not bit-exact: {'; '.join(found)}.")


def warn_of_little_room(run: Run, model: torch.nn.Module) -> None:
    """Warn where two checkpoints will not fit: the one being written and, until it is whole, the one before."""
    # The two tensors of each parameter's shape that Adam keeps are the most that any built-in optimizer does.
    size = 3 * checkpoints.size(checkpoints.weights(model))
    free = files.free_bytes(run.folder)
    if free < 2 * size:
        warnings.warn(
            f"a checkpoint of {run.title} takes about {files.megabytes(size)}, and {files.megabytes(free)} are free in "
            f"{run.folder}: two will not fit. Make room, or put train.runtime.out_dir on another disk.",
            stacklevel=2,
        )


def start_from(run: Run, name: str, model: torch.nn.Module, dataset: Dataset) -> None:
    """Put another run's best weights into the model. Raises UserError where its encoder or its shape is another one."""
    owner, _, other = name.rpartition("/")
    experiment = find(owner) if owner else run.experiment
    folder = find_run(experiment, out_folder(experiment, run.config), other)
    checkpoint = checkpoints.load(folder / "checkpoints", "best")
    if checkpoint.state["encoder"] != identity_of(dataset)["encoder"]:
        raise UserError(
            f"{name} was trained with another vocabulary than this dataset has",
            place="train.model.init_from",
            remedy="Prepare this dataset with the other one's encoder: "
            f"`prepare.encoder_from={experiment.folder / run_config(folder).prepare.dataset_dir}`",
        )
    checkpoints.put_weights(model, checkpoint.model, f"train.model.init_from = {name}")
