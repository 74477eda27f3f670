"""Warnings about settings that look like a mistake, with the places where they were made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from core.data.dataset import Dataset
from core.evaluation.facts import Facts, facts_of
from core.evaluation.traps import traps
from core.lab.opened import Opened
from core.roles import flat


@dataclass(frozen=True)
class Caution:
    """key: of the config. place: the file and line where it is set, else the key."""

    key: str
    place: str
    message: str
    remedy: str


def cautions_of(opened: Opened, facts: Facts) -> list[Caution]:
    """What `traps` finds in an experiment."""
    found = traps(opened.config, set(flat(opened.settings.values)), facts)
    return [
        Caution(trap.key, opened.settings.places.get(trap.key, trap.key), trap.message, trap.remedy) for trap in found
    ]


def warn_before_training(opened: Opened, dataset: Dataset, parameters: int) -> None:
    """The short form of `check`: only what shows without reading the data, a line each."""
    facts = dataclasses.replace(facts_of(dataset, opened.config.train.data), parameters=parameters)
    for caution in cautions_of(opened, facts):
        opened.listener.say(f"check: {caution.place}: {caution.message}. {caution.remedy}")
