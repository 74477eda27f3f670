"""The entry point: the group of commands, and how errors end the process (exit codes 0, 1, 2, 130 and 143)."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from core import process
from core.cli.completion import completing
from core.cli.console import Console
from core.cli.overrides import as_options
from core.cli.phrasing import phrased
from core.cli.status import may_colour
from core.exits import exit_of

process.spin_briefly()
process.hide_frames()
SHARED = ("train", "loop")  # commands that several processes share


class Commands(click.Group):
    """A group of commands. Commands of core and of plugins are added when they are first needed.

    An error prints one message and exits with 2 for the user's mistakes, 1 for a failed run, 130 for Ctrl-C, and 143 for
    SIGTERM.
    """

    filled = False

    def fill(self) -> None:
        """Add the commands of core, then those of plugins. A plugin that fails is skipped."""
        if self.filled:
            return
        self.filled = True
        from core.plugins.manager import plugins

        plugins().call_each("register_commands", cli=self)
        for plugin in plugins().failures():
            click.echo(f"warning: plugin '{plugin.name}' of {plugin.package} is skipped: {plugin.error}", err=True)

    def list_commands(self, context: click.Context) -> list[str]:
        self.fill()
        return list(self.commands)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        self.fill()
        return super().get_command(context, name)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments, with `-s` before each setting. Raises UsageError for an option given twice."""
        name, command, rest = super().resolve_command(context, args)
        if command is None:
            return name, command, rest
        rest = as_options(command, rest)
        refuse_repeated(command, click.Context(command, info_name=name, parent=context), rest)
        return name, completing(command) if context.resilient_parsing else command, rest

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run a command and exit. A bug keeps its traceback. Of the processes that torchrun starts, the first one does that."""
        arguments = list(sys.argv[1:] if args is None else args)
        if process.launch().rank:
            sys.exit(beside(next((word for word in arguments if not word.startswith("-")), "")))
        try:
            with process.owned(), process.ending_on_signals():
                code = super().main(args, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (Exception, KeyboardInterrupt) as error:
            ended = exit_of(KeyboardInterrupt() if isinstance(error, click.Abort) else error)
            if ended is None:
                raise
            red = ended.code == 2 and may_colour(sys.stderr)
            click.secho(phrased(ended.message), fg="red" if red else None, err=True)
            sys.exit(ended.code)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


def beside(command: str) -> int:
    """What a process beside the first one does for a command: help to train, or nothing. Returns the exit code."""
    if command not in SHARED:
        return 0
    from core.errors import RunFailed, UserError
    from core.lab.together import follow

    try:
        with process.owned():
            return follow()
    except (UserError, RunFailed) as error:
        click.echo(phrased(str(error)), err=True)
        return 1
    except KeyboardInterrupt:
        return 130


def underscores_too(name: str) -> str:
    """Accept --num_samples for --num-samples, as in nanoGPT."""
    return name.replace("_", "-")


@click.group(
    cls=Commands, context_settings={"token_normalize_func": underscores_too, "help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="terrarium-lab", prog_name="terrarium")
def cli() -> None:
    """A lab for small language models. An experiment is a folder, and these commands run it."""


def refuse_repeated(command: click.Command, context: click.Context, arguments: list[str]) -> None:
    """Raise UsageError for an option that is given twice and counts once."""
    given: list[click.Parameter] = []
    with contextlib.suppress(click.UsageError):  # it is raised again later
        given = command.make_parser(context).parse_args(list(arguments))[2]
    for option in given:
        once = isinstance(option, click.Option) and not (option.multiple or option.is_flag or option.count)
        if once and given.count(option) > 1:
            raise click.UsageError(f"{option.opts[-1]} is given more than once, and only one would count.", context)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning on one line, without its place in the code."""
    if Console.showing:
        Console.showing.above(f"warning: {message}", sys.stderr)
    else:
        click.echo(f"warning: {message}", err=True)


def main() -> None:
    """Entry point of `terrarium`."""
    warnings.showwarning = show_warning
    if Path(sys.argv[0]).stem == "terrarium":  # the installed script
        process.Program.words = ("terrarium",)
    cli(prog_name=process.Program.name())
