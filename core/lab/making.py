"""Make experiments: from the template, or by copying one; and the folder that they are in."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from core.errors import UserError
from core.plugins.discovery import Experiment, find, home

TEMPLATE = Path(__file__).parent / "template"
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
        rename_in(readme, original.name if original else "NAME", name)
    return Experiment(target), original


def rename_in(readme: Path, old: str, new: str) -> None:
    """Replace an experiment's name in its Readme; quoted where the line is a command."""
    lines = readme.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    word = re.compile(rf"(?<![\w-]){re.escape(old)}(?![\w-])")
    for number, line in enumerate(lines):
        name = shlex.quote(new) if line.startswith(("python ", "terrarium ")) else new
        lines[number] = name.join(word.split(line))
    readme.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
