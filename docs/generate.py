"""Write docs/reference from the code: the commands' --help, the typed config, the hook specifications."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from core.cli.main import cli
from core.config import Config
from core.defaults import OPTIMIZERS, PRESETS
from core.plugins import hookspecs
from core.plugins.manager import HOOKS

REFERENCE = Path(__file__).parent / "reference"


def pages() -> dict[str, str]:
    """File name -> content of every generated page."""
    schema = json.dumps(Config.model_json_schema(), indent=2) + "\n"
    return {"cli.md": cli_page(), "config.md": config_page(), "hooks.md": hooks_page(), "config.schema.json": schema}


def cli_page() -> str:
    """Every command's --help."""
    parts = ["# Command line\n\n`python -m core.cli COMMAND`, or `terrarium COMMAND`.\n"]
    context = click.Context(cli, info_name="python -m core.cli", terminal_width=100, **cli.context_settings)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        if not command.callback.__module__.startswith("core."):
            continue  # a plugin that happens to be installed
        inner = click.Context(command, parent=context, info_name=name, terminal_width=100)
        parts.append(f"\n## {name}\n\n```text\n{command.get_help(inner)}\n```\n")
    return "".join(parts)


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Dotted name and type of every table that has keys of its own."""
    inner = {
        name: info.annotation
        for name, info in model.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    }
    if prefix and len(inner) < len(model.model_fields):
        yield prefix, model
    for name, table in inner.items():
        yield from sections(table, f"{prefix}.{name}".lstrip("."))


def config_page() -> str:
    """Every key with type, default and meaning; then what the presets mean."""
    parts = [
        "# config.toml\n\nEvery key is optional. Relative paths are relative to the experiment's folder. "
        "`-s section.key=value` sets one key for one command. A default of `-` follows from another key, "
        "as the description or the table of presets says.\n"
    ]
    for name, model in sections(Config):
        schema = model.model_json_schema()["properties"]
        parts.append(
            f"\n## [{name}]\n\n{inspect.getdoc(model)}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
        )
        for key, info in model.model_fields.items():
            meaning = (info.description or "").replace("|", "\\|")
            default = info.get_default(call_default_factory=True)
            parts.append(
                f"| `{key}` | {kind(schema[key])} | {'-' if default is None else f'`{json.dumps(default)}`'} | {meaning} |\n"
            )
    parts.append("\n## Presets\n\n`train.model.preset` sets these, where the config does not:\n\n")
    parts.append(table({name: preset["model"] | preset["optim"] for name, preset in PRESETS.items()}))
    parts.append("\n`train.optim.name` sets these, where the config does not:\n\n")
    parts.append(table({name: values["optim"] | values["schedule"] for name, values in OPTIMIZERS.items()}))
    return "".join(parts)


def kind(schema: dict[str, Any]) -> str:
    """A JSON schema's type in words."""
    if "anyOf" in schema:
        return " or ".join(kind(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    words = {
        "integer": "whole number",
        "number": "number",
        "boolean": "`true`, `false`",
        "string": "text",
        "array": "list",
        "object": "table",
    }
    return words[schema["type"]]


def table(columns: dict[str, dict[str, Any]]) -> str:
    """Named columns of keys and values as Markdown."""
    keys = list(dict.fromkeys(key for values in columns.values() for key in values))
    lines = [["key", *columns], ["---"] * (1 + len(columns))]
    lines += [
        [f"`{key}`", *(json.dumps(values[key]) if key in values else "-" for values in columns.values())]
        for key in keys
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def hooks_page() -> str:
    """Every hook with its signature and what it is for."""
    parts = [
        f"# Hooks\n\n{inspect.getdoc(hookspecs)}\n\nA package marks its functions with `core.hookimpl` and names its module in the entry "
        "point group `terrarium`; see [own plugin](../how-to/own-plugin.md). In a prepare.py a function is a hook by its name alone.\n"
    ]
    for name in HOOKS:
        hook = getattr(hookspecs, name)
        signature = str(inspect.signature(hook)).replace("'", "")  # annotations are strings
        parts.append(f"\n## {name}\n\n```python\ndef {name}{signature}\n```\n\n{inspect.getdoc(hook)}\n")
    return "".join(parts)


def main() -> None:
    """Write the pages."""
    REFERENCE.mkdir(exist_ok=True)
    for name, content in pages().items():
        (REFERENCE / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
