"""Evaluate a trained model on a suite of tasks, and keep the figures in the run's suites.json."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import files
from core.chat.conversation import Conversation, Message
from core.chat.render import PromptText, render_prompt
from core.errors import UserError
from core.evaluation.suites import chat
from core.evaluation.suites.code import is_code
from core.evaluation.suites.results import TaskResult, mean_centered, measure_task
from core.evaluation.suites.task import Suite, Task
from core.lab.code import Draws, measure_code_task
from core.lab.evaluating import SAMPLES
from core.lab.model import LoadedModel
from core.listener import Advice
from core.report.suites import FILE, read_suites, title_of, told_of
from core.sampling.asking import said

CONTINUATION, LETTERS = "continuation", "letters"  # values of evaluate.suite_form


def evaluate_suite(
    model: LoadedModel,
    path: Path,
    *,
    run_code: bool = False,
    temperature: float | None = None,
    samples: int | None = None,
) -> dict[str, Any]:
    """Ask a model the tasks of a suite's folder or file. Reports them to the listener, and writes the run's suites.json.

    evaluate.suite_prompts and evaluate.suite_form say how many items of a task are asked, and how. run_code: run the programs
    that the model writes, where a task asks for programs, inside bubblewrap; otherwise such tasks are left out. temperature:
    also draw so many samples for each. Returns the figures, with the suite's name, the folder's or the file's.

    Raises UserError for a path that no reader knows or that is damaged, for text that the model's encoder cannot encode, for
    a form that needs a chat model, where nothing but programs is asked and they may not be run, and where they cannot be.
    """
    settings = model.config.evaluate
    read_suites(model.run.folder)  # a damaged file is told of now, not after minutes of asking
    reader, suite = read_suite(model, path)
    name = suite.tasks[0].name if path.is_file() and len(suite.tasks) == 1 else path.resolve().name
    not_run = [task.name for task in suite.tasks if is_code(task) and not run_code]
    if len(not_run) == len(suite.tasks):
        raise UserError(
            f"{not_run[0]} asks for programs, which were not run",
            place=f"`suite={path}`",
            remedy="`run_code=True` runs what the model writes, inside bubblewrap. docs/explanation/trust.md, Programs that a "
            "model writes, says what that protects, and what it does not.",
        )
    to_ask = Suite([task for task in suite.tasks if task.name not in not_run], suite.absent)
    results = ask(model, to_ask, draws_of(to_ask, temperature, samples))
    asked = {result.task.name: result.as_dict() for result in results}
    found = {
        "step": model.step,
        "reader": reader,
        "form": settings.suite_form,
        "suite_prompts": settings.suite_prompts,
        "mean_centered": mean_centered(results),
        "absent": list(suite.absent),
        "not_asked": [task.name for task in suite.tasks if task.name not in asked and task.name not in not_run],
        "not_run": not_run,
        "tasks": asked,
    }
    say = model.opened.listener.say
    say(f"evaluated {model.run.title} at step {model.step} on {title_of(name, settings.suite_form)}:")
    for line in told_of(found):
        say(f"  {line}")
    if not_run:
        say(Advice("  `run_code=True` runs programs that the model writes; docs/how-to/suites.md"))
    if not model.trained.kept:
        kept = read_suites(model.run.folder) | {title_of(name, settings.suite_form): found}
        files.write_figures(model.run.folder / FILE, kept)
    return {"experiment": model.run.experiment.name, "run": model.run.name, "suite": name, **found}


def draws_of(suite: Suite, temperature: float | None, samples: int | None) -> Draws | None:
    """What to draw besides greedy programs. Raises UserError where the choices have no effect."""
    if samples and not temperature:
        raise UserError(
            "has no effect without a temperature above 0: greedy programs are always the same",
            place=f"`samples={samples}`",
            remedy="Give a temperature, such as `temperature=0.8`.",
        )
    if temperature is not None and not any(map(is_code, suite.tasks)):
        raise UserError(
            "a temperature has no effect on a suite without programs to write",
            place=f"`temperature={temperature:g}`",
            remedy="Leave it out.",
        )
    return Draws(temperature, samples or SAMPLES) if temperature else None


def read_suite(model: LoadedModel, folder: Path) -> tuple[str, Suite]:
    """A suite, and the name of its reader. folder: or a file.

    Raises UserError if there is no such path, if not one reader knows it, and for a suite or a task without items.
    """
    readers = model.opened.plugins.registered("suites")
    if not folder.exists():
        raise UserError(
            "no such folder or file",
            place=str(folder),
            remedy="Name the folder of a suite, or a file of HumanEval's form; docs/how-to/suites.md.",
        )
    found = [(name, suite) for name, (read, _) in readers.items() if (suite := read(folder)) is not None]
    if len(found) != 1:
        which = " and ".join(name for name, _ in found)
        raise UserError(
            f"is of several readers' forms: {which}" if found else "is no suite that a reader knows",
            place=str(folder),
            remedy=f"Readers: {', '.join(sorted(readers))}. docs/how-to/suites.md shows what a folder or file holds.",
        )
    name, suite = found[0]
    if not suite.tasks or not all(task.items for task in suite.tasks):
        empty = next(
            (f"the task {task.name} holds no items" for task in suite.tasks if not task.items), "holds no task"
        )
        raise UserError(empty, place=str(folder), remedy=f"The reader '{name}' found nothing to ask: look at the data.")
    return name, suite


def ask(model: LoadedModel, suite: Suite, draws: Draws | None = None) -> list[TaskResult]:
    """The result of each task, in the form of evaluate.suite_form. Tasks that ask for programs are asked, and run."""
    form = model.config.evaluate.suite_form
    tasks = [task for task in suite.tasks if task.right is None]
    if form != CONTINUATION:
        tasks = chat_tasks(model, suite.tasks, form)
    sandbox = None
    if any(map(is_code, tasks)):
        from core.sandbox.bubblewrap import open_sandbox

        sandbox = open_sandbox()
    results = list[TaskResult]()
    with model.trained.machine.computing():
        for number, task in enumerate(tasks):
            show = functools.partial(show_progress, model, f"suite, task {number + 1} of {len(tasks)}: {task.name}")
            show(0, 0)
            if is_code(task):
                assert sandbox is not None
                results.append(measure_code_task(model, task, sandbox, draws, show))
                continue
            results.append(ask_task(model, task, form, show))
    return results


def show_progress(model: LoadedModel, what: str, done: int, total: int) -> None:
    model.opened.listener.progress(what, done, total)


def ask_task(model: LoadedModel, task: Task, form: str, show: Any) -> TaskResult:
    """The result of one task."""
    module, encoder, machine = model.module, model.encoder, model.trained.machine
    most = model.config.evaluate.suite_prompts
    if form == CONTINUATION:
        return measure_task(module, task, encoder, machine, most, show, begin=model.trained.begin)

    def ids_of_prompt(text: str) -> Sequence[int]:
        return [int(token) for token in render_prompt(Conversation([Message("user", text)]), encoder)]

    def write(prompts: Sequence[PromptText], most_tokens: int) -> Sequence[str]:
        return [said(rollout, encoder) for rollout in model.asked(prompts, max_new_tokens=most_tokens)]

    def answers(questions: Sequence[chat.AskedItem]) -> Sequence[int | None]:
        if form == LETTERS:
            return chat.chosen_by_logits(module, questions, encoder, machine)
        return chat.chosen_by_writing(questions, write)

    if task.right is not None:
        return chat.measure_written_task(task, write, ids_of_prompt, int(module.block_size), most)  # type: ignore[arg-type]
    return chat.measure_chat_task(task, answers, ids_of_prompt, int(module.block_size), most)  # type: ignore[arg-type]


def chat_tasks(model: LoadedModel, tasks: Sequence[Task], form: str) -> list[Task]:
    """The tasks that chat models can be asked in a form. Raises UserError for another model, and if there are none."""
    found = [
        task
        for task in tasks
        if chat.has_letters(task) or (form != LETTERS and (task.right is not None or is_code(task)))
    ]
    if not model.trained.conversations:
        raise UserError(
            f"{model.run.title} was not trained on conversations",
            place="evaluate.suite_form",
            remedy='Leave it out: "continuation" is for every model.',
        )
    if not found:
        raise UserError(
            "the suite has no multiple choice task", place="evaluate.suite_form", remedy='Use "continuation".'
        )
    return found
