"""The command line. Every command registers through the hook that plugins use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.plugins import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def register_commands(cli: click.Group) -> None:
    """The commands that come with Terrarium. Those of a package that was taken out are left out."""
    from core.cli import check, compare, experiments, fit, nanogpt, report, runs, train, trained
    from core.plugins.manager import built_in

    modules = [train, trained, compare, report, runs, experiments, check, fit, nanogpt]
    if "core.sweeps" in built_in():
        from core.cli import sweep

        modules.insert(1, sweep)
    if "core.bench" in built_in():
        from core.cli import bench

        modules.append(bench)
    for module in modules:
        for command in module.COMMANDS:
            cli.add_command(command)
