"""Talk with a model that was trained on conversations: turns as training has them, answered token by token."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from core.chat.conversation import Message
from core.errors import UserError
from core.lab.answering import Answering, ToolCall
from core.lab.model import LoadedModel
from core.sampling.generate import generate


@dataclass(frozen=True)
class Talk:
    """A conversation with a model. messages: all turns so far. left_out: of the oldest ones, that no longer fit.

    choices: those of `LoadedModel.complete`, without `stop`. seed: of the next answer.
    """

    model: LoadedModel
    messages: tuple[Message, ...] = ()
    left_out: int = 0
    choices: tuple[tuple[str, Any], ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """talk: with the new turns, if there are any. text: what the assistant said. stopped: before it had ended."""

    talk: Talk
    text: str
    stopped: bool = False


def begin_talk(model: LoadedModel, *, system: str = "", seed: int = 0, **choices: Any) -> Talk:
    """A conversation without turns, perhaps with a system message.

    Raises UserError for a model without the special tokens of conversations, and for a choice that is unknown or wrong.
    """
    if not model.trained.conversations:
        raise UserError(
            f"{model.run.title} was not trained on conversations with special tokens",
            place=str(model.run.folder),
            remedy="Name the stage that was: `stage=NAME`; or go on training, until it is finished: "
            f"{model.run.experiment.command.format('loop')}"
            if model.opened.stages
            else 'Train it on conversations, with prepare.special_tokens = "chat".',
        )
    given = {name: value for name, value in choices.items() if value is not None}
    model.decoding(given)
    talk = Talk(model, choices=tuple(given.items()), seed=seed)
    return with_system(talk, system) if system else talk


def with_system(talk: Talk, text: str) -> Talk:
    """The talk with another system message; "" for none."""
    turns = tuple(message for message in talk.messages if message.role != "system")
    return replace(talk, messages=((Message("system", text),) if text else ()) + turns)


def with_choice(talk: Talk, name: str, value: Any) -> Talk:
    """The talk with another way to draw. Raises UserError for a wrong value."""
    choices = dict(talk.choices) | {name: value}
    talk.model.decoding(choices)
    return replace(talk, choices=tuple(choices.items()))


def cleared(talk: Talk) -> Talk:
    """The talk without its turns; the system message stays."""
    return replace(talk, messages=tuple(m for m in talk.messages if m.role == "system"), left_out=0)


def last_question(talk: Talk) -> tuple[Talk, str]:
    """The talk before the user's last turn, and that turn. Raises UserError if there is none."""
    users = [number for number, message in enumerate(talk.messages) if message.role == "user"]
    if not users:
        raise UserError("nothing has been said yet", remedy="Say something first.")
    return replace(talk, messages=talk.messages[: users[-1]]), talk.messages[users[-1]].content


def save_talk(talk: Talk, path: Path) -> Path:
    """Append the turns to a file, as a line of JSON that a column `messages` of a dataset can be. Raises UserError."""
    line = json.dumps({"messages": [asdict(message) for message in talk.messages]}, ensure_ascii=False)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror}", place=str(path), remedy="Name a file, such as talk.jsonl."
        ) from None
    return path


def reply(
    talk: Talk,
    text: str,
    show: Callable[[str], Any] | None = None,
    stopped: Callable[[], bool] = lambda: False,
    on_call: Callable[[ToolCall], Any] = lambda call: None,
) -> Reply:
    """Say something, and let the model answer. show: called with the pieces of the answer as they come.

    on_call: called with each call of a tool, when it has its result. stopped: asked after each token; if it says so, the answer ends there, and stays in the talk as it is. An answer without
    text leaves the talk as it was. Raises UserError for text that the encoder cannot encode, and for more than the model
    sees.
    """
    model, asked = talk.model, (*talk.messages, Message("user", text))
    answering = Answering(asked, model.encoder, model.block_size, model.tools)
    if len(answering.prompt) > model.block_size:
        raise UserError(
            f"{len(answering.prompt):,} tokens do not fit the {model.block_size:,} that the model sees",
            place="message",
            remedy="Say it in fewer words.",
        )
    with model.trained.machine.computing():
        write_turn(talk, answering, show, stopped)
        while call := answering.close_turn(stopped=stopped()):
            on_call(call)
            write_turn(talk, answering, show, stopped)
    ended, talk = answering.turn_ended, replace(talk, seed=talk.seed + 1)
    if not answering.turns:
        return Reply(talk, answering.said, stopped())
    talk = replace(talk, messages=(*asked, *answering.turns), left_out=answering.left_out)
    return Reply(talk, answering.said, not ended)


def write_turn(
    talk: Talk, answering: Answering, show: Callable[[str], Any] | None, stopped: Callable[[], bool]
) -> None:
    """Let the model write one turn."""
    settings = talk.model.decoding(dict(talk.choices))
    settings.pop("stop")
    module = talk.model.module
    prompt = torch.tensor([answering.prompt], device=next(module.parameters()).device)
    steps = generate(module, prompt, seeds=[talk.seed], **settings)
    for chosen in steps:
        piece = answering.take(int(chosen[0]))
        if piece and show is not None:
            show(piece)
        if answering.turn_ended or stopped():
            break
    steps.close()
