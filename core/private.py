"""Write files that may be shared: paths in the user's home folder start with ~."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import files


def without_home(text: str) -> str:
    """Replace the user's home folder by ~ at the start of every path in a text."""
    for home in homes():
        text = re.sub(rf"(?<![\w./~-]){re.escape(home)}(?![\w.-])", "~", text)
    return text


def homes() -> list[str]:
    """The paths of the user's home folder, longest first. Empty if it is unknown or the root."""
    name = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises if there is none
    found = {str(Path(name)), str(Path(name).resolve())} if name != "~" else set()
    return sorted((home for home in found if len(Path(home).parts) > 1), key=len, reverse=True)


def write_text(path: Path, text: str) -> None:
    """`core.files.write_text`, without the home folder."""
    files.write_text(path, without_home(text))


def write_json(path: Path, value: Any) -> None:
    """`core.files.write_json`, without the home folder."""
    files.write_json(path, hidden(value))


def hidden(value: Any) -> Any:
    """Apply `without_home` to every string in a JSON value."""
    if isinstance(value, dict):
        return {key: hidden(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hidden(item) for item in value]
    return without_home(value) if isinstance(value, str) else value


def command_line(arguments: Sequence[str]) -> str:
    """A command that can be typed in a shell, without the home folder."""
    return " ".join(quoted(without_home(argument)) for argument in arguments)


def quoted(argument: str) -> str:
    """Quote an argument for a shell, but let the shell expand a ~ at its start."""
    return "~/" + shlex.quote(argument[2:]) if argument.startswith("~/") and argument[2:] else shlex.quote(argument)


def hide_home_in(path: Path) -> None:
    """Replace the home folder by ~ in an existing file. Does nothing if there is no file."""
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        if (changed := without_home(text)) != text:
            files.write_text(path, changed)
