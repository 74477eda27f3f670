"""Train a run: puts dataset, model, optimizer and evaluation together and hands them to the loop."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from core import durable, files
from core.cli.caution import warn_before_training
from core.cli.console import Length, Show
from core.cli.fitting import does_not_fit
from core.cli.lab import Lab
from core.cli.settle import settle
from core.config import Train
from core.data.batches import batch
from core.data.dataset import Dataset
from core.errors import Interrupted, RunFailed, UserError
from core.evaluation.evaluate import Evaluation
from core.models.build import parameter_count
from core.plugins.discovery import find
from core.plugins.manager import plugins
from core.report.log import has_log_entry, write_log_entry
from core.report.run_report import duration
from core.sampling.load import run_config
from core.tracking.begin import begin
from core.tracking.environment import changes, command_line, environment
from core.tracking.metrics import MetricsFile, accuracy_by_group, accuracy_columns
from core.tracking.run import Run, find_run, lock_file, out_folder, read_summary
from core.tracking.trackers import close_trackers, ending, find_trackers, open_trackers
from core.training import checkpoints, compiling, memory
from core.training.machine import Machine, choose_device, model_on
from core.training.optimizers import build_optimizer
from core.training.progress import Progress, restore
from core.training.saver import Saver, saving_thread
from core.training.signals import StopRequest, noting_signals
from core.training.speed import Speed
from core.training.trainer import Parts, train

PROGRAM = ("python", "-m", "core.cli")
ABOUT = ("config.toml", "summary.json")  # files of a run that tell what it is


def train_run(lab: Lab, name: str | None, *, resume: bool, fresh: bool, description: str, exact: bool = False) -> Run:
    """Prepare, then train one run to its end. exact: resume bit for bit, or not at all.

    Raises Interrupted after a signal, RunFailed, UserError.
    """
    if resume and fresh:
        raise UserError(
            "--resume and --fresh exclude each other", remedy="Choose one: go on with the run, or start it again."
        )
    run = Run(lab.experiment, name or lab.default_run, lab.config, description)
    refuse_unknown(lab)
    if lab.config.train.runtime.compile is True and (fresh or not run.folder.exists()):
        compiling.refuse_without_compiler(choose_device(lab.config.train.runtime.device))  # before a folder is moved
    dataset = lab.prepare()
    with files.lock(
        lock_file(run.folder), f"run {run.title}", "Wait until it ends, or choose another name with --run."
    ):
        beginning, said = begin(run, dataset.fingerprint, resume=resume, fresh=fresh)
        if said:
            lab.console.say(said)
        if beginning == "finished":
            if not has_log_entry(run):
                write_log_entry(run)
            lab.console.say(f"{run.title} is finished. To train it anew: --fresh; to train another: --run NAME.")
        else:
            train_locked(lab, run, dataset, resume=beginning == "resumed", exact=exact)
    return run


def refuse_unknown(lab: Lab) -> None:
    """Raise UserError for a model, optimizer, tracker or device that is not to be had here, before anything is made."""
    config = lab.config.train
    if not hasattr(lab.code, "build_model"):
        plugins().get("models", config.model.kind, "train.model.kind")
    plugins().get("optimizers", str(config.optim.name), "train.optim.name")
    find_trackers(config.runtime.trackers)
    choose_device(config.runtime.device)


def train_locked(lab: Lab, run: Run, dataset: Dataset, *, resume: bool, exact: bool = False) -> None:
    """Train while this process holds the run's lock; summary.json tells how it ended, whatever happens."""
    settled = settle(run, dataset, lab.code, say=lab.console.say)
    machine = settled.machine
    if resume:
        compare_machines(lab, run, exact)
    torch.manual_seed(run.config.train.runtime.seed)
    model = model_on(machine, run.config.train.model, dataset.encoder.vocab_size, lab.code)
    if run.config.train.model.init_from and not resume:
        start_from(run, run.config.train.model.init_from, model, dataset)
    former = [(run.folder / name, (run.folder / name).read_bytes()) for name in ABOUT if resume]
    durable.make_folders(run.folder)
    warn_of_little_room(run, model)
    if not resume:
        warn_before_training(lab, dataset, parameter_count(model))
    run.write_config()
    run.write_summary(opening(run, dataset, model, settled.timings))
    speed = Speed.of(run.config.train, machine, model)
    progress, status, number = Progress(), "failed", 0
    try:
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(noting_signals())
            tell = stack.enter_context(lab.console.training(length_of(run.config.train), speed.text))
            saver = stack.enter_context(saving_thread())
            parts = assemble(run, dataset, machine, model, saver, tell, lab.console.say)
            stack.push(lambda kind, *_: close_trackers(parts.trackers, "interrupted" if stop.number else ending(kind)))
            if resume:
                progress = restore(run, model, parts.optimizer, parts.identity)
                former.clear()
            columns = accuracy_columns(dataset.groups) if dataset.has_examples else []
            metrics = stack.enter_context(
                contextlib.closing(MetricsFile(run.folder, columns, keep_until=progress.step))
            )
            lab.console.say(first_line(run, dataset, model, progress))
            with memory.noticing(), telling_of_compiling(parts, progress, stop):
                train(run, parts, progress, metrics, stop)
        number = stop.number
        status = "interrupted" if number else "completed"
    except memory.NoRoom as error:
        raise does_not_fit(run, parts, error, "--fresh ") from None
    except OSError as error:
        if error.errno not in durable.FULL:
            raise
        raise disk_full(run, progress, error) from None
    except KeyboardInterrupt:  # just before or behind the loop, which notes signals instead
        status = "interrupted"
        raise
    except UserError:  # a checkpoint that is not gone on with: the run is what it was
        for path, content in former:
            files.write_bytes(path, content)
        raise
    except checkpoints.Damaged as error:
        raise RunFailed(
            f"{run.title}: a checkpoint does not come back from the disk as it was written: {error}.\n"
            "  The checkpoint before is whole. Check the disk, or put train.runtime.out_dir on another one."
        ) from None
    finally:
        first_error_matters = contextlib.suppress(OSError) if status == "failed" else contextlib.nullcontext()
        with first_error_matters:
            if not former:
                summary = run.write_summary({"status": status} | closing(progress, speed))
                write_log_entry(run)
                plugins().manager.hook.on_train_end(run=run, summary=summary)
    if number:
        raise Interrupted(number, f"Go on with: {same_command(lab, run)}")
    lab.console.say(last_line(run, progress, speed))


@contextlib.contextmanager
def telling_of_compiling(parts: Parts, progress: Progress, stop: StopRequest) -> Iterator[None]:
    """Raise UserError for an error of torch.compile. A signal reaches the compiler too: then what it says is no error."""
    try:
        yield
    except RuntimeError as error:
        if not (parts.machine.compile and compiling.is_compilers(error)):
            raise
        if not stop.number:
            raise compiling.as_user_error(error, progress.step) from None


def compare_machines(lab: Lab, run: Run, exact: bool) -> None:
    """Say so where a resume cannot be bit-exact, as the run began on something else. Raises UserError if it must be exact."""
    summary = read_summary(run.folder)
    before = {**(summary.get("environment") or {}), **(summary.get("choices") or {}), "device": summary.get("device")}
    now = {**surroundings(run), **run.config.train.runtime.model_dump()}
    if not (found := changes(before, now)):
        return
    if exact:
        raise UserError(
            f"this resume would not be bit-exact: {'; '.join(found)}",
            place=str(run.folder),
            remedy="Go on where the run began, or without --exact.",
        )
    lab.console.say(f"This resume is not bit-exact: {'; '.join(found)}.")


def surroundings(run: Run) -> dict[str, Any]:
    """What a run is trained in, the compiler too where its step is compiled."""
    found, runtime = environment(run.experiment.folder), run.config.train.runtime
    if runtime.compile is True:
        found["compiler"] = compiling.compiler_version(torch.device(runtime.device))
    return found


def disk_full(run: Run, progress: Progress, error: OSError) -> RunFailed:
    """No room for a checkpoint or a row of metrics."""
    full = files.disk_full(error, run.folder)
    return RunFailed(
        f"{run.title}: {full.strerror} in {full.filename}, at step {progress.step}.\n"
        "  What was saved before is whole. Make room, then give the same command again."
    )


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
            f"-s prepare.encoder_from={experiment.folder / run_config(folder).prepare.dataset_dir}",
        )
    checkpoints.put_weights(model, checkpoint.model, f"train.model.init_from = {name}")


def assemble(
    run: Run,
    dataset: Dataset,
    machine: Machine,
    model: torch.nn.Module,
    saver: Saver,
    tell: Show,
    say: Callable[[str], None],
) -> Parts:
    """What the loop works with."""
    config = run.config.train
    evaluation = Evaluation(dataset, run.config, machine)
    optimizer = build_optimizer(model, config.optim)
    for group in optimizer.param_groups:
        group.setdefault("peak_lr", group["lr"])  # a plugin's optimizer need not know of schedules
    return Parts(
        model=model,
        optimizer=optimizer,
        machine=machine,
        batch=lambda step: batch(dataset.train, config.data, config.runtime.seed, step),
        evaluate=evaluation.while_training,
        trackers=open_trackers(run, config.runtime.trackers),
        plugins=plugins(),
        identity=identity_of(dataset),
        saver=saver,
        tell=tell,
        say=say,
    )


def identity_of(dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint keeps of its dataset: enough to sample without it, and to refuse another one."""
    return {
        "dataset_fingerprint": dataset.fingerprint,
        "encoder": {"kind": dataset.encoder.kind, "state": dataset.encoder.state()},
        "stop": dataset.stop,
        "has_examples": dataset.has_examples,
    }


def opening(run: Run, dataset: Dataset, model: torch.nn.Module, timings: dict[str, float]) -> dict[str, Any]:
    """What summary.json says from the start. A process that is killed can change nothing: hence "interrupted"."""
    runtime = run.config.train.runtime
    started = read_summary(run.folder).get("started") or datetime.datetime.now().isoformat()
    return {
        "experiment": run.experiment.name,
        "run": run.name,
        "started": started,
        "status": "interrupted",
        "seed": runtime.seed,
        "steps": 0,
        "parameters": parameter_count(model),
        "device": runtime.device,
        "dtype": runtime.dtype,
        "choices": {
            **runtime.model_dump(include={"dtype", "attention", "compile", "threads"}),
            "milliseconds": timings,
        },
        "dataset_fingerprint": dataset.fingerprint,
        "environment": surroundings(run),
        "command": command_line(PROGRAM),
    } | ({"description": run.description} if run.description else {})


def closing(progress: Progress, speed: Speed) -> dict[str, Any]:
    """What summary.json says at the end."""
    best = progress.best_evaluation  # what sampling and evaluation go on with
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "train_seconds": round(progress.seconds, 3),
        "wall_seconds": round(progress.wall_seconds, 3),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1) if progress.seconds else None,
        **speed.summary(progress.tokens, progress.seconds),
        "skipped_batches": progress.skipped,
        "best_val_loss": progress.best_val_loss,
        "best_step": progress.best_step,
        "final_train_loss": progress.train_loss,
        "final_val_loss": progress.evaluation.get("val_loss"),
        "bits_per_byte": best.get("bits_per_byte"),
        "accuracy": best.get("val_accuracy"),
        "accuracy_by_group": accuracy_by_group(best),
    }


def same_command(lab: Lab, run: Run) -> str:
    """The command that goes on with this run."""
    options = [
        *(["--variant", lab.variant] if lab.variant else []),
        *(["--run", run.name] if run.name != lab.default_run else []),
        *(part for text in lab.overrides for part in ("-s", text)),
    ]
    return f"{run.experiment.command.format('train')} {shlex.join(options)}".strip()


def length_of(config: Train) -> Length:
    """What a run is measured by: its budget in time if it has one, else its steps."""
    minutes = config.runtime.max_minutes
    return Length(config.schedule.max_iters, "steps") if minutes is None else Length(60 * minutes, "seconds")


def first_line(run: Run, dataset: Dataset, model: torch.nn.Module, progress: Progress) -> str:
    config, minutes = run.config.train, run.config.train.runtime.max_minutes
    start = f"{config.schedule.max_iters} steps" if minutes is None else f"for {minutes:g} minute{'s' * (minutes != 1)}"
    if progress.step:
        left = "" if minutes is None else f", {duration(max(0.0, 60 * minutes - progress.wall_seconds))} left"
        start = f"resumed at step {progress.step}{left}"
    return (
        f"training {run.title}: {parameter_count(model):,} parameters, {dataset.train.tokens:,} tokens, "
        f"vocabulary {dataset.encoder.vocab_size:,}; {start} on {config.runtime.device} in {config.runtime.dtype}"
    )


def last_line(run: Run, progress: Progress, speed: Speed) -> str:
    figures = speed.text(progress.tokens / max(progress.seconds, 1e-9)).replace("  ", ", ")
    pace = f"{duration(progress.seconds)} of training, {figures}"
    if run.config.train.runtime.max_minutes is not None:
        pace += f", {duration(progress.wall_seconds)} in all"
    return f"trained {run.title}: lowest val loss {progress.best_val_loss:.4f}, checkpoint best is of step {progress.best_step}; {pace}"
