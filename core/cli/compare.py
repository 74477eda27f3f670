"""The command compare: runs and groups of seeds side by side. It only reads run folders, so it does not need torch."""

from __future__ import annotations

from pathlib import Path

import click

from core.cli import completion, options

OUT = (
    "File to write: a plot (.png, .svg), or a table (.txt, .md, .csv, .tex, .json, .html) plus the plot."
    "  [default: compare.png in the folder of the runs]"
)


@click.command()
@click.argument("groups", metavar="EXP[/RUN]...", nargs=-1, required=True, shell_complete=completion.groups)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help=OUT)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "csv", "latex"]),
    default="text",
    show_default=True,
    help="Format of the printed table.",
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
    """Compare runs or groups of seeds: figures, curves, differences in settings, and whether the difference is real.

    EXP/RUN is one run. EXP/RUN,RUN and 'EXP/PATTERN*' are one group of seeds. EXP is the group of runs that differ from
    its run `default` only in their seed, or all its runs if they have the same settings. A single EXP compares all its
    settings. Each group is compared with the first one. Runs with the same seed are paired.
    """
    from core.cli.console import Console
    from core.lab.choosing import choose
    from core.lab.comparing import write_comparison
    from core.report.comparison import compare as compare_groups
    from core.report.comparison_forms import as_form, form_of

    if out:
        form_of(out)  # before anything is read
    chosen, folder = choose(groups, variant, overrides)
    found = compare_groups(chosen)
    places = write_comparison(found, out or folder / "compare.png")
    to_stderr = as_json or form != "text"  # stdout has only the table, to be piped
    if as_json or not quiet:
        click.echo(as_form(found, "json" if as_json else form))
    files = Console(quiet=quiet, json=to_stderr)
    files.write("" if to_stderr else "\n")
    for name, path in places.items():
        files.say(f"{name}: {path}")


COMMANDS = (compare,)
