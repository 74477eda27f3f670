"""Labs: the folders of experiments that a page shows, by names without slashes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError
from core.plugins.discovery import Experiment, discover, home, is_experiment
from core.serve.live.reading import folders_in, is_text, open_file, read_file

USUAL = "experiments"  # what most labs are called: the folder around it tells them apart


@dataclass(frozen=True)
class Lab:
    """A folder of experiments. is_given: whether its path was given: its experiments are then called by their paths, it may be
    a stranger's, and no link in it is followed.
    """

    name: str
    folder: Path
    is_given: bool

    @property
    def root(self) -> Path | None:
        """Below which no link is followed."""
        return self.folder if self.is_given else None

    def open(self, path: Path) -> BinaryIO:
        """Open a file of a run to read it. Raises OSError."""
        return open_file(path, self.root)

    def read(self, path: Path) -> bytes:
        """A whole file of a run. Raises OSError."""
        return read_file(path, self.root)

    def read_source(self, path: Path) -> bytes:
        """A whole file of an experiment, such as its config.toml; one's own may be a link. Raises OSError."""
        return read_file(path if self.is_given else Path(os.path.realpath(path)), self.root)

    def folders(self, path: Path) -> list[str]:
        """The names of the folders in a folder, those that are text."""
        return [name for name in folders_in(path, self.root) if is_text(name)]

    def left_out(self, path: Path) -> list[str]:
        """The names of the folders in a folder that are no text, and are not shown."""
        return [ascii(name) for name in folders_in(path, self.root) if not is_text(name)]

    def experiments(self) -> list[Experiment]:
        """The experiments in it, by name. Those whose names are no text are left out. Raises OSError."""
        found = sorted(self.folder.iterdir())
        return [
            Experiment(folder, str(folder) if self.is_given or folder.name.startswith("-") else "")
            for folder in found
            if is_text(folder.name) and is_experiment(folder) and (not self.is_given or not folder.is_symlink())
        ]


def own_labs() -> list[Lab]:
    """The labs of the experiments that every command finds: the folder `experiments`, and others that hold some."""
    folders = dict.fromkeys([home(), *(experiment.folder.parent for experiment in discover())])
    return named(list(folders), is_given=False)


def given_labs(folders: Iterable[Path]) -> list[Lab]:
    """The labs in some folders: each has experiments, or a folder `experiments` with them. Raises UserError for others."""
    found = []
    for folder in folders:
        inner = [each for each in (folder / USUAL, folder) if holds_experiments(each)]
        inner = [each for each in inner if each == folder or not each.is_symlink()]
        if not inner:
            raise UserError(
                "there is no experiment in this folder",
                place=str(folder),
                remedy="Give a folder that holds experiments, each a folder with a config.toml or a prepare.py.",
            )
        found.append(inner[0].absolute())
    return named(list(dict.fromkeys(found)), is_given=True)


def holds_labs(folder: Path) -> bool:
    """Whether a path is a folder of experiments, or one with a folder `experiments`."""
    return holds_experiments(folder / USUAL) or holds_experiments(folder)


def holds_experiments(folder: Path) -> bool:
    """Whether a folder is one of experiments."""
    return folder.is_dir() and not is_experiment(folder) and any(is_experiment(each) for each in folder.iterdir())


def named(folders: Sequence[Path], *, is_given: bool) -> list[Lab]:
    """Labs with names of their own: the folder's, or that of the folder around `experiments`, and a number where two are alike."""
    labs: dict[str, Lab] = {}
    for folder in folders:
        plain = folder.parent.name if folder.name == USUAL and len(folders) > 1 and folder.parent.name else folder.name
        name, number = plain, 1
        while name in labs:
            number += 1
            name = f"{plain}-{number}"
        labs[name] = Lab(name, folder, is_given)
    return list(labs.values())
