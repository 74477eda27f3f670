"""The command serve: models on the web, for browsers and for clients of OpenAI's API."""

from __future__ import annotations

import click

from core.cli import completion, options


@click.command()
@click.argument("names", metavar="[EXP[/RUN]]...", nargs=-1, shell_complete=completion.groups)
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
    help="What clients must send as `Authorization: Bearer TEXT`.  [default: a random one where other machines reach the server]",
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
@options.as_json
@options.settings
def serve(
    names: tuple[str, ...],
    host: str,
    port: int,
    token: str,
    hosts: tuple[str, ...],
    concurrency: int,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Serve models on the web: a chat page, and an API that clients of OpenAI's understand.

    EXP is the experiment's run `default`, EXP/RUN another one. Without names, every experiment that has a run `default`.
    Ctrl-C ends the server. --json writes its address, its token and its models when it listens.
    """
    from core.cli.console import Console
    from core.errors import UserError

    try:
        from core.serve.limits import Limits
        from core.serve.models import open_models
        from core.serve.server import Address
        from core.serve.server import serve as answer_requests
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        remedy = "Install it: pip install 'terrarium-lab[serve]'"
        raise UserError(f"serve needs the package {error.name}, which is not installed", remedy=remedy) from None

    console = Console(quiet=quiet, json=as_json)
    limits = Limits(rows=concurrency)
    options.tell_of_no_effect("serve", overrides)
    shelf = open_models(names, variant, overrides, limits, console)

    def say(url: str) -> None:
        console.say(f"models: {', '.join(served.title for served in shelf.models)}")
        console.say(f"open {url} (Ctrl-C ends)")
        if as_json:
            address, _, found = url.partition("#token=")
            told = {"url": address, "token": found or None, "models": [served.name for served in shelf.models]}
            options.say_json(told)

    number = answer_requests(shelf, Address(host, port, hosts), token, limits, say)
    console.say("stopped")
    click.get_current_context().exit(128 + number)


COMMANDS = (serve,)
