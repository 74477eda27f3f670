"""The command check: data, n-gram baselines, cost and suspicious settings of an experiment, before training."""

from __future__ import annotations

import json

import click

from core.cli import options
from core.cli.account import across_lines, lines
from core.cli.status import may_colour


@click.command()
@options.experiment
@options.stage
@click.option("--no-timing", is_flag=True, help="Do not time any steps; leave out time and memory.")
@options.as_json
@options.settings
def check(
    experiment: str,
    stage: str,
    no_timing: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Check an experiment before training it.

    Shows the data (one conversation, if it has some), how much of the held-out sides also occurs in training, the loss of n-gram
    baselines, time and memory that the run will need (from five seconds of real steps), and suspicious settings. Makes the dataset
    if necessary. Changes no run. With stages, checks each, and counts held-out prompts of one in training data of another.
    """
    from core.lab.check import accounts_of, across_stages

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    accounts = accounts_of(opened, stage, timing=not no_timing)
    across = across_stages(opened) if opened.stages and not stage else []
    for name, account in accounts.items():
        console.say("\n".join([*([f"\nstage {name}"] if name else []), *lines(account, may_colour(console.stream))]))
    if across:
        console.say("\n".join(across_lines(across)))
    if as_json:
        click.echo(json.dumps({"stages": accounts, "across": across} if opened.stages else accounts[""], indent=2))


COMMANDS = (check,)
