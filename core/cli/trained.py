"""The commands evaluate and sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from core.cli import options


@click.command()
@options.experiment
@options.run
@options.stage
@options.checkpoint
@click.option("--data", metavar="FOLDER|VARIANT", help="Evaluate on another dataset, made with the same encoder.")
@click.option(
    "--prompts",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Evaluate on all prompts of a file: JSON lines, or PROMPT, a tab, ANSWER.",
)
@click.option(
    "--suite",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Evaluate on the tasks of a suite: a folder, or HumanEval's file.",
)
@click.option("--run-code", is_flag=True, help="Run the programs that the model writes for --suite, inside bubblewrap.")
@click.option("--temperature", metavar="T", type=click.FloatRange(min=0), help="Also draw answers at this temperature.")
@click.option("--samples", metavar="N", type=click.IntRange(min=1), help="Drawn answers to each prompt.  [default: 5]")
@options.as_json
@options.settings
def evaluate(
    experiment: str,
    name: str | None,
    stage: str,
    checkpoint: str,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
    suite: Path | None,
    run_code: bool,
    **choices: Any,
) -> None:
    """Evaluate a run on whole sides of its dataset: loss, bits per byte and exact match of greedy answers.

    Or on other data: another dataset, a file of prompts, or a suite of tasks. Exact match of drawn answers stands beside
    that of the greedy ones: of all of them, and of prompts with at least one right answer (drawn_any_accuracy).
    """
    from core.lab.evaluating import Question
    from core.lab.evaluating import evaluate as evaluate_model
    from core.lab.model import load_model
    from core.lab.stages import trained_as
    from core.lab.suites import evaluate_suite

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    options.tell_of_no_effect("evaluate", overrides)
    if suite is not None and (choices.pop("data"), choices.pop("prompts")) != (None, None):
        raise click.UsageError("--suite excludes --data and --prompts")
    if run_code and suite is None:
        raise click.UsageError("--run-code needs --suite")
    model = load_model(*trained_as(opened, name, stage), checkpoint)
    if suite is not None:
        metrics = evaluate_suite(model, suite, run_code=run_code, **choices)
    else:
        metrics = evaluate_model(model, Question(**choices))
    if as_json:
        options.say_json(metrics)


@click.command()
@options.experiment
@options.run
@options.stage
@options.checkpoint
@options.sampling
@options.as_json
@options.settings
def sample(
    experiment: str,
    name: str | None,
    stage: str,
    checkpoint: str,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
    **choices: Any,
) -> None:
    """Sample from a run: answers to held-out prompts with the truth, or running text."""
    from core.lab.model import load_model
    from core.lab.reporting import say_samples
    from core.lab.sampling import sample as draw
    from core.lab.stages import trained_as

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    options.tell_of_no_effect("sample", overrides)
    show = console.write if console.interactive else None
    model = load_model(*trained_as(opened, name, stage), checkpoint)
    samples = draw(model, show=show, **choices)
    say_samples(console, samples, first_is_shown=show is not None)
    if as_json:
        values = [sample.as_dict() for sample in samples]
        found = {"experiment": experiment, "run": model.run.name, "samples": values}
        options.say_json(found)


COMMANDS = (evaluate, sample)
