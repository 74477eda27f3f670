"""The command fit: which size of model to train in the minutes that there are."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from core.cli import options
from core.errors import UserError

if TYPE_CHECKING:
    from core.cli.lab import Lab

MEASURED_SECONDS = 0.6  # for each size


@click.command()
@options.experiment
@click.option(
    "--minutes",
    metavar="M",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Time for training.",
)
@options.as_json
@options.settings
def fit(experiment: str, minutes: float, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool) -> None:
    """Propose a model size and a number of steps for a budget in time.

    Times the real step of EXP at several widths on this machine, with the layers and the batch of its config, and names
    the width that sees the right number of tokens in that time.
    """
    from core.bench.fit import best, fits
    from core.cli.training import refuse_unknown

    lab = options.open_lab(experiment, overrides, variant, quiet, as_json=as_json)
    if lab.config.train.model.kind != "gpt" or hasattr(lab.code, "build_model"):
        raise UserError(
            f"fit knows the sizes of kind gpt only, and {lab.experiment.name} trains another model",
            place="train.model.kind",
            remedy="Measure it as it is: " + lab.experiment.command.format("bench"),
        )
    refuse_unknown(lab)
    found = []
    lab.console.say(row("n_embd", "n_head", "parameters", "ms/step", "steps", "tokens", "tokens/param"))
    for size in fits(60 * minutes, lab.config.train.data.tokens_per_step, stopwatch(lab, minutes)):
        found.append(size)
        lab.console.say(
            row(f"{size.n_embd}", f"{size.n_head}", f"{size.parameters:,}", f"{1000 * size.seconds:.1f}",
                f"{size.steps:,}", f"{size.tokens:,}", f"{size.tokens_per_parameter:.2f}")
        )  # fmt: skip
    chosen = best(found)
    if chosen is None:
        raise UserError(
            f"{minutes:g} minutes are too few for {lab.config.train.model.n_layer} layers of any width",
            place=f"--minutes {minutes:g}",
            remedy="Give more time, or lower train.model.n_layer, train.data.batch_size or train.data.block_size.",
        )
    settings = [
        f"train.model.n_embd={chosen.n_embd}", f"train.model.n_head={chosen.n_head}", f"train.runtime.max_minutes={minutes:g}",
    ]  # fmt: skip
    options_of_train = [
        *(["--variant", variant] if variant else []), "--run", f"fit-{minutes:g}-minutes",
        *(part for setting in (*overrides, *settings) for part in ("-s", setting)),
    ]  # fmt: skip
    command = f"{lab.experiment.command.format('train')} {shlex.join(options_of_train)}"
    lab.console.say(
        f"\nFor {minutes:g} minutes, a width of {chosen.n_embd} (about {chosen.steps:,} steps):\n  {command}"
    )
    if as_json:
        click.echo(
            json.dumps(
                {"minutes": minutes, "best": asdict(chosen), "sizes": [asdict(f) for f in found], "set": settings},
                indent=2,
            )
        )


def stopwatch(lab: Lab, minutes: float) -> Callable[[int, int], tuple[int, float]]:
    """What measures a width: parameters, and seconds of a step."""
    import torch

    from core.bench.training import step_speed
    from core.cli.settle import settle
    from core.data.batches import batch
    from core.models.build import parameter_count
    from core.toml import Settings, check, merge
    from core.tracking.run import Run
    from core.training.machine import model_on
    from core.training.optimizers import build_optimizer

    dataset = lab.prepare()

    def measure(n_embd: int, n_head: int) -> tuple[int, float]:
        settings = Settings()
        settings.lay(lab.settings)
        model_size, budget = {"n_embd": n_embd, "n_head": n_head}, {"max_minutes": minutes}
        merge(settings.values, {"train": {"model": model_size, "runtime": budget}})
        config = check(settings)
        machine = settle(Run(lab.experiment, "fit", config), dataset, lab.code).machine
        torch.manual_seed(config.train.runtime.seed)
        model = model_on(machine, config.train.model, dataset.encoder.vocab_size, lab.code)
        optimizer = build_optimizer(model, config.train.optim)
        figures = step_speed(
            model, optimizer, config.train, machine,
            lambda step: batch(dataset.train, config.train.data, config.train.runtime.seed, step), MEASURED_SECONDS,
        )  # fmt: skip
        return parameter_count(model), figures["ms_per_step"] / 1000

    return measure


def row(*cells: str) -> str:
    """Cells in columns."""
    return "".join(cell.rjust(14) for cell in cells)


COMMANDS = (fit,)
