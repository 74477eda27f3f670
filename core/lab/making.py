"""Make experiments: from the template, or by copying one; and the folder that they are in."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from core.errors import UserError
from core.plugins.discovery import Experiment, find, home

TEMPLATE = Path(__file__).parent / "template"
PLACEHOLDER = "NAME"  # of the experiment, in the template's Readme
# What a copy leaves out: everything that commands have made.
MADE = ("datasets", "out", "EXPERIMENT_LOG.md", "__pycache__")
IGNORED = "# made by Terrarium's commands\n*/datasets/\n*/out/\n*/EXPERIMENT_LOG.md\n__pycache__/\n"


def make_home(folder: Path) -> bool:
    """Make a folder for experiments, with a .gitignore for what commands will write there.

    Returns whether anything was made. Raises UserError if it cannot be made.
    """
    ignore = folder / ".gitignore"
    if ignore.exists():
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore.write_text(IGNORED, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot be made: {error.strerror}", place=str(folder), remedy="Choose a folder in which you may write."
        ) from None
    return True


def make_experiment(name: str, source: str = "") -> tuple[Experiment, Experiment | None]:
    """Make an experiment in the current folder of experiments. source: one to copy; "" for the template.

    Returns the new experiment and the copied one. Raises UserError for a bad name, one that is taken, or an unknown source.
    """
    original = find(source, to_copy=True) if source else None
    if not name or Path(name).name != name or name.startswith((".", "_", "-")):
        raise UserError(
            f"'{name}' is not a valid folder name",
            remedy="Use letters, digits and _. The folder is created in experiments/.",
        )
    target = home() / name
    if target.exists():
        raise UserError("this folder exists already", place=str(target), remedy="Choose another name.")
    if not target.parent.exists():
        make_home(target.parent)
    folder = original.folder if original else TEMPLATE
    shutil.copytree(folder, target, ignore=lambda _, names: [entry for entry in names if entry in MADE])
    for readme in (path for path in target.iterdir() if path.name.lower() == "readme.md"):
        rename_in(readme, original.name if original else PLACEHOLDER, name)
    return Experiment(target), original


def rename_in(readme: Path, old: str, new: str) -> None:
    """Replace an experiment's name in its Readme."""
    lines = readme.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    readme.write_text("".join(renamed(line, old, new) for line in lines), encoding="utf-8", errors="surrogateescape")


def renamed(line: str, old: str, new: str) -> str:
    """A line with another name: in a title, in paths, and where a command names the experiment; quoted there.

    Elsewhere the same letters may be an ordinary word, such as chat. The template's NAME is replaced everywhere.
    """
    is_command = line.startswith(("python ", "terrarium "))
    name, word = shlex.quote(new) if is_command else new, rf"(?<![\w/-]){re.escape(old)}"
    if old == PLACEHOLDER or line.startswith("# "):
        return name.join(re.split(rf"{word}(?![\w-])", line))
    if is_command and " new " not in line:
        line = name.join(re.split(rf"(?<= ){re.escape(old)}(?=/)", line))  # EXP/RUN
        if found := re.match(rf"(?:python -m core\.cli|terrarium) [\w-]+ ({re.escape(old)})(?![\w/-])", line):
            line = line[: found.start(1)] + name + line[found.end(1) :]
    return f"experiments/{new}".join(re.split(rf"experiments/{re.escape(old)}(?![\w-])", line))
