"""The command completion: a script that makes Tab complete what is typed."""

from __future__ import annotations

import click

from core.cli import options

PROGRAM = "terrarium"  # the installed script; a shell cannot complete `python -m core.cli`
# What click's scripts leave out. bash: names with blanks are quoted. bash and zsh: no space comes behind KEY=, as in fish.
MENDED = {
    "bash": {
        "COMPREPLY+=($value)": 'COMPREPLY+=("$(printf %q "$value")")',
        "\n    return 0\n": '\n    [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace\n    return 0\n',
    },
    "zsh": {
        "compadd -U -V unsorted -a completions": "compadd -U -V unsorted -S '' -- ${(M)completions:#*=}\n"
        "        compadd -U -V unsorted -- ${completions:#*=}",
    },
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@options.as_json
@options.quiet
def completion(shell: str, *, as_json: bool, quiet: bool) -> None:
    """Print a script that makes Tab complete commands, options, experiments, runs and keys of `terrarium`.

    \b
    bash, in ~/.bashrc:   eval "$(terrarium completion bash)"
    zsh, in ~/.zshrc:     eval "$(terrarium completion zsh)"
    fish:                 terrarium completion fish > ~/.config/fish/completions/terrarium.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    script = found(
        click.get_current_context().find_root().command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE"
    ).source()
    for given, better in MENDED.get(shell, {}).items():
        script = script.replace(given, better)
    if as_json:
        options.say_json({"shell": shell, "script": script})
    elif not quiet:
        click.echo(script)


COMMANDS = (completion,)
