"""The commands list, new, init and plugins. They import neither experiments nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from core.cli import completion, options
from core.cli.console import Console
from core.errors import UserError
from core.lab.making import make_experiment, make_home
from core.lab.places import places
from core.plugins.discovery import Experiment, discover, examples, home, summary
from core.plugins.manager import KINDS, plugins
from core.process import Program
from core.report.tables import Table, as_text, shown
from core.tracking.figures import share_text
from core.tracking.run import read_summary, run_folders


@click.command("list")
@options.as_json
@options.quiet
def list_experiments(*, as_json: bool, quiet: bool) -> None:
    """List experiments: a summary, whether the data is prepared, the number of runs, exact match and loss of the best one.

    The best run has the most exact answers; ties, and running text, go to the lower validation loss.
    """
    rows, say = [account(experiment) for experiment in discover()], Console(quiet=quiet).say
    if as_json:
        options.say_json(rows)
    elif rows:
        exact = [
            row | {"best_exact": None if (share := row["best_accuracy"]) is None else share_text(share)} for row in rows
        ]
        say(listed(["name", "prepared", "runs", "best_exact", "best_loss", "summary"], exact))
    else:
        say(f"No experiments in {home()}. An experiment is a folder with a config.toml or a prepare.py.")
        say(f"Make one: {Program.name()} new NAME")
        say(f"Copy one: {Program.name()} new NAME --from {'|'.join(found.name for found in examples())}")


def account(experiment: Experiment) -> dict[str, Any]:
    """One experiment for `list`. Its config is not checked, so a broken experiment does not break the list."""
    row: dict[str, Any] = {"name": experiment.name, "summary": summary(experiment), "path": str(experiment.folder)}
    try:
        dataset, out = places(experiment)
        summaries = [read_summary(folder) for folder in run_folders(experiment, out)]
        measured = [found for found in summaries if found.get("best_val_loss") is not None]
        best = max(measured, key=lambda found: (found.get("accuracy") or 0.0, -found["best_val_loss"]), default={})
    except (UserError, ValueError, AttributeError, TypeError, OSError):
        problem = f"config.toml or a summary.json cannot be read; `{experiment.command.format('runs')}` says why"
        return row | {"summary": problem, "prepared": False, "runs": 0, "best_accuracy": None, "best_loss": None}
    prepared = any(  # with stages, each has a folder of its own
        (folder / "train.bin").is_file() for folder in (dataset, experiment.folder, *dataset.glob("*/"))
    )
    figures = {"best_accuracy": best.get("accuracy"), "best_loss": best.get("best_val_loss")}
    return row | {"prepared": prepared, "runs": len(summaries), **figures}


@click.command()
@click.argument("name")
@click.option(
    "--from",
    "source",
    metavar="EXP",
    default="",
    shell_complete=completion.sources,
    help="Copy this experiment.  [default: a template]",
)
@options.as_json
@options.quiet
def new(name: str, source: str, *, as_json: bool, quiet: bool) -> None:
    """Make an experiment: from a template that runs as it is, or by copying another one's source files.

    EXP may also be one of the experiments that come with Terrarium.
    """
    made, original = make_experiment(name, source)
    say = Console(quiet=quiet).say
    if as_json:
        options.say_json({"experiment": made.name, "folder": str(made.folder)})
        return
    say(f"{made.folder} is a copy of {original.name}." if original else f"{made.folder} is ready to run.")
    say(f"Edit its prepare.py and config.toml, then: {made.command.format('loop')}")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@options.as_json
@options.quiet
def init(folder: Path, *, as_json: bool, quiet: bool) -> None:
    """Make a folder `experiments` in FOLDER, or in the current folder.

    Commands that run there, or in a folder below, look for experiments in it and write into it. Its .gitignore keeps
    datasets and runs out of git.
    """
    experiments = folder.absolute() / "experiments"
    made = make_home(experiments)
    if as_json:
        options.say_json({"folder": str(experiments), "made": made})
        return
    word = "ready" if made else "there already"
    Console(quiet=quiet).say(f"{experiments} is {word}. Make an experiment: {Program.name()} new NAME")


@click.command("plugins")
@options.as_json
@options.quiet
@click.pass_context
def list_plugins(context: click.Context, *, as_json: bool, quiet: bool) -> None:
    """List what is registered, and by which package."""
    found = plugins()
    rows = [
        {"kind": kind[:-1], "name": name, "package": package}
        for kind in KINDS
        for name, (_, package) in found.registered(kind).items()
    ]
    group = context.find_root().command
    assert isinstance(group, click.Group)
    rows += [
        {"kind": "command", "name": name, "package": found.package_of(command.callback)}
        for name, command in group.commands.items()
    ]
    rows += [
        {"kind": "experiment", "name": entry.name, "package": found.package_offering(entry.folder)}
        for entry in discover()
    ]
    if as_json:
        options.say_json(rows)
        return
    say = Console(quiet=quiet).say
    say(listed(["kind", "name", "package"], rows))
    for plugin in found.failures():
        say(f"skipped: plugin '{plugin.name}' of {plugin.package}: {plugin.error}")


def listed(columns: list[str], rows: list[dict[str, Any]]) -> str:
    """A table of some columns of rows."""
    return as_text(Table(columns, [[shown(row.get(column)) for column in columns] for row in rows]))


COMMANDS = (list_experiments, new, init, list_plugins)
