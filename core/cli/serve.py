"""The command serve: the live view of runs, and models on the web, for browsers and for clients of OpenAI's API."""

from __future__ import annotations

from functools import partial

import click

from core.cli import completion, options


@click.command()
@click.argument("names", metavar="[EXP[/RUN] | DIR]...", nargs=-1, shell_complete=completion.served)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Any other than this machine's own needs a token.",
)
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--token",
    metavar="TEXT",
    default="",
    envvar="TERRARIUM_TOKEN",
    help="What clients must send as `Authorization: Bearer TEXT`.  [default: a random one, which the printed address has; on this machine alone only actions of the page need it, and models none]",
)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Another host name that clients may call the server by. Repeatable.",
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Answers that a model writes at once.",
)
@click.option("--read-only", is_flag=True, help="Only show: nothing can be started, stopped or changed from the page.")
@options.as_json
@options.settings
def serve(
    names: tuple[str, ...],
    host: str,
    port: int,
    token: str,
    hosts: tuple[str, ...],
    concurrency: int,
    read_only: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Show experiments and their runs in a browser, while they learn, and serve models to it and to clients of OpenAI's API.

    Without names the page shows every experiment; from it runs are started, stopped, compared and chatted with. DIR, a folder
    that holds experiments, shows those in it, and several of them on one page with a board. EXP is the experiment's run
    `default`, EXP/RUN another one: their models are opened at once, the chat page comes first, and /live has the runs.
    Ctrl-C ends the server, not the runs that were started from it. --json writes its address, its token and its models when
    it listens.
    """
    from core.cli.console import Console
    from core.errors import UserError
    from core.optional import installing

    try:
        from core.cli.reading import read_command
        from core.serve.limits import Limits
        from core.serve.server import Address
        from core.serve.server import serve as answer_requests
        from core.serve.setting_up import set_up
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        remedy = f"Install it: {installing('serve')}"
        raise UserError(f"serve needs the package {error.name}, which is not installed", remedy=remedy) from None

    console = Console(quiet=quiet, json=as_json)
    limits, address = Limits(rows=concurrency), Address(host, port, hosts)
    options.tell_of_no_effect("serve", overrides)
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    read = partial(read_command, group)
    site = set_up(names, variant, overrides, limits, address, token, console, read=read, read_only=read_only)

    def say(url: str) -> None:
        console.say(site.told)
        console.say(f"open {url} (Ctrl-C ends)")
        if as_json:
            found, _, shown = url.partition("#token=")
            options.say_json({"url": found, "token": shown or None, "models": site.models})

    number = answer_requests(site, address, limits, say)
    console.say("; ".join(filter(None, ("stopped", site.going_on()))))
    click.get_current_context().exit(128 + number)


COMMANDS = (serve,)
