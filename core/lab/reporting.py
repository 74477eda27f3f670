"""Write the reports on a run and on an experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core.data.dataset import Side
from core.data.documents import Example
from core.evaluation.answers import errors
from core.evaluation.exact_match import Answer
from core.lab.choosing import every_group, no_runs
from core.lab.looking import look_for_report, sections_of
from core.lab.model import LoadedModel
from core.listener import Listener
from core.plugins.discovery import Experiment, summary
from core.report.comparison import Group
from core.report.experiment_report import write_experiment_report
from core.report.log import write_log_entry
from core.report.nearest import answered_so, nearest
from core.report.pipeline_report import write_pipeline_report
from core.report.plots import write_plots
from core.report.run_report import SHOWN_MISTAKES, write_report
from core.report.runs import read_run
from core.report.samples import ErrorKind, Mistake, Sample, Written, after_first, as_text, write_samples
from core.tracking.run import find_run, run_folders, stage_names

SHOWN_SIDES: tuple[Side, ...] = ("val", "held_out")  # whose wrong answers are shown: the test side's stay unseen
MOST_SEARCHED = 20_000  # training examples, evenly spaced; decoding more takes seconds


def report_of_run(folder: Path) -> Path:
    """Write the plots and the page of a run. Returns the page's path."""
    run = read_run(folder)
    write_plots(folder, run.rows)
    return write_report(folder, run, sections_of(run))


def report_named(experiment: Experiment, out: Path, name: str) -> Path:
    """Write the page of a run; of a run with stages, the one about all of them. Returns its path.

    Raises UserError if there is no such run.
    """
    if stages := stage_names(out / name):
        return write_pipeline_report(out / name, experiment.name, stages)
    return report_of_run(find_run(experiment, out, name))


def reports_of_pipelines(experiment: Experiment, out: Path) -> dict[str, Path]:
    """Write the page about all stages of each run that has stages. Returns their paths by run, in the order of `runs`.

    Raises UserError for damaged files of a stage.
    """
    stages = [folder for folder in run_folders(experiment, out) if folder.parent != out]
    folders = dict.fromkeys(folder.parent for folder in stages)
    return {
        folder.name: write_pipeline_report(folder, experiment.name, names)
        for folder in folders
        if (names := stage_names(folder))
    }


def report_of_model(model: LoadedModel, samples: Sequence[Sample]) -> Path:
    """Write the samples, plots and page of a run, and its log entry. Returns the page's path."""
    folder = model.run.folder
    write_samples(folder, written(model, samples))
    look_for_report(model, samples)
    page = report_of_run(folder)
    write_log_entry(model.run)  # again, now with the samples
    model.opened.listener.say(f"report: {page}")
    return page


def written(model: LoadedModel, samples: Sequence[Sample]) -> Written:
    """Samples, and wrong answers with the nearest training examples."""
    of_sides = {side: errors(model.closing.answers.get(side, []), model.trained.stop) for side in SHOWN_SIDES}
    examples = model.dataset.examples("train", MOST_SEARCHED) if any(of_sides.values()) else []
    mistakes = [mistake(answer, examples, kind) for kind, answer in of_sides["val"][:SHOWN_MISTAKES]]
    kinds = [kind for side, found in of_sides.items() for kind in error_kinds(side, found, examples)]
    return Written(list(samples), mistakes, len(of_sides["val"]), len(examples), kinds)


def error_kinds(side: str, found: Sequence[tuple[str, Answer]], examples: Sequence[Example]) -> list[ErrorKind]:
    """The kinds of errors of a side, the most frequent first. found: the wrong answers with their kinds."""
    first: dict[str, Answer] = {}
    for kind, answer in found:
        first.setdefault(kind, answer)
    return [
        ErrorKind(
            side,
            kind,
            number,
            mistake(first[kind], examples, kind),
            [(same.prompt, same.completion) for same in answered_so(first[kind].text, examples)],
        )
        for kind, number in Counter(kind for kind, _ in found).most_common()
    ]


def mistake(answer: Answer, examples: Sequence[Example], kind: str) -> Mistake:
    """A wrong answer, with the training examples whose prompts are nearest."""
    near = [(near.prompt, near.completion) for near in nearest(answer.example.prompt, examples)]
    return Mistake(answer.example.prompt, answer.text, answer.example.completion, answer.example.group, near, kind)


def report_of_experiment(experiment: Experiment, out: Path) -> Path:
    """Write the page of all runs of an experiment. Returns its path. Raises UserError if there are no runs."""
    groups = every_group(experiment, out)
    if not groups:
        raise no_runs(experiment, experiment.folder)
    sweeps = sorted(out.glob("sweeps/*/report.html"))
    return write_experiment_report(out, experiment.name, summary(experiment), groups, sweeps)


def hand_in(
    experiment: Experiment, out: Path, folder: Path, run: str | None = None, *, markdown_only: bool = False
) -> dict[str, Path]:
    """Write a folder to hand in, about all runs or one. Returns its files by ending; without "pdf" if none can be printed.

    Raises UserError if there is no such run, and if the folder has a report.md that is not of this function.
    """
    from core.report.hand_in import write_hand_in

    one = [] if run is None else [Group(run, [read_run(find_run(experiment, out, run))])]
    groups = one or every_group(experiment, out)
    if not groups:
        raise no_runs(experiment, experiment.folder)
    return write_hand_in(folder, experiment.name, summary(experiment), groups, sections_of, markdown_only=markdown_only)


def say_samples(listener: Listener, samples: Sequence[Sample], *, first_is_shown: bool) -> None:
    """Report the samples to the listener, without the first one if it was already shown while it was written."""
    streamed = first_is_shown and samples[0].truth is None
    listener.say((after_first(samples) if streamed else as_text(samples)).removesuffix("\n"))
