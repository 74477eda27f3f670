"""Train a run: open it, run the loop, write the summary."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from core import durable, files
from core.config import replaced
from core.data.batches import batch
from core.data.dataset import Dataset
from core.defaults import PRETRAINED_KIND
from core.errors import Interrupted, RunFailed, UserError
from core.lab.adapted import adapted_account, memory_line
from core.lab.assemble import Fresh, assemble, fresh_model, identity_of, refuse_unknown, rewarded, shared_step
from core.lab.cautions import warn_before_training
from core.lab.no_room import model_does_not_fit, shared_step_does_not_fit, step_does_not_fit
from core.lab.opened import Opened
from core.lab.own import evaluation
from core.lab.settle import Settled, settle
from core.lab.summaries import closing, first_line, last_line, layout_of_weights, opening, surroundings
from core.lab.together import helped, refuse_unshareable
from core.listener import Advice, Begun, tell
from core.models.build import parameter_count, with_open_params
from core.plugins.discovery import Experiment, find
from core.plugins.manager import Plugins
from core.process import StopRequest, computing, noting_signals
from core.report.log import has_log_entry, write_log_entry
from core.reward.collect import FIGURES
from core.sampling.load import run_config
from core.tracking.answers import keep_answers
from core.tracking.begin import Beginning, Moved, begin
from core.tracking.environment import changes
from core.tracking.metrics import EPOCH, MetricsFile, accuracy_columns
from core.tracking.run import Run, find_run, lock_file, out_folder, read_summary
from core.tracking.trackers import Status, close_trackers, ending
from core.training import checkpoints, compiling, memory
from core.training.link import Lost
from core.training.machine import choose_device
from core.training.progress import Progress, restore
from core.training.saver import saving_thread
from core.training.team import ALONE, Team
from core.training.trainer import train

BUSY = "Wait until it ends, or choose another name: `run=NAME`."  # what to do about a run that another process trains


@dataclass(frozen=True)
class Started:
    """A run that is ready to train: its folder exists, and nothing is missing. moved: the runs that made way for it.

    team: the processes that train it.
    """

    opened: Opened
    run: Run
    dataset: Dataset
    fresh: Fresh
    progress: Progress
    moved: list[Moved]
    team: Team


@dataclass(frozen=True)
class Wish:
    """How to train a run.

    name: of the run, RUN or RUN/STAGE; None: the default. stage: only this one. resume: continue even if schedule and runtime settings changed. exact: fail if a
    resume would not be bit-exact. fresh: start again. command: recorded with the run. again: the command that continues
    an interrupted run. team: the processes that train it.
    """

    name: str | None = None
    resume: bool = False
    exact: bool = False
    fresh: bool = False
    description: str = ""
    command: str = ""
    again: str = ""
    stage: str = ""
    team: Team = ALONE


def refuse_impossible(opened: Opened, wish: Wish) -> None:
    """Raise UserError for what a run needs and this machine lacks, before anything is made."""
    refuse_unknown(opened)
    refuse_unshareable(wish.team, opened.config.train)
    if opened.stage is None and "/" in (wish.name or ""):
        raise UserError(
            f"'{wish.name}' names a stage, and {opened.experiment.name} has none",
            place="run",
            remedy="Leave out what is after the slash, or write [[stages]] in config.toml.",
        )
    folder = opened.out / (wish.name or opened.default_run)
    if opened.config.train.runtime.compile is True and (wish.fresh or not folder.exists()):
        compiling.refuse_without_compiler(choose_device(opened.config.train.runtime.device))


def train_run(opened: Opened, dataset: Dataset, wish: Wish) -> Run:
    """Train a run to its end, unless it is finished already. Raises UserError, RunFailed, and Interrupted after a signal."""
    if wish.resume and wish.fresh:
        raise UserError(
            "`resume=True` and `fresh=True` exclude each other",
            remedy="Choose one: continue the run, or start it again.",
        )
    config = replaced(opened.config, {"train.model": with_open_params(opened.config.train.model, opened.plugins)})
    run = Run(opened.experiment, wish.name or opened.default_run, config, wish.description)
    with files.lock(lock_file(run.folder), f"run {run.title}", BUSY):
        beginning = begin(run, dataset, resume=wish.resume, fresh=wish.fresh)
        if beginning.kind == "finished":
            if not has_log_entry(run):
                write_log_entry(run)
            finish_adapters(run)
            opened.listener.say(
                Advice(f"{run.title} is finished. To train it again: `fresh=True`; to train another: `run=NAME`.")
            )
            return beginning.run
        return train_locked(opened, beginning, dataset, wish)


def finish_adapters(run: Run) -> None:
    """Write the adapters that a kill at the end of a finished run has left out."""
    if run.config.train.model.kind == PRETRAINED_KIND and run.config.train.model.params.get("lora", True):
        from core.huggingface.adapters import catch_up

        catch_up(run, ended=True)


def train_locked(opened: Opened, beginning: Beginning, dataset: Dataset, wish: Wish) -> Run:
    """Train while this process holds the run's lock. summary.json always records how the run ended."""
    with contextlib.ExitStack() as stack:
        started = open_run(stack, opened, beginning, dataset, wish)
        stop = StopRequest()
        try:
            with explaining(started, stop):
                run_loop(started, stop)
        except BaseException as error:
            if isinstance(error, UserError) and started.moved and not started.progress.step:
                for moved in started.moved:  # its first step does not fit, or cannot be compiled
                    opened.listener.say(moved.back())
                raise
            conclude(started, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        summary = conclude(started, "interrupted" if stop.number else "completed")
    if stop.number:
        raise Interrupted(stop.number, f"Go on with: {wish.again}" if wish.again else "")
    opened.listener.say(last_line(started.run, started.progress, started.fresh.speed, summary))
    return started.run


def open_run(
    stack: contextlib.ExitStack, opened: Opened, beginning: Beginning, dataset: Dataset, wish: Wish
) -> Started:
    """Do everything that can fail, then create the run's folder. stack: contexts that last until the run ends.

    Raises UserError if the run cannot start. Then nothing on disk has changed.
    """
    run = beginning.run
    stack.enter_context(computing(choose_device(run.config.train.runtime.device).type))
    try:
        with memory.noticing():
            settled = settle(run.experiment, run.config, dataset, opened.plugins)
            settled = replace(settled, machine=replace(settled.machine, processes=wish.team.world))
            stack.enter_context(settled.machine.computing())
            run = replace(run, config=settled.config)
            opened = replace(opened, config=settled.config)
            fresh = fresh_model(settled, dataset.encoder.vocab_size, opened.plugins)
            batch(dataset.train, run.config.train.data, run.config.train.runtime.seed, 0)  # it must fit into memory too
            if run.config.train.objective.kind == "reward":
                fresh = replace(fresh, start=model_at_start(run, settled, dataset, opened.plugins))
                rewarded(opened, dataset, fresh)  # raises for data that has nothing to score
    except memory.NoRoom:
        raise model_does_not_fit(run) from None
    progress, origin = Progress(), None
    if beginning.kind == "resumed":
        compare_machines(opened, run, wish, fresh)
        progress = restore(run, fresh.model, fresh.optimizer, identity_of(dataset))
    if run.config.train.model.init_from and not progress.step:  # also where a try ended before its first checkpoint
        origin = start_from(run, run.config.train.model.init_from, fresh.model, dataset)
    warn_of_little_room(run, fresh.model)
    is_new = beginning.kind == "new"
    warned = warn_before_training(opened, dataset, parameter_count(fresh.model)) if is_new else []
    moved = beginning.make_way()
    for each in moved:
        opened.listener.say(str(each))
    durable.make_folders(run.folder)
    run.write_config()
    more = ({"origin": origin} if origin else {}) | ({"warnings": warned} if warned else {})
    run.write_summary(opening(run, dataset, fresh, wish.command) | more)
    return Started(opened, run, dataset, fresh, progress, moved, wish.team)


def run_loop(started: Started, stop: StopRequest) -> None:
    """Open everything that the loop needs, and train. stop: notes a signal."""
    run, progress, dataset, team = started.run, started.progress, started.dataset, started.team
    with contextlib.ExitStack() as stack:
        noted = stack.enter_context(noting_signals(stop))
        saver = stack.enter_context(saving_thread())
        step = shared_step(started.fresh, team, started.opened.plugins, stop)
        parts = assemble(started.opened, run, dataset, started.fresh, saver, step)
        stack.push(lambda kind, *_: close_trackers(parts.trackers, "interrupted" if noted.number else ending(kind)))
        columns = [EPOCH] if parts.epochs else []
        columns += accuracy_columns(dataset.groups) if dataset.has_examples else []
        columns += FIGURES if parts.figures else []
        metrics = stack.enter_context(contextlib.closing(MetricsFile(run.folder, columns, keep_until=progress.step)))
        keep_answers(run.folder, progress.step)
        started.opened.listener.say(first_line(run, dataset, step, progress))
        tell(started.opened.listener, Begun(run.name, bool(run.config.train.runtime.stop_when)))
        if step.compiles:
            started.opened.listener.say("compiling the step")
        say_of_adapters(started)
        with helped(team, started.opened, run, dataset, started.fresh):
            train(run, parts, progress, metrics, stop)


def say_of_adapters(started: Started) -> None:
    """Tell which layers of a pretrained model are trained, and what that needs, before its first step."""
    fresh, config, say = started.fresh, started.run.config.train, started.opened.listener.say
    if started.progress.step or (account := adapted_account(fresh.model)) is None:
        return
    for line in account["lines"]:
        say(line)
    if (
        config.objective.kind == "reward" or fresh.divided
    ):  # its batch is what the model writes; no process takes a step alone
        return
    first = batch(started.dataset.train, config.data, config.runtime.seed, 0)
    if line := memory_line(fresh, started.dataset, config, first):
        say(line)


@contextlib.contextmanager
def explaining(started: Started, stop: StopRequest) -> Iterator[None]:
    """Turn errors about memory, disk space and the compiler into UserError or RunFailed, with a remedy."""
    run, progress = started.run, started.progress
    try:
        with memory.noticing():
            yield
    except memory.NoRoom as error:
        if started.fresh.divided:
            raise shared_step_does_not_fit(run) from None
        first = batch(started.dataset.train, run.config.train.data, run.config.train.runtime.seed, 0)
        raise step_does_not_fit(run, started.fresh.step, first, error, "`fresh=True` ") from None
    except OSError as error:
        if error.errno not in durable.FULL:
            raise
        full = files.disk_full(error, run.folder)
        raise RunFailed(
            f"{run.title}: {full.strerror} in {full.filename}, at step {progress.step}.\n"
            "  What was saved before is whole. Make room, then give the same command again."
        ) from None
    except Lost as error:
        raise RunFailed(
            f"{run.title}: {error}, at step {progress.step}.\n"
            "  What was saved before is whole. The same command goes on from there, with as many processes as you like."
        ) from None
    except checkpoints.Damaged as error:
        raise RunFailed(
            f"{run.title}: the disk does not return a checkpoint as it was written: {error}.\n"
            "  The checkpoint before is whole. Check the disk, or put train.runtime.out_dir on another one."
        ) from None
    except RuntimeError as error:
        if not (started.fresh.settled.machine.compile and compiling.is_compilers(error)):
            raise
        if not stop.number:  # a signal also stops the compiler, and then its error means nothing
            raise compiling.as_user_error(error, progress.step) from None


def conclude(started: Started, status: Status) -> dict[str, Any]:
    """Measure a completed run, write the summary and the log entry, and call plugins. Returns the summary.

    If the run failed, its error hides disk errors here.
    """
    run, summary = started.run, dict[str, Any]()
    with contextlib.suppress(OSError) if status == "failed" else contextlib.nullcontext():
        figures = closing(started.progress, started.fresh.speed) | (measured(started) if status == "completed" else {})
        summary = run.write_summary({"status": status} | figures)
        write_log_entry(run)
        started.opened.plugins.manager.hook.on_train_end(run=run, summary=summary)
    return summary


def measured(started: Started) -> dict[str, Any]:
    """The figures of checkpoint `best` on the side that is reported. Leaves the model with the weights of `best`.

    Running text without a test side was measured completely while the run trained.
    """
    run, dataset, model, progress = started.run, started.dataset, started.fresh.model, started.progress
    if not (dataset.test or dataset.has_examples):
        return {}
    if progress.best_step != progress.step:
        best = checkpoints.load(run.checkpoints, "best")
        checkpoints.put_weights(model, best.model, str(best.folder))
    model.to(started.fresh.settled.machine.device).eval()
    return evaluation(started.opened, run.config, dataset, started.fresh.settled.machine).reported(model)


def compare_machines(opened: Opened, run: Run, wish: Wish, fresh: Fresh) -> None:
    """Report what makes a resume inexact: changes since the run began. Raises UserError if it must be exact."""
    summary = read_summary(run.folder)
    before = {**(summary.get("environment") or {}), **(summary.get("choices") or {}), "device": summary.get("device")}
    now = {**surroundings(run), **run.config.train.runtime.model_dump(), "parallel": layout_of_weights(fresh)}
    if not run.config.train.runtime.exact_across:
        now["processes"] = wish.team.world
    if not (found := changes(before, now)):
        return
    if wish.exact:
        raise UserError(
            f"this resume would not be bit-exact: {'; '.join(found)}",
            place=str(run.folder),
            remedy="Continue where the run began, or leave out `exact=True`.",
        )
    opened.listener.say(f"This resume is not bit-exact: {'; '.join(found)}.")


def warn_of_little_room(run: Run, model: torch.nn.Module) -> None:
    """Warn if two checkpoints will not fit on the disk: a new one and the one before it, which is removed last. Or the steps that are kept."""
    # Adam keeps two tensors per parameter, the most of all built-in optimizers.
    weights = checkpoints.size(checkpoints.weights(model))
    size, kept = 3 * weights, run.config.train.runtime.keep_checkpoints
    free = files.free_bytes(run.folder)
    if kept and 2 * size <= free < 2 * size + kept * weights:
        warnings.warn(
            f"{kept} kept steps of {run.title} take about {files.megabytes(kept * weights)} besides the checkpoints, and "
            f"{files.megabytes(free)} are free in {run.folder}. Lower train.runtime.keep_checkpoints, or make room.",
            stacklevel=2,
        )
    if free < 2 * size:
        warnings.warn(
            f"a checkpoint of {run.title} takes about {files.megabytes(size)}, and {files.megabytes(free)} are free in "
            f"{run.folder}: two will not fit. Make room, or put train.runtime.out_dir on another disk.",
            stacklevel=2,
        )


def start_from(run: Run, name: str, model: torch.nn.Module, dataset: Dataset) -> dict[str, Any]:
    """Put another run's weights into the model. Returns what they are, see `origin_of`.

    Raises UserError if its encoder or its shapes differ.
    """
    which = run.config.train.model.init_checkpoint
    experiment, folder = origin_folder(run, name)
    checkpoint = checkpoints.load(folder / "checkpoints", which)
    if checkpoint.state["encoder"] != identity_of(dataset)["encoder"]:
        raise UserError(
            f"{name} was trained with another vocabulary than this dataset has",
            place="train.model.init_from",
            remedy="Prepare this dataset with the other dataset's encoder: "
            f"`prepare.encoder_from={experiment.path(run_config(folder).prepare.dataset_dir)}`",
        )
    checkpoints.refuse_other_base(model, checkpoint.state, f"train.model.init_from = {name}")
    checkpoints.put_weights(model, checkpoint.model, f"train.model.init_from = {name}")
    return origin_of(folder, which, int(checkpoint.state["step"]))


def model_at_start(run: Run, settled: Settled, dataset: Dataset, plugins: Plugins) -> torch.nn.Module:
    """A model with the weights that a run begins with, however far it has come. Raises UserError as `start_from`."""
    model = fresh_model(settled, dataset.encoder.vocab_size, plugins).model
    if name := run.config.train.model.init_from:
        start_from(run, name, model, dataset)
    return model.eval()


def origin_folder(run: Run, name: str) -> tuple[Experiment, Path]:
    """The run that `train.model.init_from` names: ./STAGE, RUN, RUN/STAGE, or one of these after EXPERIMENT/."""
    out = out_folder(run.experiment, run.config)
    if name.startswith("./"):
        return run.experiment, find_run(run.experiment, out, f"{run.folder.parent.name}/{name[2:]}")
    owner, slash, rest = name.partition("/")
    if not slash or (out / name / "summary.json").is_file():
        return run.experiment, find_run(run.experiment, out, name)
    experiment = find(owner)
    return experiment, find_run(experiment, out_folder(experiment, run.config), rest)


def origin_of(folder: Path, checkpoint: str, step: int) -> dict[str, Any]:
    """What tells the weights of a run's checkpoint from those of another training of it."""
    return {"checkpoint": checkpoint, "step": step, "started": read_summary(folder).get("started")}
