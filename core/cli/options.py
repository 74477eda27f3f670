"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from core.cli.lab import Lab

F = TypeVar("F", bound=Callable[..., Any])


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one, the first outermost."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


experiment = click.argument("experiment", metavar="EXP")
run = click.option("--run", "name", metavar="NAME", help="Name of the run.  [default: the variant's name, or default]")
as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output on stdout.")
force = click.option("--force", is_flag=True, help="Make the dataset even if it is current.")
settings = together(
    click.option("-s", "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Set one key of the config, such as train.optim.learning_rate=3e-4. Repeatable."),
    click.option("--variant", metavar="NAME", default="", help="Lay config.NAME.toml over config.toml."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
)  # fmt: skip
training = together(
    run,
    click.option(
        "--resume", is_flag=True, help="Go on with the run; schedule and runtime may differ from what it began with."
    ),
    click.option(
        "--exact", is_flag=True, help="Resume bit for bit as an unbroken run, or not at all: refuse another machine."
    ),
    click.option("--fresh", is_flag=True, help="Start again; a run of this name is kept under another one."),
    click.option("--description", metavar="TEXT", default="", help="What the run is to find out; kept with it."),
)
sampling = together(
    click.option("--start", metavar="TEXT|FILE:path", help="Text to continue.  [default: held-out prompts, or a line break]"),
    click.option("--num-samples", metavar="N", type=click.IntRange(min=1), help="Texts to draw."),
    click.option("--max-new-tokens", metavar="N", type=click.IntRange(min=1), help="Tokens per text at most."),
    click.option("--temperature", metavar="T", type=click.FloatRange(min=0), help="0 is greedy."),
    click.option("--top-k", metavar="K", type=click.IntRange(min=0), help="Draw from the K likeliest tokens."),
    click.option("--top-p", metavar="P", type=click.FloatRange(min=0, max=1, min_open=True), help="Draw from the likeliest tokens of total probability P."),
    click.option("--seed", metavar="S", type=click.IntRange(min=0), help="Seed of the random draws."),
)  # fmt: skip


def open_lab(experiment: str, overrides: tuple[str, ...], variant: str, quiet: bool, *, as_json: bool = False) -> Lab:
    """The experiment with its settings, ready to work on."""
    from core.cli.console import Console
    from core.cli.lab import Lab

    return Lab.open(experiment, variant, overrides, Console(quiet=quiet, json=as_json))
