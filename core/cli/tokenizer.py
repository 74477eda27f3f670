"""The command tokenizer: how well an experiment's encoder cuts text, beside others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from core.cli import completion, options

if TYPE_CHECKING:
    from core.lab.tokenizer import Measured


@click.command()
@options.experiment
@click.option(
    "--against",
    metavar="DIR|NAME",
    multiple=True,
    shell_complete=completion.experiments,
    help="Another encoder: a folder of a dataset or an experiment, an experiment's name, bytes or gpt2. Repeatable.",
)
@options.as_json
@options.settings
def tokenizer(
    experiment: str, against: tuple[str, ...], as_json: bool, overrides: tuple[str, ...], variant: str, quiet: bool
) -> None:
    """Measure an experiment's encoder on texts of several kinds.

    Bytes per token (more is shorter), tokens per word, the share of the vocabulary that the training side never uses, whether
    text comes back as it was, and speed. Makes the dataset if necessary.
    """
    from core.lab.tokenizer import measure_tokenizers

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    found = measure_tokenizers(opened, against)
    console.say("\n".join(lines(found)))
    if as_json:
        options.say_json({"experiment": experiment, "encoders": [asdict(each) for each in found]})


def lines(found: Sequence[Measured]) -> list[str]:
    """A table with a column for each encoder, and what some cannot encode."""
    from core.report.tables import Table, as_text

    categories = list(dict.fromkeys(name for each in found for name in (*each.bytes_per_token, *each.cannot)))
    rows = [["kind", *(each.kind for each in found)], ["vocabulary", *(f"{each.vocab_size:,}" for each in found)]]
    for title, values in (("bytes per token", "bytes_per_token"), ("tokens per word", "tokens_per_word")):
        rows.append([title, *("" for _ in found)])
        for category in categories:
            figures = [getattr(each, values).get(category) for each in found]
            known = [figure for figure in figures if figure is not None]
            best = max(known, default=0) if values == "bytes_per_token" else min(known, default=0)
            rows.append([f"  {category}", *(cell(figure, best, len(found)) for figure in figures)])
    rows.append(["never used", *("" if each.unused is None else f"{each.unused:.1%}" for each in found)])
    rows.append(["text comes back", *("exactly" if each.exact else "changed" for each in found)])
    speeds = [each.megabytes_per_second for each in found]
    rows.append(["speed, MB/s", *("" if speed is None else f"{speed:.1f}" for speed in speeds)])
    shown = as_text(Table(["", *(each.name for each in found)], rows)).splitlines()
    notes = [f"{each.name} cannot encode {name}: {why}" for each in found for name, why in each.cannot.items()]
    if len(found) > 1:
        notes.insert(0, "*: the best of a row.")
    return [*shown, *([""] if notes else []), *notes]


def cell(figure: float | None, best: float, columns: int) -> str:
    """A figure; the best of several with a star."""
    if figure is None:
        return "-"
    return f"{figure:.2f}" + ("*" if columns > 1 and figure == best else " " * (columns > 1))


COMMANDS = (tokenizer,)
