"""The command tokenizer: how well an experiment's encoder cuts text, beside others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from core.cli import completion, options

if TYPE_CHECKING:
    from core.lab.tokenizer import Measured

WIDEST = 16  # characters of a column's name: five columns fit 80


@click.command()
@options.experiment
@click.option(
    "--against",
    metavar="DIR|NAME",
    multiple=True,
    shell_complete=completion.experiments,
    help="Another encoder: a folder of a dataset or an experiment, an experiment's name, bytes, gpt2, or a pretrained "
    "tokenizer (its folder, its tokenizer.json, a .gguf file). Repeatable.",
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
    for title, values, better in (
        ("bytes per token", "bytes_per_token", max),
        ("tokens per word", "tokens_per_word", min),
    ):
        rows.append([title, *("" for _ in found)])
        for category in categories:
            rows.append([f"  {category}", *cells([getattr(each, values).get(category) for each in found], better)])
    rows.append(["never used", *cells([each.unused for each in found], min, ".1%")])
    rows.append(["text comes back", *("exactly" if each.exact else "changed" for each in found)])
    rows.append(["speed, MB/s", *cells([each.megabytes_per_second for each in found], max, ".1f")])
    headings = [heading(each.name, number) for number, each in enumerate(found, start=1)]
    shown = as_text(Table(["", *headings], rows)).splitlines()
    notes = [f"{each.name} cannot encode {name}: {why}" for each in found for name, why in each.cannot.items()]
    notes += [f"{above}: {each.name}" for above, each in zip(headings, found, strict=True) if above != each.name]
    if any(cell.endswith("*") for row in rows for cell in row):
        notes.insert(0, "*: the best of a row.")
    return [*shown, *([""] if notes else []), *notes]


def cells(figures: Sequence[float | None], better: Callable[[Iterable[float]], float], form: str = ".2f") -> list[str]:
    """The figures of a row; the best of several with a star."""
    known = [figure for figure in figures if figure is not None]
    best = better(known) if len(known) > 1 else None
    room = " " * (len(figures) > 1)
    return ["-" if each is None else f"{each:{form}}" + ("*" if each == best else room) for each in figures]


def heading(name: str, number: int) -> str:
    """What stands above a column: a name that leaves room for the others, else a number."""
    return name if len(name) <= WIDEST else f"#{number}"


COMMANDS = (tokenizer,)
