"""Labs: the folders of experiments that a page shows, by names without slashes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.plugins.discovery import Experiment, discover, home, is_experiment

USUAL = "experiments"  # what most labs are called: the folder around it tells them apart


@dataclass(frozen=True)
class Lab:
    """A folder of experiments. is_given: whether its path was given; its experiments are then called by their paths."""

    name: str
    folder: Path
    is_given: bool

    def experiments(self) -> list[Experiment]:
        """The experiments in it, by name. Links are not followed out of it."""
        found = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        return [
            Experiment(folder, str(folder) if self.is_given or folder.name.startswith("-") else "")
            for folder in found
            if is_experiment(folder) and (not self.is_given or not folder.is_symlink())
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
