"""The process that runs the tools of a prepare.py: lines of JSON in, one line of JSON out for each.

It is started by `core.chat.own_tools`. A tool here has no standard input, and what it prints goes nowhere.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from core.chat.calculator import ERROR
from core.chat.tools import cut
from core.plugins.code import load_code
from core.plugins.discovery import Experiment


def serve(folder: str, seconds: float, memory: int) -> None:
    """Import prepare.py and answer calls until the input ends: {"name", "argument"} with {"text"}.

    The first line that it writes is {} when it is ready, or {"text": an error} when there are no tools. seconds: a call that
    takes longer ends the process. memory: bytes that may be used beyond those that the import took.
    """
    requests, replies = private_streams()
    try:
        tools = load_code(Experiment(Path(folder))).tools()  # type: ignore[union-attr]
    except BaseException as error:
        say(replies, text=cut(f"{ERROR}the tools cannot be loaded: {described(error)}"))
        return
    limit_memory(memory)
    say(replies)
    for line in requests:
        with_alarm(seconds)
        asked = json.loads(line)
        text = answer(tools, asked["name"], asked["argument"])
        with_alarm(0)
        say(replies, text=text)


def answer(tools: Mapping[str, Callable[[str], str]], name: str, argument: str) -> str:
    """What a tool gives, or its error as text."""
    try:
        found = tools[name](argument)
    except BaseException as error:  # sys.exit() too: the next call may be fine
        return cut(f"{ERROR}{described(error)}")
    return cut(str(found)) if isinstance(found, str) else f"{ERROR}{name} gave {type(found).__name__}, not text"


def described(error: BaseException) -> str:
    """An exception in a line."""
    name = type(error).__name__
    try:
        message = " ".join(str(error).split())
    except Exception:  # its own mistake
        message = ""
    return f"{name}: {message}" if message else name


def say(replies: IO[str], **reply: Any) -> None:
    """Write a line."""
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def private_streams() -> tuple[IO[str], IO[str]]:
    """The streams to the other process. Tools have empty ones in their place, and do not inherit these to others."""
    requests, replies = (os.fdopen(os.dup(number), mode, encoding="utf-8") for number, mode in ((0, "r"), (1, "w")))
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    return requests, replies


def with_alarm(seconds: float) -> None:
    """Have the system end this process after some seconds, also in the midst of C code; 0: not any more.

    The other process is quicker, unless it is gone.
    """
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + 1 if seconds else 0)


def limit_memory(beyond: int) -> None:
    """Make allocations fail that go further beyond what is taken now. Only Linux says what that is."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit, (_, hard) = pages * resource.getpagesize() + beyond, resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard),) * 2)
