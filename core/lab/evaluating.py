"""Evaluate a trained model and report the metrics to the listener."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.evaluation.exact_match import Answer
from core.lab import elsewhere
from core.lab.model import LoadedModel
from core.tracking.figures import group_text, loss_text, share_text

SHOWN_MISTAKES = 5
SAMPLES = 5  # answers to each prompt, if a temperature is given
INSIDE = (
    "mistakes",
    "token_accuracy",
    "start_accuracy",
    "end_accuracy",
    "carry_accuracy",
)  # metrics that the report draws
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
    for name, value in found.items():
        metric, slash, group = name.partition("/")
        if name not in NOT_METRICS and not metric.endswith(("prompts", *INSIDE)):
            text = share_text if "accuracy" in name else loss_text
            shown = text(value) if isinstance(value, float) else value
            count = f"{metric.removesuffix('accuracy')}prompts{slash}{group}"
            prompts = found.get(count) if metric.endswith("accuracy") else None
            title = metric + slash + (group_text(group) if slash else "")
            say(f"  {title:<28} {shown}{'' if prompts is None else f' of {prompts:,} prompts'}")
    kinds = {name.partition("/")[2]: count for name, count in found.items() if "_mistakes/" in name}
    if kinds:
        say(f"  kinds of mistakes: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items())}")
    for answer in mistakes[:SHOWN_MISTAKES]:
        say(f"  wrong: {answer.example.prompt!r} -> {answer.text!r}, not {answer.example.completion!r}")
    return found


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
