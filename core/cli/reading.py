"""A command line in its parts, read by the rules of the commands themselves: for the live view, which starts and repeats commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from core.errors import UserError
from core.serve.live.words import CommandParts


def read_command(group: click.Group, words: Sequence[str], *, check: bool = False) -> CommandParts:
    """The parts of a command. words: those after the program's own.

    check: refuse what the command refuses before it does anything, and say what its run or its sweep is called. Raises UserError.
    """
    root = click.Context(group, **group.context_settings)
    try:
        name, command, rest = group.resolve_command(root, list(words))
        assert command is not None
        parser = command.make_parser(click.Context(command, info_name=name, parent=root))
        given, more, order = parser.parse_args(list(rest))
        if more or any(option not in command.params for option in order):  # --help
            raise UserError(f"{more[0] if more else '--help'} has no meaning here")
        params = command.make_context(name, list(rest), parent=root).params if check else {}
    except click.UsageError as error:
        raise UserError(error.format_message()) from None
    options = {long_name(option): given[option.name] for option in order if isinstance(option, click.Option)}
    settings = options.pop("set", [])
    return CommandParts(str(name), options, settings, made_by(str(name), params) if check else "")


def long_name(option: click.Option) -> str:
    """The name of an option without its dashes."""
    return max(option.opts, key=len).removeprefix("--")


def made_by(command: str, params: Mapping[str, Any]) -> str:
    """What the run or the sweep that a command makes is called; the study, where it makes several sweeps."""
    if command == "sweep":
        from core.cli.sweep import space_of
        from core.sweeps.plan import default_name

        if params["study"]:
            return str(params["study"])
        space = space_of(params)
        return params["name"] or default_name(space, params["variant"], params["halving"])
    from core.lab.opened import run_of_variant

    return params["name"] or run_of_variant(params["variant"])
