"""The command compare: runs and groups of seeds side by side. It reads run folders alone, so it needs no torch."""

from __future__ import annotations

from pathlib import Path

import click

from core.cli import options

OUT = (
    "Where to write: a picture (.png, .svg), or a table (.txt, .md, .csv, .tex, .json, .html) with the picture beside it."
    "  [default: compare.png in the folder of runs]"
)


@click.command()
@click.argument("groups", metavar="EXP[/RUN]...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help=OUT)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "csv", "latex"]),
    default="text",
    show_default=True,
    help="Form of what is printed.",
)
@options.as_json
@options.settings
def compare(
    groups: tuple[str, ...],
    out: Path | None,
    form: str,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Compare runs, or groups of seeds: figures, curves, what differed, and whether the difference is real.

    EXP/RUN is that run. EXP/RUN,RUN and 'EXP/PATTERN*' are one group of seeds. EXP is the group of its run `default`, or
    of its only setting: the runs that differ in nothing but their seed. A single EXP compares all its settings.
    Each group is compared with the first one. Runs of one seed are paired.
    """
    from core.lab.choosing import choose
    from core.lab.comparing import write_comparison
    from core.report.comparison import compare as compare_groups
    from core.report.comparison_forms import as_form, form_of

    if out:
        form_of(out)  # before anything is read
    chosen, folder = choose(groups, variant, overrides)
    found = compare_groups(chosen)
    places = write_comparison(found, out or folder / "compare.png")
    click.echo(as_form(found, "json" if as_json else form))
    to_stderr = as_json or form != "text"  # stdout is for what goes on from there
    click.echo("" if to_stderr else "\n", nl=False)
    for name, path in places.items():
        click.echo(f"{name}: {path}", err=to_stderr)


COMMANDS = (compare,)
