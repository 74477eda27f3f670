"""Commands that look at a trained run: evaluate, sample."""

from __future__ import annotations

import json
from typing import Any

import click

from core.cli import options


@click.command()
@options.experiment
@options.run
@options.as_json
@options.settings
def evaluate(
    experiment: str, name: str | None, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool
) -> None:
    """Loss, bits per byte and exact match of a run on the whole validation side."""
    from core.cli.trained import Work

    lab = options.open_lab(experiment, overrides, variant, quiet, as_json=as_json)
    metrics = Work.open(lab, name).evaluate()
    if as_json:
        click.echo(json.dumps(metrics, indent=2))


@click.command()
@options.experiment
@options.run
@options.sampling
@options.as_json
@options.settings
def sample(
    experiment: str,
    name: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
    **choices: Any,
) -> None:
    """Let a run write: answers to held-out prompts beside the truth, or running text."""
    from core.cli.trained import Work

    lab = options.open_lab(experiment, overrides, variant, quiet, as_json=as_json)
    samples = Work.open(lab, name).sample(**choices)
    if as_json:
        values = [sample.as_dict() for sample in samples]
        click.echo(
            json.dumps(
                {"experiment": experiment, "run": name or lab.default_run, "samples": values},
                indent=2,
                ensure_ascii=False,
            )
        )


COMMANDS = (evaluate, sample)
