"""The command fit: propose a model size for a given training time."""

from __future__ import annotations

from dataclasses import asdict

import click

from core.cli import options


@click.command()
@options.experiment
@click.option(
    "--minutes",
    metavar="M",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Time for training, minutes.",
)
@options.as_json
@options.settings
def fit(experiment: str, minutes: float, as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool) -> None:
    """Propose a model size and a number of steps for a time budget.

    Times the training step of EXP at several widths on this machine, with the layers and batch of its config. Proposes
    the width with the best number of training tokens per parameter in that time.
    """
    from core.errors import UserError
    from core.lab.assemble import refuse_unknown
    from core.lab.fit import best, fits, refuse_other_models, stopwatch
    from core.lab.opened import prepared

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    refuse_other_models(opened)
    refuse_unknown(opened)
    opened, dataset = prepared(opened)
    found, train = [], opened.config.train
    console.say(row("n_embd", "n_head", "parameters", "ms/step", "steps", "tokens", "tokens/param"))
    for size in fits(60 * minutes, train.data.tokens_per_step, stopwatch(opened, dataset, minutes)):
        found.append(size)
        console.say(
            row(f"{size.n_embd}", f"{size.n_head}", f"{size.parameters:,}", f"{1000 * size.seconds:.1f}",
                f"{size.steps:,}", f"{size.tokens:,}", f"{size.tokens_per_parameter:.2f}")
        )  # fmt: skip
    chosen = best(found)
    if chosen is None:
        raise UserError(
            f"{span(minutes)} {'is' if minutes == 1 else 'are'} not enough for {train.model.n_layer} layers of any width",
            place=f"--minutes {minutes:g}",
            remedy="Give more time, or lower train.model.n_layer, train.data.batch_size or train.data.block_size.",
        )
    settings = [
        f"train.model.n_embd={chosen.n_embd}", f"train.model.n_head={chosen.n_head}", f"train.runtime.max_minutes={minutes:g}",
    ]  # fmt: skip
    command = options.train_command(opened, f"fit-{minutes:g}-minutes", settings)
    console.say(f"\nFor {span(minutes)}, a width of {chosen.n_embd} (about {chosen.steps:,} steps):\n  {command}")
    if as_json:
        result = {"minutes": minutes, "best": asdict(chosen), "sizes": [asdict(f) for f in found], "set": settings}
        options.say_json(result)


def span(minutes: float) -> str:
    """`1 minute`, `2.5 minutes`."""
    return f"{minutes:g} minute{'s' * (minutes != 1)}"


def row(*cells: str) -> str:
    """A line of the table."""
    return "".join(cell.rjust(14) for cell in cells)


COMMANDS = (fit,)
