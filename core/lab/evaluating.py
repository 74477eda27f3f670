"""Evaluate a trained model and report the metrics to the listener."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.evaluation.answers import DETAILS
from core.evaluation.exact_match import Answer
from core.lab import elsewhere
from core.lab.model import LoadedModel
from core.tracking.figures import by_numbers, group_text, loss_text, share_text

SHOWN_MISTAKES = 5
SAMPLES = 5  # answers to each prompt, if a temperature is given
NOT_METRICS = ("experiment", "run", "step")


@dataclass(frozen=True)
class Question:
    """What to evaluate on. data: a dataset folder or a variant; prompts: a file; neither: the run's own dataset.

    temperature: also draw `samples` answers to each prompt; None: only greedy answers.
    """

    data: str | None = None
    prompts: Path | None = None
    temperature: float | None = None
    samples: int | None = None


def evaluate(model: LoadedModel, question: Question = Question()) -> dict[str, Any]:
    """Evaluate a checkpoint. Reports the metrics and the first wrong answers to the listener.

    Raises UserError for a dataset of another encoder, for prompts that cannot be read, and for options without effect.
    """
    found, mistakes = measured(model, question)
    say = model.opened.listener.say
    where = question.data or question.prompts
    say(f"evaluated {model.run.title} at step {model.step}{f' on {where}' if where else ''}:")
    for name, value in sorted_groups(found):
        metric, slash, group = name.partition("/")
        if name == DETAILS:
            for line in in_words(value):
                say(f"  {line}")
        elif name == "prompts_per_second":
            say(f"  {value:,.0f} prompts per second")
        elif name not in NOT_METRICS and not metric.endswith("prompts"):
            text = share_text if "accuracy" in name else loss_text
            shown = text(value) if isinstance(value, float) else value
            count = f"{metric.removesuffix('accuracy')}prompts{slash}{group}"
            prompts = found.get(count) if metric.endswith("accuracy") else None
            title = metric + slash + (group_text(group) if slash else "")
            say(f"  {title:<28} {shown}{'' if prompts is None else f' of {prompts:,} prompt' + 's' * (prompts != 1)}")
    for answer in mistakes[:SHOWN_MISTAKES]:
        say(f"  wrong: {answer.example.prompt!r} -> {answer.text!r}, not {answer.example.completion!r}")
    return found


def sorted_groups(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The metrics in their order, but the groups of one by their numbers: 2 digits before 10 digits."""
    names = list(dict.fromkeys(name.partition("/")[0] for name in found))
    return sorted(found.items(), key=lambda item: (names.index(item[0].partition("/")[0]), by_numbers(item[0])))


def in_words(found: Mapping[str, Any]) -> Iterator[str]:
    """`details` as lines: by carries and by kinds of errors, of a file of prompts or of each side."""
    sides = {side: part for side, part in found.items() if isinstance(part, dict)}
    for side, part in ({"": found} if "errors" in found else sides).items():
        of = f"{side}: ".replace("_", " ") if side else ""
        if part["token_accuracy"] is not None and part["errors"]:
            yield f"{of}{share_text(part['token_accuracy'])} of the tokens are right"
        if len(part["carries"]) > 1:
            shares = (
                f"{number}: {share_text(right / all_)} of {all_:,}" for number, (right, all_) in part["carries"].items()
            )
            yield f"{of}by carries  {',  '.join(shares)}"
        if part["errors"]:
            yield f"{of}errors  {', '.join(f'{number:,} {kind}' for kind, number in part['errors'].items())}"


def measured(model: LoadedModel, question: Question) -> tuple[dict[str, Any], list[Answer]]:
    """The metrics, and the wrong answers."""
    if question.data and question.prompts:
        raise UserError("`data` and `prompts` exclude each other", remedy="Evaluate on one of them at a time.")
    if question.samples and not question.temperature:
        raise UserError(
            "`samples` has no effect without a temperature above 0: greedy answers are always the same",
            remedy="Give a temperature, such as `temperature=0.8`.",
        )
    names: dict[str, Any] = {"experiment": model.run.experiment.name, "run": model.run.name, "step": model.step}
    dataset = elsewhere.other_dataset(model, question.data) if question.data else None
    if question.prompts:
        examples = elsewhere.prompts_of(model, question.prompts)
        found, answers = elsewhere.evaluate_prompts(model, examples)
        wrong = [answer for answer in answers if not answer.correct]
    elif dataset:
        found, wrong = elsewhere.evaluate_dataset(model, dataset), []
    else:
        found, wrong = model.evaluate(), model.mistakes
    if question.temperature:
        if not question.prompts:
            asked = dataset or model.dataset
            examples = asked.examples(asked.reported_side, model.config.evaluate.max_prompts)
        found |= elsewhere.evaluate_drawn(model, examples, question.temperature, question.samples or SAMPLES)
    return names | found, wrong
