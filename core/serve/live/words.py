"""The words of a command that the page may start: train, loop or sweep.

The command line's own rules read them, so nothing is started that it would refuse. A value always stands behind `=` in the
word of its option, so that it cannot be taken for an option itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.errors import UserError
from core.plugins.discovery import Experiment
from core.serve.errors import Refused
from core.tracking.run import refuse_wrong_name

NAMING = {"train": "run", "loop": "run", "sweep": "name"}  # command -> the option that names what it makes
BEGINNING = ("quiet", "json", "fresh")  # options that count when a command is given first, not when it goes on
PREFIXES = (["python", "-m", "core.cli"], ["terrarium"])
TEAMS = (["torchrun"], ["python", "-m", "torch.distributed.run"])  # what the command of several processes begins with
PROGRAMS = ("core.cli", "terrarium")  # the last of a team's words before those of the program itself
SETTING = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*=.*", re.DOTALL)
LONGEST = 4000  # characters of a word


@dataclass(frozen=True)
class CommandParts:
    """A command line in its parts. options: by name without dashes. name: of the run, sweep or study that it makes, if asked for."""

    command: str
    options: Mapping[str, Any]
    settings: Sequence[str]
    name: str = ""


class ReadCommand(Protocol):
    """Reads words by the command line's rules. check: refuse what the command would refuse at once. Raises UserError."""

    def __call__(self, words: Sequence[str], *, check: bool = False) -> CommandParts: ...


def words_for(
    read: ReadCommand,
    experiment: Experiment,
    command: str,
    settings: Sequence[str],
    options: Mapping[str, Any],
    more: str = "",
) -> tuple[list[str], str]:
    """The words of a command, and the name of what it makes. more: further words, as typed. Raises Refused."""
    if command not in NAMING:
        raise refusal("command", command, f"is none of {', '.join(NAMING)}")
    words, asked = [command, experiment.argument], dict[str, Any]()
    for option, value in options.items():
        if value is True:
            asked[option] = value
            words.append(f"--{option}")
        elif value is not False and value not in ("", []):
            asked[option] = list(value) if isinstance(value, list) else str(value)
            words += [f"--{option}={each}" for each in (value if isinstance(value, list) else [value])]
    for setting in settings:
        if not SETTING.fullmatch(setting):
            raise refusal("settings", setting, "is not key=value")
        words += ["-s", setting]
    words += split(more)
    if wrong := next((word for word in words if "\0" in word or len(word) > LONGEST), None):
        raise refusal("command", wrong, f"has more than {LONGEST:,} characters, or one that ends a text")
    parts = read_words(read, words, check=True)
    for option, value in asked.items():
        if parts.options.get(option) != value:
            raise refusal(f"options.{option}", value, f"is no value of an option of {command}")
    try:
        refuse_wrong_name(parts.name)
    except UserError as error:
        raise Refused(f"{error.message}. {error.remedy}", param="name", code="invalid_value") from None
    return words, parts.name


def words_again(read: ReadCommand, recorded: str, kinds: Sequence[str], experiment: Experiment, name: str) -> list[str]:
    """The words of a recorded command, to go on with the run or the sweep of this name. kinds: commands that make it.

    The experiment is the one that it lies in. A sweep of a study goes on with the study. Raises Refused.
    """
    parts = read_recorded(read, recorded, kinds)
    if is_of_team(recorded):
        raise Refused("It was started by torchrun; give its command in a terminal", status=409, code="cannot_go_on")
    options = {option: value for option, value in parts.options.items() if option not in BEGINNING}
    if "study" not in options:
        options[NAMING[parts.command]] = name
    return words_for(read, experiment, parts.command, parts.settings, options)[0]


def read_recorded(read: ReadCommand, recorded: str, kinds: Sequence[str] = tuple(NAMING)) -> CommandParts:
    """The parts of a recorded command, without the words of torchrun.

    Raises Refused where it is none of these kinds, which the page may start.
    """
    words = split(recorded)
    if is_of_team(recorded):
        ends = (at for at, word in enumerate(words[:-1], 1) if Path(word).name in PROGRAMS and words[at] in kinds)
        rest = words[next(ends, len(words)) :]
    else:
        rest = next((words[len(prefix) :] for prefix in PREFIXES if words[: len(prefix)] == prefix), [])
    if not rest or rest[0] not in kinds:
        raise Refused(
            f"this was not started by {' or '.join(kinds)} on a command line, but by: {recorded[:300] or 'nothing known'}",
            status=409,
            code="cannot_go_on",
        )
    return read_words(read, rest)


def is_of_team(recorded: str) -> bool:
    """Whether a recorded command starts several processes."""
    words = split(recorded)
    return any(words[: len(team)] == team for team in TEAMS)


def read_words(read: ReadCommand, words: Sequence[str], *, check: bool = False) -> CommandParts:
    """The parts of a command. Raises Refused."""
    try:
        return read(words, check=check)
    except UserError as error:
        place = f"{error.place}: " if error.place else ""
        sentences = f"{place}{error.message.rstrip('.')}. {error.remedy}".strip()
        raise Refused(sentences, param="command", code="invalid_value") from None


def split(text: str) -> list[str]:
    """The words of a text, as a shell has them. Raises Refused for an open quote."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise refusal("command", text, f"cannot be read: {error}") from None


def refusal(param: str, value: Any, why: str) -> Refused:
    """The refusal of a value."""
    return Refused(f"{param}: {str(value)[:200]!r} {why}", param=param, code="invalid_value")
