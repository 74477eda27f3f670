"""Sample from a trained model: answers to held-out prompts with the truth, or running text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.data.documents import Example
from core.data.text import read_text
from core.errors import UserError
from core.evaluation.exact_match import answered
from core.lab.model import LoadedModel
from core.lab.own import own_function
from core.report.samples import Sample
from core.sampling.asking import said, spelled_out
from core.sampling.generate import complete

FILE = "FILE:"  # start = "FILE:path" reads the text from a file, as in nanoGPT


def sample(model: LoadedModel, *, show: Callable[[str], Any] | None = None, **choices: Any) -> list[Sample]:
    """Draw samples from a model.

    choices: start, num_samples, seed, and those of `LoadedModel.complete`; None means not given. With Examples and no
    start: greedy answers to held-out prompts, with the truth. With conversations: what the assistant
    says last in held-out ones. show: called with the pieces of the first sample, if it has no truth. Raises UserError for a start that cannot be read or encoded.
    """
    given = {key: value for key, value in choices.items() if value is not None}
    own, seed = model.config.sample, given.pop("seed", None)
    start, number = given.pop("start", None), given.pop("num_samples", own.sample.num_samples)
    decoding = model.decoding(given)
    asks = not (start or own.sample.start)
    answers = asks and model.trained.has_examples
    if answers or (asks and model.trained.conversations):
        prompts = held_out(model, number, seed)
    else:
        # Without randomness all continuations of a text are the same.
        prompts = [Example(start_text(model, start), "")] * (number if decoding["temperature"] else 1)
    if show is not None and not answers:
        show(prompts[0].prompt)
    try:
        begun = [example.prompt if answers else model.begun(example.prompt) for example in prompts]
        model.say_what_is_cut(begun)
        decoding["seed"] = own.runtime.seed or 0 if seed is None else seed
        with model.trained.machine.computing():
            if asks and model.trained.conversations:
                texts = talked(model, begun, graded=answers, **decoding)
                if show is not None and not answers:
                    show(texts[0])
            else:
                texts = complete(model.module, model.encoder, begun, show=None if answers else show, **decoding)
    except UserError as error:  # the encoder's own remedy is about preparing data
        remedy = f"{model.run.title} was trained without it. Start with text like its training data."
        raise UserError(error.message, place="start", remedy=remedy) from None
    if not answers:
        return [Sample(example.prompt, text) for example, text in zip(prompts, texts, strict=True)]
    part = own_function(model.opened.code, "answer")
    return [
        Sample(answer.example.prompt, answer.text, answer.example.completion, answer.correct if part else None)
        for answer in answered(model.encoder, prompts, texts, part)
    ]


def talked(model: LoadedModel, prompts: Sequence[str], *, graded: bool, stop: str, **decoding: Any) -> list[str]:
    """What the assistant says last in answer to each prompt of a conversation; not graded: its calls and their results, too.

    Where the run has a text that ends samples, it ends them here as well.
    """
    text = said if graded else spelled_out
    found = [text(rollout, model.encoder) for rollout in model.asked(prompts, **decoding)]
    return [each[: each.index(stop) + len(stop)] if stop and stop in each else each for each in found]


def held_out(model: LoadedModel, number: int, seed: int | None) -> list[Example]:
    """Prompts of the validation side: evenly spaced, or drawn at random if a seed is given."""
    graded = model.trained.has_examples
    if seed is None:
        return model.dataset.questions("val", number, graded=graded)
    everything = model.dataset.questions("val", 0, graded=graded)
    return random.Random(seed).sample(everything, min(number, len(everything)))


def with_line_breaks(start: str, model: LoadedModel) -> str:
    """A start typed in a shell, where `\\n` and `\\t` mean a line break and a tab if the vocabulary has no backslash."""
    typed = start.replace("\\n", "\n").replace("\\t", "\t")
    if typed != start:
        try:
            model.encoder.encode("\\")
        except UserError:
            model.opened.listener.say(
                "The vocabulary has no backslash, so \\n and \\t in the start are a line break and a tab."
            )
            return typed
    return start


def start_text(model: LoadedModel, given: str | None) -> str:
    """The text to continue: the given one, else the config's, else a line break, or id 0 if the encoder has no line break.

    FILE:path is relative to the current folder if it is given, and to the experiment's folder if it is in the config.
    """
    start = given or model.config.sample.sample.start
    if start.startswith(FILE):
        folder = Path.cwd() if given else model.run.experiment.folder
        try:
            return "".join(read_text(folder / Path(start.removeprefix(FILE)).expanduser()))
        except (OSError, UserError) as error:
            found, remedy = (error.message, error.remedy) if isinstance(error, UserError) else (str(error), "")
            raise UserError(
                f"cannot be read: {found}", place=f"`start={start}`", remedy=remedy or "Name a text file in UTF-8."
            ) from None
    if start:
        return with_line_breaks(start, model)
    if model.trained.begin is not None:
        return ""
    try:
        model.encoder.encode("\n")
    except UserError:
        return model.encoder.decode([0])
    return "\n"
