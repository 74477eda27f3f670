"""Take a run through its stages: each is trained, evaluated and reported as a run of its own, then all on one page.

What a stage has is on disk when it ends, so that the same command goes on after a kill, inside a stage or between two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from core import durable, files
from core.data.dataset import Dataset
from core.data.encode import Coding
from core.encoders.base import identity
from core.encoders.special import has_special
from core.errors import UserError
from core.lab.after_stage import measure_after_stage
from core.lab.evaluating import evaluate
from core.lab.model import load_model
from core.lab.opened import Opened, as_read, prepared
from core.lab.reporting import report_of_model, report_of_run, say_samples
from core.lab.sampling import sample
from core.lab.stages import at_stage, is_finished, named, split_name
from core.lab.training import BUSY, Wish, origin_of, refuse_impossible, train_run
from core.report.pipeline_report import write_pipeline_report
from core.report.stage_figures import OTHERS
from core.stages import Stage
from core.tracking.run import PIPELINE, Run, lock_file, read_summary, set_aside, stage_names
from core.training import checkpoints


def prepare_all(
    opened: Opened, stage: str = "", *, force: bool = False, coding: Coding | None = None
) -> dict[str, Dataset]:
    """Make the dataset, or those of all stages, or of one stage after the first one's, whose encoder it has.

    Returns them by stage, in their order; without stages, "" has the only one. coding: who encodes; None: this process.
    Raises UserError.
    """
    if stage:
        named(opened, stage)
    if not opened.stages:
        return {"": prepared(opened, force=force, coding=coding)[1]}
    found = prepared_stages(opened, stage, force=force, coding=coding)
    return {name: dataset for name, (_, dataset) in found.items()}


def prepared_stages(
    opened: Opened, chosen: str = "", *, force: bool = False, coding: Coding | None = None
) -> dict[str, tuple[Opened, Dataset]]:
    """The experiment as each stage has it, with its dataset. chosen: only this stage, and the first one."""
    found: dict[str, tuple[Opened, Dataset]] = {}
    made: dict[Path, Dataset] = {}
    for stage in opened.stages:
        if stage is opened.stages[0] or chosen in ("", stage.name):
            at = at_stage(opened, stage)
            folder = at.experiment.path(at.config.prepare.dataset_dir)
            if folder not in made:
                made[folder] = prepared(at, force=force, coding=coding)[1]
                refuse_written_as_text(at, made[folder], next(iter(made.values())))
            found[stage.name] = as_read(at, made[folder]), made[folder]
    return found


def refuse_written_as_text(at: Opened, dataset: Dataset, first: Dataset) -> None:
    """Raise UserError for a later stage's conversations if the first stage, of other documents, has no special tokens for them."""
    is_new = dataset.info["kind"] == "conversations" and first.info["kind"] != "conversations"
    if is_new and not has_special(dataset.encoder) and identity(dataset.encoder) == identity(first.encoder):
        assert at.stage is not None
        raise UserError(
            f"stage '{at.stage.name}' has conversations, and the encoder of the first stage, '{at.stages[0].name}', "
            "has no special tokens",
            place=at.stage.place,
            remedy='Set prepare.special_tokens = "chat" above the first [[stages]], so that the first stage reserves them.',
        )


def train_stages(opened: Opened, wish: Wish) -> Run:
    """Train all stages that are not finished, or the one that is asked for. Returns the last one's run.

    Raises UserError, RunFailed and Interrupted.
    """
    run = None
    with claimed(opened, wish) as folder:
        for at, dataset, of_stage in ways(opened, wish):
            run, is_new = train_stage(at, dataset, of_stage)
            if is_new:
                model = load_model(at, run.name)
                model.evaluate()
                measure_after_stage(opened, at, model)
            report_of_run(run.folder)
        assert run is not None  # there is a stage
        report_of_pipeline(opened, folder)
        return run


def loop_stages(opened: Opened, wish: Wish, show: Callable[[str], Any] | None = None) -> Path:
    """Take all stages, or one, through training, evaluation, samples and report. Returns the page about all of them.

    Raises as `train_stages`.
    """
    with claimed(opened, wish) as folder:
        for at, dataset, of_stage in ways(opened, wish):
            run, is_new = train_stage(at, dataset, of_stage)
            if not is_new:
                continue
            model = load_model(at, run.name)
            evaluate(model)
            samples = sample(model, show=show)
            say_samples(opened.listener, samples, first_is_shown=show is not None)
            report_of_model(model, samples)
            measure_after_stage(opened, at, model)
        page = report_of_pipeline(opened, folder)
        opened.listener.say(f"report: {page}")
        return page


@contextlib.contextmanager
def claimed(opened: Opened, wish: Wish) -> Iterator[Path]:
    """Take all stages of a run in this context: its lock is held, also between two stages, so that nobody thinks that it rests.

    Yields its folder. One stage alone needs that stage's lock only: several may train at once. Raises UserError where the folder
    is a run without stages, and if another process has the lock.
    """
    name, chosen = split_name(opened, wish.name, wish.stage)
    folder, title = opened.out / name, f"{opened.experiment.name}/{name}"
    if (folder / "summary.json").is_file():
        raise UserError(
            f"{title} is a run without stages",
            place=str(folder),
            remedy="Choose another name: `run=NAME`. Or rename the folder.",
        )
    with contextlib.nullcontext() if chosen else files.lock(lock_file(folder), f"run {title}", BUSY):
        yield folder


def ways(opened: Opened, wish: Wish) -> Iterator[tuple[Opened, Dataset, Wish]]:
    """The experiment as each stage has it, with its dataset and the wish for its run. A fresh start sets the whole run aside first.

    Raises UserError where the stage that another goes on from is not finished, or was trained again since.
    """
    name, chosen = split_name(opened, wish.name, wish.stage)
    folder = opened.out / name
    if wish.fresh and not chosen and (folder / PIPELINE).is_file():
        opened.listener.say(f"The old run {name} is now {set_aside(folder).name}.")
    # First of all, so that a mistake in the last stage is known before the first one trains.
    stages = prepared_stages(opened, chosen)
    for stage in (named(opened, chosen),) if chosen else opened.stages:
        of_stage = replace(wish, name=f"{name}/{stage.name}", stage="", fresh=wish.fresh and bool(chosen))
        at, dataset = stages[stage.name]
        refuse_impossible(at, of_stage)
        refuse_without_origin(at, of_stage)
        begin_pipeline(folder, opened.stages)
        yield at, dataset, of_stage


def stage_folder(at: Opened, wish: Wish) -> Path:
    """The run folder of a stage."""
    assert wish.name
    return at.out / wish.name


def train_stage(at: Opened, dataset: Dataset, wish: Wish) -> tuple[Run, bool]:
    """Train one stage, unless it is finished. Returns its run, and whether it has still to be measured.

    Raises UserError, RunFailed and Interrupted.
    """
    assert at.stage is not None
    folder = stage_folder(at, wish)
    before = read_summary(folder)
    run = train_run(at, dataset, wish)
    return run, read_summary(folder) != before or not (folder / OTHERS).is_file()


def refuse_without_origin(at: Opened, wish: Wish) -> None:
    """Raise UserError where the stage that another goes on from is not finished, or was trained again since."""
    assert at.stage is not None
    folder, train = stage_folder(at, wish), at.experiment.command.format("train")
    name = folder.parent.name
    if not at.stage.origin:
        return
    origin = folder.parent / at.stage.origin
    if not is_finished(origin):
        raise UserError(
            f"stage '{at.stage.name}' goes on from '{at.stage.origin}', which is not finished",
            place=str(origin),
            remedy=f"Train it first: {train} `run={name}` `stage={at.stage.origin}`",
        )
    started_from = read_summary(folder).get("origin")
    if started_from and not wish.fresh:
        which = at.stage.checkpoint
        checkpoint = checkpoints.load(origin / "checkpoints", which)
        if started_from != origin_of(origin, which, int(checkpoint.state["step"])):
            raise UserError(
                f"stage '{at.stage.name}' started from weights that '{at.stage.origin}' no longer has: that one was trained again",
                place=str(folder),
                remedy=f"Train this stage again, too: {train} `run={name}` `stage={at.stage.name}` `fresh=True`",
            )


def begin_pipeline(folder: Path, stages: tuple[Stage, ...]) -> None:
    """Write pipeline.json with the names of the stages, if it does not have them: it makes the folder a run with stages."""
    durable.make_folders(folder)
    names = [stage.name for stage in stages]
    if stage_names(folder) != names:
        files.write_json(folder / PIPELINE, {"stages": names, "table": {}, "seconds": {}, "tokens": {}})


def report_of_pipeline(opened: Opened, folder: Path) -> Path:
    """Write pipeline.json and the page about all stages that have begun. Returns the page's path."""
    return write_pipeline_report(folder, opened.experiment.name, [stage.name for stage in opened.stages])
