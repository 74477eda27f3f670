"""The words with which torchrun was told to start this program, for commands that go on with a team."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from core.process import Program, launch

TORCHRUN = "torchrun"


def words_of_team() -> tuple[str, ...]:
    """What stands before the name of a command that several processes share; the program's own words for a process alone."""
    if launch().world == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return Program.words
    return typed(words_of(os.getppid()), sys.argv[1:]) or rebuilt()


def words_of(process: int) -> list[str]:
    """A process's command line; empty where the system does not say."""
    try:
        data = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return []
    return os.fsdecode(data).split("\0")[:-1]


def typed(words: Sequence[str], arguments: Sequence[str]) -> tuple[str, ...]:
    """torchrun's own command line without the arguments of this program; empty if it does not end with them."""
    before = list(words[: len(words) - len(arguments)])
    if list(words[len(before) :]) != list(arguments) or len(before) < 2:
        return ()
    script = next((number for number, word in enumerate(before) if Path(word).name == TORCHRUN), None)
    before[: 1 if script is None else script + 1] = ["python" if script is None else TORCHRUN]
    return with_dashes(before)


def rebuilt() -> tuple[str, ...]:
    """A command line of as many processes and machines, from what torchrun tells each process."""
    machines, each = (os.environ.get(name, "1") for name in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    where = ["--standalone"] if machines == "1" else ["--nnodes", machines]
    program = ["--no-python", "--", *Program.words] if len(Program.words) == 1 else ["-m", "--", Program.words[-1]]
    return (TORCHRUN, *where, "--nproc-per-node", each, *program)


def with_dashes(words: list[str]) -> tuple[str, ...]:
    """Before the program, `--` ends torchrun's options: it would take --run for one of them."""
    return tuple(words if words[-2] == "--" else [*words[:-1], "--", words[-1]])
