"""The command chat: talk with a run's model on a terminal."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core import process
from core.cli import options

if TYPE_CHECKING:
    from core.cli.console import Console
    from core.lab.chatting import Talk

HELP = """/clear            forget what was said
/system TEXT      tell the assistant how to be; without TEXT, nothing
/temperature T    0: always the likeliest token
/topk K           draw from the K likeliest tokens; 0: from all
/regen            answer once more
/save FILE        append the conversation to a file, as a line of JSON
/help             these lines
/quit             end, as Ctrl-D does

Ctrl-C stops an answer."""


@click.command()
@options.experiment
@options.run
@options.stage
@click.option("--system", metavar="TEXT", default="", help="How the assistant is to be.")
@click.option("--max-new-tokens", metavar="N", type=click.IntRange(min=1), help="Maximum length of an answer, tokens.")
@click.option("--temperature", metavar="T", type=click.FloatRange(min=0), help="Sampling temperature; 0 is greedy.")
@click.option("--top-k", metavar="K", type=click.IntRange(min=0), help="Draw from the K likeliest tokens.")
@click.option("--seed", metavar="S", type=click.IntRange(min=0), default=0, help="Seed of the random draws.")
@options.as_json
@options.settings
def chat(
    experiment: str,
    name: str | None,
    stage: str,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
    **choices: Any,
) -> None:
    """Talk with a model that was trained on conversations.

    Each line is a turn of yours. /help lists commands. Without a terminal, lines are read from stdin.
    """
    from core.lab.chatting import begin_talk
    from core.lab.model import load_model
    from core.lab.stages import trained_as

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    options.tell_of_no_effect("chat", overrides)
    model = load_model(*trained_as(opened, name, stage))
    talk = begin_talk(model, **choices)
    console.say(f"{model.run.title} at step {model.step}. /help lists commands; Ctrl-D ends.")
    while (line := next_line(console)) is not None and line.strip() != "/quit":
        talk = said(talk, line.strip(), console)
    if as_json:
        turns = [asdict(message) for message in talk.messages]
        options.say_json({"experiment": experiment, "run": model.run.name, "messages": turns})


def next_line(console: Console) -> str | None:
    """What the user types; "" after Ctrl-C, which drops the line; None at the end."""
    if not (console.interactive and sys.stdin.isatty()):
        return sys.stdin.readline() or None
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - so that lines can be edited
    try:
        with process.taking_ctrl_c():
            return input("> ")
    except KeyboardInterrupt:
        console.say("\n(Ctrl-D ends.)")
        return ""
    except EOFError:
        console.say()
        return None


def said(talk: Talk, line: str, console: Console) -> Talk:
    """What follows from a line: an answer, or what a command does. Mistakes are told, and the talk goes on."""
    from core.cli.phrasing import phrased
    from core.cli.talking import answered
    from core.errors import UserError

    try:
        if line.startswith("/"):
            return obeyed(talk, *line[1:].partition(" ")[::2], console)
        return answered(talk, line, console) if line else talk
    except UserError as error:
        console.say(phrased(str(error)))
        return talk


def obeyed(talk: Talk, command: str, value: str, console: Console) -> Talk:
    """Do what a command says. Raises UserError for one that is unknown or has a wrong value."""
    from core.cli.talking import answered
    from core.errors import UserError, did_you_mean
    from core.lab import chatting

    value = value.strip()
    if command == "help":
        console.say(HELP)
    elif command == "clear":
        console.say("(What was said is forgotten.)")
        return chatting.cleared(talk)
    elif command == "system":
        return chatting.with_system(talk, value)
    elif command in ("temperature", "topk"):
        try:
            number = float(value) if command == "temperature" else int(value)
        except ValueError:
            raise UserError(
                f"{value!r} is no number", place=f"/{command}", remedy=f"For example: /{command} 1"
            ) from None
        talk = chatting.with_choice(talk, "top_k" if command == "topk" else command, number)
        console.say(f"({command} is now {number:g}.)")
    elif command == "regen":
        before, question = chatting.last_question(talk)
        return answered(before, question, console)
    elif command == "save":
        if not value:
            raise UserError("where to save is missing", place="/save", remedy="For example: /save talk.jsonl")
        console.say(f"saved: {chatting.save_talk(talk, Path(value).expanduser())}")
    else:
        known = ("clear", "system", "temperature", "topk", "regen", "save", "help", "quit")
        raise UserError(f"no command is called /{command}", remedy=did_you_mean(command, known))
    return talk


COMMANDS = (chat,)
