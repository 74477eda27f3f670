"""The commands list, new and plugins. They import neither experiments nor torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import tomli

from core.cli import options
from core.errors import UserError
from core.plugins.discovery import Experiment, discover, find, home, summary
from core.plugins.manager import KINDS, plugins
from core.report.tables import Table, as_text, shown
from core.tracking.run import read_summary, run_folders

# What `new` does not copy: everything that commands have made.
MADE = ("datasets", "out", "EXPERIMENT_LOG.md", "__pycache__")


@click.command("list")
@options.as_json
def list_experiments(as_json: bool) -> None:
    """List experiments: a summary, whether the data is prepared, the number of runs and their best loss."""
    rows = [account(experiment) for experiment in discover()]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        click.echo(listed(["name", "prepared", "runs", "best_loss", "summary"], rows))
    else:
        click.echo(f"No experiments in {home()}. An experiment is a folder with a config.toml or a prepare.py.")


def account(experiment: Experiment) -> dict[str, Any]:
    """One experiment for `list`. Its config is not checked, so a broken experiment does not break the list."""
    row: dict[str, Any] = {"name": experiment.name, "summary": summary(experiment), "path": str(experiment.folder)}
    try:
        dataset, out = places(experiment)
        summaries = [read_summary(folder) for folder in run_folders(experiment, out)]
        losses = [found["best_val_loss"] for found in summaries if found.get("best_val_loss") is not None]
    except (UserError, ValueError, AttributeError, TypeError, OSError):
        problem = f"config.toml or a summary.json cannot be read; `{experiment.command.format('runs')}` says why"
        return row | {"summary": problem, "prepared": False, "runs": 0, "best_loss": None}
    prepared = any((folder / "train.bin").is_file() for folder in (dataset, experiment.folder))
    return row | {"prepared": prepared, "runs": len(summaries), "best_loss": min(losses, default=None)}


def places(experiment: Experiment) -> tuple[Path, Path]:
    """The folders of the dataset and of the runs, from config.toml."""
    path = experiment.folder / "config.toml"
    values = tomli.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    prepare = values.get("prepare", {})
    dataset = prepare.get("dataset_dir") or f"datasets/{prepare.get('variant', 'basic')}"
    out = values.get("train", {}).get("runtime", {}).get("out_dir") or "out"
    return experiment.path(dataset), experiment.path(out)


@click.command()
@click.argument("name")
@click.option(
    "--from", "source", metavar="EXPERIMENT", default="insert_spaces", show_default=True, help="The experiment to copy."
)
def new(name: str, source: str) -> None:
    """Create an experiment by copying another one's source files."""
    original = find(source)
    if Path(name).name != name or name.startswith((".", "_")):
        raise UserError(
            f"'{name}' is not a valid folder name",
            remedy="Use letters, digits and _. The folder is created in experiments/.",
        )
    target = home() / name
    if target.exists():
        raise UserError("this folder exists already", place=str(target), remedy="Choose another name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(original.folder, target, ignore=lambda folder, names: [entry for entry in names if entry in MADE])
    click.echo(
        f"{target} is a copy of {original.name}. Edit its prepare.py and config.toml, then: python -m core.cli loop {name}"
    )


@click.command("plugins")
@click.pass_context
def list_plugins(context: click.Context) -> None:
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
    click.echo(listed(["kind", "name", "package"], rows))
    for plugin in found.failures():
        click.echo(f"skipped: plugin '{plugin.name}' of {plugin.package}: {plugin.error}")


def listed(columns: list[str], rows: list[dict[str, Any]]) -> str:
    """A table of some columns of rows."""
    return as_text(Table(columns, [[shown(row.get(column)) for column in columns] for row in rows]))


COMMANDS = (list_experiments, new, list_plugins)
