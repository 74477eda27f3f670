"""Arguments and options shared by several commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from core.cli import completion
from core.cli.launched import words_of_team
from core.cli.overrides import full_overrides
from core.files import json_text
from core.private import command_line
from core.process import Program

if TYPE_CHECKING:
    from core.cli.console import Console
    from core.lab.opened import Opened

F = TypeVar("F", bound=Callable[..., Any])


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Combine decorators into one, the first outermost."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


experiment = click.argument("experiment", metavar="EXP", shell_complete=completion.experiments)
run = click.option("--run", "name", metavar="NAME", shell_complete=completion.runs, help="Name of the run.  [default: the variant's name, or default]")  # fmt: skip
stage = click.option("--stage", metavar="NAME", default="", shell_complete=completion.stages, help="Only this stage of [[stages]].")  # fmt: skip
checkpoint = click.option("--checkpoint", metavar="best|last|STEP", default="best", show_default=True, help="Which one; STEP: one that train.runtime.keep_checkpoints has kept.")  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output on stdout.")
rows_as_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON on stdout: a line for each row of figures as it comes, and one for the end; with --quiet only that.",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
force = click.option("--force", is_flag=True, help="Make the dataset even if it is current.")
settings = together(
    click.option("-s", "--set", "overrides", metavar="KEY=VALUE", multiple=True, callback=full_overrides, shell_complete=completion.keys, help="Set one config key, such as train.optim.learning_rate=3e-4, or learning_rate=3e-4 if only one section has it. -s may be left out. Repeatable."),
    click.option("--variant", metavar="NAME", default="", shell_complete=completion.variants, help="Apply config.NAME.toml on top of config.toml."),
    quiet,
)  # fmt: skip
training = together(
    run,
    stage,
    click.option(
        "--resume", is_flag=True, help="Continue the run, even if schedule and runtime settings have changed."
    ),
    click.option("--exact", is_flag=True, help="Fail if a resume would not be bit-exact, as on another machine."),
    click.option("--fresh", is_flag=True, help="Start again. An old run of this name is renamed."),
    click.option("--description", metavar="TEXT", default="", help="The question behind the run, stored with it."),
)
sampling = together(
    click.option("--start", metavar="TEXT|FILE:path", help="Text to continue.  [default: held-out prompts, or a line break]"),
    click.option("--num-samples", metavar="N", type=click.IntRange(min=1), help="Number of texts to draw."),
    click.option("--max-new-tokens", metavar="N", type=click.IntRange(min=1), help="Maximum length of a text, tokens."),
    click.option("--temperature", metavar="T", type=click.FloatRange(min=0), help="Sampling temperature; 0 is greedy."),
    click.option("--top-k", metavar="K", type=click.IntRange(min=0), help="Draw from the K likeliest tokens."),
    click.option("--top-p", metavar="P", type=click.FloatRange(min=0, max=1, min_open=True), help="Draw from the likeliest tokens with total probability P."),
    click.option("--seed", metavar="S", type=click.IntRange(min=0), help="Seed of the random draws."),
)  # fmt: skip


def opened(
    experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, *, as_json: bool = False
) -> tuple[Opened, Console]:
    """Open an experiment, with the terminal as its listener."""
    from core.cli.console import Console
    from core.lab.opened import open_folder

    console = Console(quiet=quiet, json=as_json)
    click.get_current_context().call_on_close(console.close)
    return open_folder(experiment, variant, overrides, console), console


def refuse_together(option: str, others: Mapping[str, Any]) -> None:
    """Raise UserError if one of the other options is given. others: option -> its value."""
    from core.errors import UserError

    for other, value in others.items():
        if value:
            raise UserError(f"{option} and {other} exclude each other", place=other, remedy="Leave one of them out.")


def say_json(value: Any, *, line: bool = False) -> None:
    """Write one JSON value to stdout. line: on one line, behind those of rows."""
    click.echo(json_text(value, indent=None if line else 2))


# What the keys after -s can change in a trained run. The others were decided when it was trained.
SHOWN = ("sample.", "train.model.", "train.runtime.out_dir", "prepare.dataset_dir")
EFFECTIVE = {
    "evaluate": ("evaluate.", "sample.runtime.", "train.model.", "train.data.", "train.runtime.out_dir", "prepare.dataset_dir"),
    **dict.fromkeys(("chat", "look", "serve", "sample"), SHOWN),
}  # fmt: skip


def tell_of_no_effect(command: str, overrides: Sequence[str]) -> None:
    """Warn of each override that a command on a trained run does not use."""
    for text in overrides:
        if not text.strip().startswith(EFFECTIVE[command]):
            more = "; to draw answers, give --temperature" if text.startswith("sample.sample.temperature") else ""
            click.echo(f"warning: -s {text} has no effect on {command}{more}", err=True)


def this_command() -> str:
    """The command line of this process, or of its team."""
    return command_line([*words_of_team(), *sys.argv[1:]])


def train_command(
    opened: Opened, name: str | None, more: Sequence[str] = (), stage: str = "", command: str = "train"
) -> str:
    """The command that trains or resumes a run, on as many processes as this one. more: overrides besides those of the experiment. stage: only this one.

    command: train, or loop.
    """
    run = name or opened.default_run
    options = [
        *(["--variant", opened.variant] if opened.variant else []),
        *(["--run", run] if run != opened.default_run else []),
        *(["--stage", stage] if stage else []),
        *(part for text in (*opened.overrides, *more) for part in ("-s", text)),
    ]
    named = opened.experiment.command.format(command).removeprefix(Program.name())
    return f"{command_line(words_of_team())}{named} {shlex.join(options)}".strip()
