"""Warnings about settings that look like mistakes, with the places where they were set."""

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
    """A suspicious setting. key: its config key. place: the file and line where it is set, else the key."""

    key: str
    place: str
    message: str
    remedy: str


def cautions_of(opened: Opened, facts: Facts) -> list[Caution]:
    """The suspicious settings of an experiment."""
    found = traps(opened.config, set(flat(opened.settings.values)), facts)
    return [
        Caution(trap.key, opened.settings.places.get(trap.key, trap.key), trap.message, trap.remedy) for trap in found
    ]


def warn_before_training(opened: Opened, dataset: Dataset, parameters: int) -> list[str]:
    """A short form of `check`: one line for each problem that can be found without reading the data. Returns the lines."""
    facts = dataclasses.replace(facts_of(dataset, opened.config.train.data), parameters=parameters)
    found = [f"{caution.place}: {caution.message}. {caution.remedy}" for caution in cautions_of(opened, facts)]
    for line in found:
        opened.listener.say(f"check: {line}")
    return found
