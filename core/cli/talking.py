"""An answer of a model on a terminal: its text as it comes, and between it the calls of tools, each in a line of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from core import process
from core.lab.chatting import reply

if TYPE_CHECKING:
    from core.cli.console import Console
    from core.lab.answering import ToolCall
    from core.lab.chatting import Talk


def answered(talk: Talk, text: str, console: Console) -> Talk:
    """Let the model answer, piece by piece. Ctrl-C stops the answer."""
    in_line = False

    def show(piece: str) -> None:
        nonlocal in_line
        console.write(piece)
        in_line = not piece.endswith("\n")

    def show_call(call: ToolCall) -> None:
        line = line_of(call)
        show(("\n" if in_line else "") + (click.style(line, dim=True) if console.interactive else line) + "\n")

    with process.noting_signals() as stop:
        found = reply(talk, text, show, lambda: bool(stop.number), show_call)
    console.say(" (stopped)" if found.stopped else "")
    if stop.number == signal.SIGTERM:
        signal.raise_signal(signal.SIGTERM)
    if not found.text:
        console.say("(The model said nothing, so this turn does not count.)")
    if found.talk.left_out > talk.left_out:
        number = found.talk.left_out
        gone = (
            "turn no longer fits, and the model does not see it"
            if number == 1
            else f"{number} turns no longer fit, and the model does not see them"
        )
        console.say(f"(The oldest {gone}.)")
    return found.talk


def line_of(call: ToolCall) -> str:
    """A call and its result in one line: calculator 3*4 = 12. What a tool gives cannot steer the terminal."""
    line = "".join(letter if letter.isprintable() else " " for letter in f"{call.call} = {call.result}")
    return " ".join(line.split())
