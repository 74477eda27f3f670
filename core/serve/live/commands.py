"""Answers about commands: the one that a run was started with, and those that were started from the page."""

from __future__ import annotations

import itertools
import re
from typing import Any

from core.serve.errors import Refused
from core.serve.live.catalog import SWEEPS
from core.serve.live.parameters import Parameters
from core.serve.live.targets import Target, find_target, whole_id
from core.serve.live.view import FRESH, View
from core.serve.live.words import BEGINNING, NAMING, is_of_team, read_recorded

Account = dict[str, Any]
ALONE = "It was started by torchrun. If you start it here, one process trains it."


def about_again(view: View, asked: Parameters) -> Account:
    """The command that started a run or a sweep, in its parts, to start another one like it. name: one that is
    free. problem: why there is no command, or what is different here.
    """
    target = find_target(view.catalog, asked.text("id"))
    command = target.command
    try:
        parts = read_recorded(view.read, command)
    except Refused as error:
        return {"problem": error.message, "name": free_name(view, target)}
    options = {name: value for name, value in parts.options.items() if name not in (NAMING[parts.command], *BEGINNING)}
    told = {"command": parts.command, "options": options, "settings": list(parts.settings)}
    if (parts.command == "sweep") == bool(target.sweep) and "study" not in options:
        told["name"] = free_name(view, target)
    return told | ({"problem": ALONE} if is_of_team(command) else {})


def free_name(view: View, target: Target) -> str:
    """A name like that of a run or a sweep which none has: NAME-2, or a higher number."""
    place, is_sweep = target.place, bool(target.sweep)
    taken = set(place.lab.folders(place.out / SWEEPS if is_sweep else place.out))
    stem, _, number = target.name.rpartition("-")
    is_counted = bool(re.fullmatch("[1-9][0-9]{0,5}", number)) and stem in taken
    stem, last = (stem, int(number)) if is_counted else (target.name, 1)
    names = (f"{stem}-{at}" for at in itertools.count(last + 1))
    starting = {job.about for job in view.jobs.known if job.status == "running"}
    return next(
        name for name in names if name not in taken and whole_id(place, name, is_sweep=is_sweep) not in starting
    )


def about_jobs(view: View, asked: Parameters) -> Account:
    """The commands that were started from the page. kind: run, pipeline (with stages) or sweep, as what each makes is shown;
    "" as long as there is nothing to show.
    """
    view.jobs.look()
    view.catalog.update(FRESH)
    entries = view.catalog.entries
    kinds = dict.fromkeys(view.sweeps().values(), "sweep") | dict.fromkeys(entries, "run")
    kinds |= {id.rpartition("/")[0]: "pipeline" for id, entry in entries.items() if entry.stage}
    return {"jobs": [job | {"kind": kinds.get(job["about"], "")} for job in view.jobs.described()]}
