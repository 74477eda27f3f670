"""The words of a command that the page may start: train, loop or sweep, with checked names and settings.

A value always stands behind `=` in the word of its option, so that it cannot be taken for an option itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import UserError
from core.plugins.discovery import Experiment
from core.serve.errors import Refused
from core.tracking.run import refuse_wrong_name

SETTING = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*=[^\0]*", re.DOTALL)
RUNNING: dict[str, type] = {
    "variant": str,
    "stage": str,
    "description": str,
    "resume": bool,
    "fresh": bool,
    "exact": bool,
}
COMMANDS: dict[str, dict[str, type]] = {
    "train": RUNNING,
    "loop": RUNNING,
    "sweep": {
        "variant": str,
        "description": str,
        "seeds": str,
        "grid": list,
        "random": int,
        "range": list,
        "jobs": int,
        "halving": bool,
        "retry": bool,
        "study": str,
    },
}
NAMING = {"train": "run", "loop": "run", "sweep": "name"}
LEFT_OUT = ("-q", "--quiet", "--json", "--fresh")  # of a command that goes on
PREFIXES = (["python", "-m", "core.cli"], ["terrarium"])
LONGEST = 4000  # characters of a value


def words_for(
    command: str, experiment: Experiment, name: str, settings: Sequence[str], options: Mapping[str, Any]
) -> list[str]:
    """The words of a command. Raises Refused for whatever the page may not say."""
    known = COMMANDS.get(command)
    if known is None:
        raise refusal("command", command, f"is none of {', '.join(COMMANDS)}")
    words = [command, place_of(experiment)]
    if name:
        words.append(f"--{NAMING[command]}={checked_name(name)}")
    for option, value in options.items():
        kind = known.get(option)
        if kind is None:
            raise refusal("options", option, f"is no option of {command} here: {', '.join(known)}")
        words += words_of_option(option, value, kind)
    for setting in settings:
        if not SETTING.fullmatch(setting) or len(setting) > LONGEST:
            raise refusal("settings", setting, "is not key=value")
        words += ["-s", setting]
    return words


def words_of_option(option: str, value: Any, kind: type) -> list[str]:
    """The words of an option with a value of its kind. Raises Refused for another value."""
    values = value if kind is list and isinstance(value, list) else [value]
    wanted = str if kind is list else kind
    for each in values:
        if type(each) is not wanted or (isinstance(each, str) and ("\0" in each or len(each) > LONGEST)):
            raise refusal(f"options.{option}", each, f"is not {'a text' if wanted is str else wanted.__name__}")
    if kind is bool:
        return [f"--{option}"] if value else []
    return [f"--{option}={each}" for each in values if each != ""]


def place_of(experiment: Experiment) -> str:
    """The experiment as the command line finds it: by its name, or by its path where only that leads to it."""
    return experiment.address or experiment.name


def checked_name(name: str) -> str:
    """The name of a run or a sweep. Raises Refused for one that a run cannot have."""
    try:
        refuse_wrong_name(name)
    except UserError as error:
        raise Refused(f"{error.message}. {error.remedy}", param="name", code="invalid_value") from None
    return name


def words_again(recorded: str, experiment: Experiment, name: str) -> list[str]:
    """The words of a recorded command of an experiment, to go on with the run or the sweep of this name.

    A recorded command comes from a file, so each of its words is checked as if the page had sent it. Raises Refused.
    """
    try:
        words = shlex.split(recorded)
    except ValueError:
        words = []
    rest = next((words[len(prefix) :] for prefix in PREFIXES if words[: len(prefix)] == prefix), [])
    if not rest or rest[0] not in COMMANDS:
        raise Refused(
            f"this was not started by train, loop or sweep on a command line, but by: {recorded[:300] or 'nothing known'}",
            status=409,
            code="cannot_go_on",
        )
    command, *arguments = rest
    options, settings = read_words(command, arguments, experiment)
    return words_for(command, experiment, name, settings, options)


def read_words(command: str, arguments: Sequence[str], experiment: Experiment) -> tuple[dict[str, Any], list[str]]:
    """The options and settings in the words of a command. Raises Refused for those that the page may not say."""
    known, naming = COMMANDS[command], NAMING[command]
    options: dict[str, Any] = {}
    settings: list[str] = []
    positional: list[str] = []
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        option = option.removeprefix("--").replace("_", "-") if option.startswith("--") else ""
        if word in LEFT_OUT:
            continue
        if word in ("-s", "--set"):
            settings.append(next(rest, ""))
        elif SETTING.fullmatch(word):
            settings.append(word)
        elif option and (option in known or option == naming):
            kind = known.get(option, str)
            given = True if kind is bool else value if equals else next(rest, "")
            if option == naming:
                continue
            if kind is list:
                options.setdefault(option, []).append(given)
            else:
                options[option] = int(given) if kind is int and str(given).isdecimal() else given
        elif not word.startswith("-"):
            positional.append(word)
        else:
            raise refusal("command", word, "is part of how this was started: go on with it on the command line")
    names = {experiment.name, experiment.address, str(experiment.folder)}
    if len(positional) != 1 or not (
        positional[0] in names or positional[0].rstrip("/").endswith(f"/{experiment.name}")
    ):
        raise refusal("command", " ".join(positional), f"is not {experiment.name}")
    return options, settings


def refusal(param: str, value: Any, why: str) -> Refused:
    """The refusal of a value."""
    return Refused(f"{param}: {str(value)[:200]!r} {why}", param=param, code="invalid_value")
