"""The command line. Its commands are registered through the same hook as those of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.plugins import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Terrarium's own commands. A command whose package was removed is left out."""
    from core.cli import (
        chat,
        check,
        compare,
        exchange,
        experiments,
        fit,
        report,
        runs,
        shell,
        tokenizer,
        train,
        trained,
    )
    from core.plugins.manager import built_in

    modules = [train, trained, chat, compare, report, runs, experiments, check, tokenizer, fit, exchange, shell]
    if "core.sweeps" in built_in():
        from core.cli import sweep

        modules.insert(1, sweep)
    if "core.bench" in built_in():
        from core.cli import bench

        modules.append(bench)
    if "core.look" in built_in():
        from core.cli import look

        modules.append(look)
    if "core.serve" in built_in():
        from core.cli import serve

        modules.insert(modules.index(chat) + 1, serve)
    for module in modules:
        for command in module.COMMANDS:
            cli.add_command(command)
