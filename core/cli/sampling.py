"""Draw samples from a trained run: settles what to start from and how to draw, then lets the model write."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config import Sampling
from core.data.documents import Example
from core.errors import UserError
from core.report.samples import Sample
from core.sampling.generate import complete

if TYPE_CHECKING:
    from core.cli.trained import Work

FILE = "FILE:"  # --start FILE:path reads the text from a file, as nanoGPT does


def draw(work: Work, choices: dict[str, Any], show: Any = None) -> list[Sample]:
    """Samples of a run. choices: options of the command, by their config names; None where not given.

    show: called with the first sample piece by piece, where it is running text.
    With Examples and no start: greedy answers to held-out prompts, with the truth. Raises UserError for a
    start that cannot be read or encoded.
    """
    given = {key: value for key, value in choices.items() if value is not None}
    settings = work.config.sample.sample.model_copy(
        update={key: value for key, value in given.items() if key != "seed"}
    )
    answers = work.trained.has_examples and not settings.start
    temperature = settings.temperature
    if temperature is None:  # an answer is right or wrong: chance only spoils it
        temperature = 0.0 if work.trained.has_examples else 0.8
    if answers:
        starts = held_out(work, settings.num_samples, given.get("seed"))
    else:  # without chance all continuations of one text are the same
        starts = [
            Example(start_text(work, settings, Path.cwd() if "start" in given else work.run.experiment.folder), "")
        ] * (settings.num_samples if temperature else 1)
    if answers:
        show = None
    elif show is not None:
        show(starts[0].prompt)
    try:
        texts = complete(
            work.trained.model,
            work.trained.encoder,
            [start.prompt for start in starts],
            max_new_tokens=settings.max_new_tokens,
            temperature=temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=given.get("seed", work.config.sample.runtime.seed) or 0,
            stop=settings.stop or work.trained.stop,
            show=show,
        )
    except UserError as error:  # the encoder's own advice is about preparing data
        remedy = f"{work.run.title} was trained without it: start with text like its own."
        raise UserError(error.message, place="--start", remedy=remedy) from None
    return [
        Sample(start.prompt, text, start.completion if answers else None)
        for start, text in zip(starts, texts, strict=True)
    ]


def held_out(work: Work, number: int, seed: int | None) -> list[Example]:
    """Prompts of the validation side: evenly spaced, or drawn at random where a seed is given."""
    if seed is None:
        return work.dataset.examples("val", number)
    everything = work.dataset.examples("val", 0)
    return random.Random(seed).sample(everything, min(number, len(everything)))


def start_text(work: Work, settings: Sampling, folder: Path) -> str:
    """The text to continue; FILE:path is relative to a folder. None given: a line break if the encoder knows it, else the vocabulary's first text."""
    if settings.start.startswith(FILE):
        path = folder / Path(settings.start.removeprefix(FILE)).expanduser()
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot be read: {error}", place=f"--start {settings.start}", remedy="Name a text file in UTF-8."
            ) from None
    if settings.start:
        return settings.start
    try:
        work.trained.encoder.encode("\n")
    except UserError:
        return work.trained.encoder.decode([0])
    return "\n"
