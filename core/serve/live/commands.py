"""Answers about commands: the one that a run was started with, and those that were started from the page."""

from __future__ import annotations

from typing import Any

from core.serve.errors import Refused
from core.serve.live.parameters import Parameters
from core.serve.live.targets import find_target
from core.serve.live.view import FRESH, View
from core.serve.live.words import BEGINNING, NAMING, is_of_team, read_recorded

Account = dict[str, Any]
ALONE = "It was started by torchrun. If you start it here, one process trains it."


def about_again(view: View, asked: Parameters) -> Account:
    """The command that started a run or a sweep, in its parts but for its name, to start another one like it. problem: why
    there is none, or what is different here.
    """
    command = find_target(view.catalog, asked.text("id")).command
    try:
        parts = read_recorded(view.read, command)
    except Refused as error:
        return {"problem": error.message}
    options = {name: value for name, value in parts.options.items() if name not in (NAMING[parts.command], *BEGINNING)}
    told = {"command": parts.command, "options": options, "settings": list(parts.settings)}
    return told | ({"problem": ALONE} if is_of_team(command) else {})


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
