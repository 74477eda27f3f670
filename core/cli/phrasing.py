"""Messages with command-line options in place of the Python API's arguments."""

from __future__ import annotations

import re
import shlex

# Arguments of the Python API -> options of the command line.
OPTIONS = {
    "run": "--run", "stage": "--stage", "name": "--name", "variant": "--variant", "force": "--force", "fresh": "--fresh", "resume": "--resume",
    "exact": "--exact", "start": "--start", "prompt": "--prompt", "output_path": "--out", "seeds": "--seeds", "grid": "--grid", "ranges": "--range",
    "data": "--data", "prompts": "--prompts", "samples": "--samples", "temperature": "--temperature", "draws": "--random", "halving": "--halving", "retry": "--retry", "minutes": "--minutes", "suite": "--suite", "run_code": "--run-code", "on": "--on", "address": "--address", "jobs": "--jobs",
}  # fmt: skip
QUOTED = re.compile(r"`([A-Za-z_][\w.-]*)=([^`]*)`")


def phrased(text: str) -> str:
    """Replace arguments in a message by options: `fresh=True` -> --fresh, `section.key=4` -> -s section.key=4."""

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in OPTIONS:
            return f"-s {shlex.quote(f'{name}={value}')}"
        typed = value if value.startswith('"') else shlex.quote(value)
        return OPTIONS[name] if value == "True" else f"{OPTIONS[name]} {typed}"

    text = re.sub(r"^(error: )`([^`]*)`: ", lambda found: f"{found[1]}{override(found[2])}: ", text)
    text = re.sub(r"^(error: )(\w+): ", lambda found: f"{found[1]}{OPTIONS.get(found[2], found[2])}: ", text)
    return QUOTED.sub(option, text)


def override(place: str) -> str:
    """The option for the place of an error that is an argument or an override."""
    name, equals, value = place.partition("=")
    return f"{OPTIONS[name]} {value}".removesuffix(" True") if equals and name in OPTIONS else f"-s {place}"
