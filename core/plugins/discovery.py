"""Find experiment folders without importing them."""

from __future__ import annotations

import ast
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError, did_you_mean
from core.plugins.manager import plugins
from core.process import Program

Read = Callable[[Path], bytes]  # how a file is read
VARIABLE = "TERRARIUM_EXPERIMENTS"
SHIPPED = Path(__file__).parents[2] / "experiments"  # of a checkout, or installed beside core
INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Experiment:
    """A folder with an experiment. Its name is the name of the folder."""

    folder: Path
    address: str = ""  # the path that the user gave; "" for a name

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self, setting: str) -> Path:
        """A path of the config. Relative ones start at the experiment's folder."""
        return self.folder / Path(setting).expanduser()

    @property
    def argument(self) -> str:
        """What commands find it by: its name, or its path where only that leads to it."""
        return self.address or self.name

    @property
    def command(self) -> str:
        """The command line for this experiment, for messages: `command.format("train")`."""
        name = shlex.quote(self.argument).replace("{", "{{").replace("}", "}}")
        return f"{Program.name()} {{}} {name}"

    @property
    def is_installed(self) -> bool:
        """Whether it is part of an installed package. Nothing is written there."""
        return is_installed(self.folder)


def is_experiment(folder: Path) -> bool:
    """Whether a folder has a config.toml, a prepare.py, or a prepared dataset. One that cannot be read is none."""
    try:
        if not folder.is_dir() or folder.name.startswith((".", "_")):
            return False
        if any((folder / name).is_file() for name in ("config.toml", "prepare.py", "train.bin")):
            return True
        return any((folder / "datasets").glob("*/train.bin"))
    except OSError:
        return False


def is_installed(folder: Path) -> bool:
    """Whether a folder is where Python installs packages."""
    return any(part in INSTALLED for part in folder.resolve().parts)


def home() -> Path:
    """The folder `experiments` in the current folder or its nearest parent that has one.

    If there is none: the one next to core; if core is installed, the one that the current folder would have.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "experiments").is_dir() and not is_installed(folder):
            return folder / "experiments"
    return here / "experiments" if is_installed(SHIPPED) else SHIPPED


def roots() -> Iterator[Path]:
    """Folders that contain experiments or are one: `home`, $TERRARIUM_EXPERIMENTS, then those of plugins."""
    yield home()
    for entry in os.environ.get(VARIABLE, "").split(os.pathsep):
        if entry:
            yield Path(entry).expanduser()
    for folders in plugins().call_each("experiment_folders"):
        yield from map(Path, folders)


def discover() -> list[Experiment]:
    """Every experiment, by name. A folder that is in several roots is listed once. What cannot be read is left out."""
    found: dict[Path, Experiment] = {}
    for root in roots():
        for folder in experiments_in(root):
            found.setdefault(folder.resolve(), Experiment(folder.absolute()))
    return sorted(found.values(), key=lambda experiment: experiment.name)


def experiments_in(root: Path) -> list[Path]:
    """The folders of the experiments in a root, or the root itself if it is one."""
    try:
        candidates = [root] if is_experiment(root) else sorted(root.iterdir()) if root.is_dir() else []
    except OSError:
        return []
    return list(filter(is_experiment, candidates))


def examples() -> list[Experiment]:
    """The experiments that come with Terrarium."""
    folders = sorted(SHIPPED.iterdir()) if SHIPPED.is_dir() else []
    return [Experiment(folder) for folder in folders if is_experiment(folder)]


def find(name: str, *, to_copy: bool = False) -> Experiment:
    """The experiment with this name or path. to_copy: also those that come with Terrarium or another package.

    Raises UserError if there is none, more than one, or one of a package, where no data and no runs may be written.
    """
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    if (os.sep in name or name in (".", "..")) and is_experiment(path.resolve()):
        found = [Experiment(path.resolve(), name)]
    else:
        found = [experiment for experiment in discover() if experiment.name == name]
    own = [experiment for experiment in found if not experiment.is_installed]
    foreign = found or [experiment for experiment in examples() if experiment.name == name]
    if foreign and not own and not to_copy:
        package = plugins().package_offering(foreign[0].folder) or "Terrarium"
        raise UserError(
            f"'{foreign[0].name}' comes with {package}; it is not among your experiments",
            place=str(home()),
            remedy=f"Copy it: {Program.name()} new {shlex.quote(foreign[0].name)} --from {shlex.quote(name)}",
        )
    matches = own or foreign
    if not matches:
        offered = discover() + (examples() if to_copy else [])
        known = list(dict.fromkeys(experiment.name for experiment in offered))
        raise UserError(
            f"no experiment is called '{name}'",
            place=str(home()),
            remedy=f"{did_you_mean(name, known)} "
            f"An experiment is a folder with a config.toml or a prepare.py; `{Program.name()} list` shows them.".strip(),
        )
    if len(matches) > 1:
        raise UserError(
            f"two experiments are called '{name}'",
            place=" and ".join(str(experiment.folder) for experiment in matches),
            remedy="Rename one of the folders, or give a path.",
        )
    return matches[0]


def stands_beside(experiment: Experiment, name: str) -> bool:
    """Whether another folder, next to this one or found by name, is an experiment of this name."""
    others = [experiment.folder.parent / name, *(other.folder for other in discover() if other.name == name)]
    return any(is_experiment(other) and other.resolve() != experiment.folder.resolve() for other in others)


def summary(experiment: Experiment, read: Read = Path.read_bytes) -> str:
    """A one-line summary: the docstring of prepare.py, else the Readme's first sentence. Nothing is imported."""
    try:
        tree = ast.parse(read(experiment.folder / "prepare.py"))
        text = ast.get_docstring(tree) or ""
    except (OSError, SyntaxError, ValueError):
        text = ""
    return next((line.strip() for line in text.splitlines() if line.strip()), "") or readme_line(
        experiment.folder, read
    )


def readme_line(folder: Path, read: Read = Path.read_bytes) -> str:
    """The first line of Readme.md that is not a heading."""
    for name in ("Readme.md", "README.md"):
        if (folder / name).is_file():
            lines = read(folder / name).decode("utf-8", "replace").splitlines()
            return next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    return ""
