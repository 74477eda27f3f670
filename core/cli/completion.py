"""What the shell offers for experiments, runs and keys. click asks for it when Tab is pressed.

Experiments and runs are found without reading a config with pydantic, so that Tab answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from core.plugins.discovery import Experiment

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def silently(complete: Complete) -> Complete:
    """Offer nothing where something is wrong: a traceback would stand in the middle of the command that is typed."""

    def safe(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            return complete(context, parameter, incomplete)
        except Exception:
            return []

    return safe


def before(context: click.Context) -> Experiment:
    """The experiment that stands before."""
    from core.plugins.discovery import find

    # Behind an option without its value, click has not told arguments apart.
    return find(context.params.get("experiment") or context.args[0])


def beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """The names that begin so."""
    return [name for name in names if name.startswith(incomplete)]


@silently
def experiments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of experiments."""
    from core.plugins.discovery import discover

    return beginning(incomplete, (experiment.name for experiment in discover()))


@silently
def sources(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of experiments, those that come with Terrarium among them."""
    from core.plugins.discovery import discover, examples

    return beginning(incomplete, sorted({experiment.name for experiment in (*discover(), *examples())}))


@silently
def runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the runs of the experiment that stands before."""
    return beginning(incomplete, runs_of(before(context)))


@silently
def stages(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the stages of the experiment that stands before, and of the variant, if one does."""
    import tomli

    folder, variant = before(context).folder, context.params.get("variant")
    files = [*([folder / f"config.{variant}.toml"] if variant else []), folder / "config.toml"]
    found = (tomli.loads(path.read_text(encoding="utf-8")).get("stages") for path in files)
    return beginning(incomplete, (stage["name"] for stage in next(filter(None, found), [])))


@silently
def variants(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the variants of the experiment that stands before: config.NAME.toml."""
    return named(before(context), "config", incomplete)


@silently
def studies(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the studies of the experiment that stands before: study.NAME.toml."""
    return named(before(context), "study", incomplete)


def named(experiment: Experiment, kind: str, incomplete: str) -> list[str]:
    """The names of files KIND.NAME.toml."""
    return beginning(incomplete, sorted(path.name.split(".")[1] for path in experiment.folder.glob(f"{kind}.*.toml")))


@silently
def groups(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """EXP or EXP/RUN."""
    from core.plugins.discovery import find

    owner, slash, _ = incomplete.partition("/")
    if not slash:
        return experiments(context, parameter, incomplete)
    return beginning(incomplete, (f"{owner}/{name}" for name in runs_of(find(owner))))


def served(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """EXP or EXP/RUN, and folders, which the shell looks for."""
    names = groups(context, parameter, incomplete)
    return [CompletionItem(incomplete, type="dir"), *map(CompletionItem, names)]


@silently
def keys(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Dotted keys of config.toml, and short ones as soon as something is typed, each with a = behind it."""
    from core.roles import known_keys

    dotted = list(known_keys())
    names = [key.rpartition(".")[2] for key in dotted]
    short = [name for name in names if names.count(name) == 1] if incomplete else []
    return beginning(incomplete, (f"{key}=" for key in (*dotted, *short)))


class WithBareKeys(click.Command):
    """A command that also offers keys where nothing else is expected, because `-s` may be left out."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = keys(ctx, next(iter(self.params)), incomplete) if incomplete[:1].isalpha() else []
        return [*super().shell_complete(ctx, incomplete), *map(CompletionItem, found)]


def completing(command: click.Command) -> click.Command:
    """A command as Tab is to see it."""
    if isinstance(command, click.Group) or all(option.name != "overrides" for option in command.params):
        return command
    return WithBareKeys(command.name, command.context_settings, command.callback, command.params)


def runs_of(experiment: Experiment) -> list[str]:
    """Names of runs, and of runs with stages and their stages, without reading their summaries."""
    from core.lab.places import places
    from core.tracking.run import PIPELINE, name_of, stages_in

    out = places(experiment)[1]
    found = [path.parent.name for path in out.glob("*/summary.json")]
    for path in out.glob(f"*/{PIPELINE}"):
        found += [path.parent.name, *(name_of(stage.parent) for stage in stages_in(path.parent))]
    return sorted(name for name in found if not name.startswith("."))
