"""Write docs/reference from the code: the commands' --help, the Python API, the typed config, the hook specifications."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

import core
from core.cli.main import cli
from core.config import ROLES, Config
from core.defaults import OPTIMIZERS, PRESETS
from core.plugins import hookspecs
from core.plugins.manager import HOOKS

REFERENCE = Path(__file__).parent / "reference"


def pages() -> dict[str, str]:
    """File name -> content of every generated page."""
    schema = json.dumps(Config.model_json_schema(), indent=2) + "\n"
    return {
        "cli.md": cli_page(),
        "api.md": api_page(),
        "config.md": config_page(),
        "hooks.md": hooks_page(),
        "config.schema.json": schema,
    }


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


API = """# Python API

Everything here comes from `core`: `from core import open_experiment`. Importing `core` is cheap; torch is imported when
something is computed. [Work in a notebook](../how-to/notebook.md) shows how it is used.

```python
from core import open_experiment, train_model, train_models, compare_experiments

exp = open_experiment("insert_spaces", {"train.model.n_embd": 64})
data = exp.prepare()
run = exp.train("wide", seed=1, on_row=print)
run.summary["best_val_loss"], run.metrics[-1]
model = run.load()
model.evaluate()["val_accuracy"]
model.complete(["cab: "], temperature=0)
for piece in model.stream("cab: "):
    print(piece, end="")

metrics, checkpoint_dir = train_model({"experiment": "insert_spaces", "train.model.kind": "lstm", "run": "lstm"})
runs = train_models({"experiment": "insert_spaces"}, seeds=[0, 13], jobs=2)
compare_experiments([run.folder, *(each.folder for each in runs)], output_path="comparison.png")
```

Mistakes raise `UserError`, which says where, what and what to do. A run that could not go on raises `RunFailed`, and Ctrl-C
raises `Interrupted` when the run is saved.
"""


def api_page() -> str:
    """Every public function and class with its signature and docstring."""
    from core.lab.api import Page
    from core.lab.comparing import Compared

    functions = [core.open_experiment, core.train_model, core.train_models, core.compare_experiments]
    classes = [core.OpenExperiment, core.TrainedRun, core.LoadedModel, core.Dataset, Compared, Page, core.Tracker, core.Listener, core.Example, core.Conversation, core.Message]  # fmt: skip
    parts = [API, *map(function_entry, functions), *map(class_entry, classes)]
    return "\n".join(parts)


# Members that other parts of core use, and users need not.
INTERNAL = {
    "heard",
    "call",
    "opened",
    "closing",
    "mistakes",
    "evaluation",
    "decoding",
    "make_folder",
    "opening",
    "latest",
    "refuse_closed",
    "config",
}


# Fields of dataclasses that have no sentence in their class's docstring.
FIELDS = {
    "train": "The training side, a Split; `tokens` is its length.",
    "val": "The validation side, a Split.",
    "encoder": "Text to ids and back.",
    "folder": "The folder.",
    "files": "What was written, by name.",
    "path": "The page's file.",
}


def function_entry(function: Any, owner: str = "") -> str:
    """One function or method: signature and docstring."""
    signature = re.sub(r"(: |-> )'([^']+)'", r"\1\2", str(inspect.signature(function)))  # annotations are strings
    signature = signature.replace("(self, ", "(").replace("(self)", "()")
    level, name = ("###", f"{owner}.{function.__name__}") if owner else ("##", function.__name__)
    return f"{level} {name}\n\n```text\n{name}{signature}\n```\n\n{inspect.getdoc(function)}\n"


def class_entry(kind: type) -> str:
    """One class: docstring, properties, methods."""
    parts = [f"## {kind.__name__}\n\n{inspect.getdoc(kind)}\n"]
    members = {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("_") and name not in INTERNAL and inspect.getdoc(value)
    }
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    described = [f"- `{name}`: {FIELDS[name]}" for name in names if name in FIELDS and kind is not core.Tracker]
    described += [
        f"- `{name}`: {(inspect.getdoc(value) or '').splitlines()[0]}"
        for name, value in members.items()
        if isinstance(value, (property, functools.cached_property))
    ]
    parts += [*described, *([""] if described else [])]
    parts += [function_entry(value, kind.__name__) for value in members.values() if inspect.isfunction(value)]
    return "\n".join(parts)


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
        "as the description or the table of presets says.\n\nThe role of a key says what depends on it:\n\n",
        *(f"- {role}: {meaning}.\n" for role, meaning in ROLES.items()),
    ]
    for name, model in sections(Config):
        schema = model.model_json_schema()["properties"]
        parts.append(
            f"\n## [{name}]\n\n{inspect.getdoc(model)}\n\n| key | type | default | role | meaning |\n| --- | --- | --- | --- | --- |\n"
        )
        for key, info in model.model_fields.items():
            meaning = (info.description or "").replace("|", "\\|")
            default = info.get_default(call_default_factory=True)
            parts.append(
                f"| `{key}` | {kind(schema[key])} | {'-' if default is None else f'`{json.dumps(default)}`'} "
                f"| {schema[key]['role']} | {meaning} |\n"
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
