"""Settings on the command line: `learning_rate=0.1` and `--train.optim.learning_rate=0.1`, besides `-s`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from core.errors import UserError, did_you_mean

BARE = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*=")
OPTION = re.compile(r"--([A-Za-z_]\w*(?:\.[\w-]+)*)=(.*)", re.DOTALL)


def as_options(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """Arguments of a command, with `-s` before each setting that has none."""
    options = [option for option in command.params if isinstance(option, click.Option)]
    if not any(option.name == "overrides" for option in options):
        return list(arguments)
    names = {name for option in options for name in option.opts}
    with_value = {name for option in options if not option.is_flag for name in option.opts}
    result: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*result, argument, *rest]
        name = argument.replace("_", "-") if argument.startswith("--") else argument
        found = OPTION.fullmatch(argument)
        if found and name.partition("=")[0] not in names:
            result += ["-s", f"{found[1]}={found[2]}"]
        elif BARE.match(argument):
            result += ["-s", argument]
        else:
            result.append(argument)
            if awaits_value(name, with_value) and (value := next(rest, None)) is not None:
                result.append(value)
    return result


def awaits_value(argument: str, with_value: set[str]) -> bool:
    """Whether the next argument is the value of this option, as of `--set`, `-s`, or `-qs`, which are two options."""
    if argument.startswith("--") or not argument.startswith("-"):
        return argument in with_value
    first = next((place for place, letter in enumerate(argument) if f"-{letter}" in with_value), None)
    return first == len(argument) - 1


def full_key(key: str) -> str:
    """The dotted key that a short one means: learning_rate -> train.optim.learning_rate.

    A key that already names its section is returned as it is. Raises UserError for a short key that is unknown, or that
    several sections have.
    """
    from core.nanogpt_keys import ANSWERS
    from core.roles import known_keys

    if key.startswith("stages.") and key.count(".") > 1:
        _, stage, own = key.split(".", 2)
        return f"stages.{stage}.{full_key(own)}"
    keys = list(known_keys())
    section = key.partition(".")[0]
    meant = [known for known in keys if known.endswith(f".{key}")]
    # Keys of an objective are named in full: temperature is that of sampling.
    meant = [known for known in meant if not known.startswith("train.objective.")] or meant
    tables = [known for known in keys if known.endswith(f".{section}")]  # such as columns, of prepare.columns
    if "." in key and len(tables) == 1:
        return f"{tables[0]}{key.removeprefix(section)}"
    if any(known.startswith(f"{section}.") for known in keys) or ("." in key and not meant):
        return key  # if it is wrong, the check of the config says where it belongs
    if len(meant) > 1:
        raise UserError(f"'{key}' is in several sections", place=f"`{key}`", remedy=f"Write {' or '.join(meant)}.")
    if not meant:
        names = {known.rpartition(".")[2] for known in keys}
        raise UserError(
            f"unknown key '{key}'",
            place=f"`{key}`",
            remedy=ANSWERS.get(key)
            or f"{did_you_mean(key, names) if near(key, names) else ''} "
            f"A parameter of documents() is set as prepare.params.{key}.".strip(),
        )
    return meant[0]


def near(key: str, names: set[str]) -> bool:
    """Whether a name is like the key."""
    return did_you_mean(key, names).startswith("Did you mean")


def full_override(text: str) -> str:
    """`key=value` with the full key. Text without a key is returned as it is, for the error that names it."""
    key, equals, value = text.partition("=")
    return f"{full_key(key.strip())}={value}" if equals and BARE.fullmatch(f"{key.strip()}=") else text


def full_overrides(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The callback of `-s`: the values with full keys."""
    return tuple(full_override(value) for value in values)
