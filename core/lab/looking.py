"""Look inside a trained model: write pictures of its attention and embeddings into the run's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.chat.render import BegunText, PromptText
from core.data.documents import Example
from core.errors import UserError
from core.lab.model import LoadedModel
from core.plugins.manager import built_in
from core.report.document import PageSection
from core.report.runs import RunData
from core.report.samples import Sample

if TYPE_CHECKING:
    from core.look.record import Look

SHOWN_TOKENS = 24  # of running text or of a conversation, where no prompt is given


@dataclass(frozen=True)
class Looked:
    """paths: of the pictures. look: what they show."""

    paths: list[Path]
    look: Look


def can_look() -> bool:
    """Whether core/look, which may be taken out, is there."""
    return "core.look" in built_in()


def look(model: LoadedModel, prompt: str | None = None) -> Looked:
    """Write the pictures for a prompt, and report them to the listener. prompt: by default one of validation.

    Raises UserError if no prompt is given and the data has none, and for a prompt that the encoder cannot encode.
    """
    text = prompt_to_look_at(model, prompt).prompt
    with explaining(model):
        found = looked(model, text)
    say = model.opened.listener.say
    say(f"looked inside {model.run.title} at step {model.step}: {found.look.prompt!r} -> {found.look.answer!r}")
    for remark in found.look.remarks:
        say(f"  {remark}")
    for path in found.paths:
        say(f"  {path}")
    return found


def prompt_to_look_at(model: LoadedModel, prompt: str | None) -> Example:
    """The prompt that is given, or one of validation with the right answer. Raises UserError if there is none."""
    if prompt is None:
        examples = model.dataset.examples("val", 1)
        if not examples:
            raise UserError(
                "running text has no prompts",
                place="prompt",
                remedy='Give the text to look at, such as `prompt="To be"`.',
            )
        return examples[0]
    if not prompt:
        raise UserError("the prompt is empty", place="prompt", remedy='Give some text, such as `prompt="12+34="`.')
    return Example(prompt, "")


@contextlib.contextmanager
def explaining(model: LoadedModel) -> Iterator[None]:
    """Give the UserError for a prompt that cannot be encoded a remedy: the encoder's own is about preparing data."""
    try:
        yield
    except UserError as error:
        remedy = f"{model.run.title} was trained without it. Look at text like its training data."
        raise UserError(error.message, place="prompt", remedy=remedy) from None


def looked(model: LoadedModel, prompt: str, most_layers: int = 0) -> Looked:
    """The pictures for a prompt and, if the model was trained on Examples, its greedy answer; written.

    most_layers: draw the attention of so many layers at most; 0: of all.
    """
    from core.look.attention import attention_maps, missing
    from core.look.embeddings import token_embeddings
    from core.look.record import record, write_look

    module, encoder, prompt = model.module, model.encoder, model.begun(prompt)
    model.say_what_is_cut([prompt])
    answer = model.complete([prompt], temperature=0)[0] if model.trained.has_examples else ""
    remarks = [why] if (why := missing(module)) else []
    with model.trained.machine.computing():
        maps = None if why else attention_maps(module, encoder, prompt, answer)
    embeddings = token_embeddings(module, encoder)
    if embeddings is None:
        remarks.append(
            "There is no table of embeddings to show: of one row per id, for 3 ids or more, or 3 numbers among many."
        )
    elif not embeddings.numbers:
        remarks.append("Fewer than 3 tokens are numbers: the picture shows all tokens, and there is no spectrum.")
    elif not embeddings.whole:
        remarks.append("The numbers are not 0, 1, 2, ... without gaps, so there is no spectrum of them.")
    found = record(model.step, prompt, answer, maps, embeddings, remarks)
    return Looked(write_look(model.run.folder, found, most_layers), found)


def look_for_report(model: LoadedModel, samples: Sequence[Sample]) -> None:
    """Write the pictures for the first sample, if core/look is there."""
    if not can_look() or not samples:
        return
    first = samples[0]
    text = first.start if first.truth is not None else first.start + first.text
    if isinstance(first.start, PromptText | BegunText):  # it alone knows its ids
        text = type(first.start).of(first.start.ids[-SHOWN_TOKENS:], model.encoder)
    elif first.truth is None:
        text = model.encoder.decode(model.encoder.encode(text)[:SHOWN_TOKENS].tolist())
    if text:
        from core.look.record import MOST_LAYERS

        looked(model, text, MOST_LAYERS)


def sections_of(run: RunData) -> list[PageSection]:
    """The sections of a report on the inside of a run's model, from the files of its folder."""
    if not can_look():
        return []
    from core.look.record import sections

    summary: dict[str, Any] = run.summary
    return sections(run.folder, summary)
