"""Warnings of settings that look like a mistake, with the places where they were made: for `check`, and before a run starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from core.cli.lab import Lab
from core.data.dataset import Dataset
from core.evaluation.facts import Facts, facts_of
from core.evaluation.traps import traps
from core.tracking.begin import flat


@dataclass(frozen=True)
class Warned:
    """key: of the config. place: the file and line where it is set, else the key."""

    key: str
    place: str
    message: str
    remedy: str


def warnings_of(lab: Lab, facts: Facts) -> list[Warned]:
    """What `traps` finds in an experiment."""
    found = traps(lab.config, set(flat(lab.settings.values)), facts)
    return [Warned(trap.key, lab.settings.places.get(trap.key, trap.key), trap.message, trap.remedy) for trap in found]


def warn_before_training(lab: Lab, dataset: Dataset, parameters: int) -> None:
    """The short form of `check`: only what shows without reading the data, a line each."""
    facts = dataclasses.replace(facts_of(dataset, lab.config.train.data), parameters=parameters)
    for warned in warnings_of(lab, facts):
        lab.console.say(f"check: {warned.place}: {warned.message}. {warned.remedy}")
