"""The commands evaluate and sample."""

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
    """Evaluate a run on the whole validation side: loss, bits per byte and exact match."""
    from core.lab.evaluating import evaluate as evaluate_model
    from core.lab.model import load_model

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    metrics = evaluate_model(load_model(opened, name))
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
    """Sample from a run: answers to held-out prompts with the truth, or running text."""
    from core.lab.model import load_model
    from core.lab.reporting import say_samples
    from core.lab.sampling import sample as draw

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    show = console.write if console.interactive else None
    samples = draw(load_model(opened, name), show=show, **choices)
    say_samples(console, samples, first_is_shown=show is not None)
    if as_json:
        values = [sample.as_dict() for sample in samples]
        found = {"experiment": experiment, "run": name or opened.default_run, "samples": values}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))


COMMANDS = (evaluate, sample)
