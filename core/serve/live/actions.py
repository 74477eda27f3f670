"""What the page may change: start, stop, go on, describe, star, tag, hide, prune. Bodies are checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from core.errors import UserError
from core.lab.pruning import KEPT, Listed, condemn, remove
from core.serve.bodies import Strict
from core.serve.errors import Refused, refused
from core.serve.live.catalog import SWEEPS, Entry, Place
from core.serve.live.jobs import StartedCommand
from core.serve.live.stopping import stop
from core.serve.live.sweeps import place_of_sweep, sweeps_of
from core.serve.live.view import MOST, View
from core.serve.live.words import words_again, words_for
from core.tracking.notes import write_notes

Account = dict[str, Any]


class AskedToStart(Strict):
    """The body of /live/start. name: of the run or the sweep. settings: key=value."""

    lab: str
    experiment: str
    command: str
    name: str = ""
    settings: Annotated[list[str], Field(max_length=200, default_factory=list)]
    options: Annotated[dict[str, str | int | bool | list[str]], Field(default_factory=dict)]


class AskedAbout(Strict):
    """A body that names a run, or a sweep."""

    id: str


class AskedToDescribe(AskedAbout):
    description: str


class AskedToStar(AskedAbout):
    starred: bool


class AskedToTag(AskedAbout):
    tags: list[str]


class AskedToHide(AskedAbout):
    hidden: bool


class AskedToPrune(Strict):
    """dry: only say what would be removed."""

    ids: Annotated[list[str], Field(min_length=1, max_length=MOST)]
    dry: bool = False


def start(view: View, asked: AskedToStart) -> Account:
    """Start a run or a sweep."""
    place = place_of(view, asked.lab, asked.experiment)
    words = words_for(asked.command, place.experiment, asked.name, asked.settings, asked.options)
    return started(view, place, words, asked.name or str(asked.options.get("variant") or "default"))


def started(view: View, place: Place, words: list[str], name: str) -> Account:
    """Start a command about a run or a sweep of this name."""
    is_sweep = words[0] == "sweep"
    run = "" if is_sweep else f"{place.lab.name}/{place.experiment.name}/{name}"
    job: StartedCommand = view.jobs.start(
        words, place.out, f"sweep.{name}" if is_sweep else name.partition("/")[0], run, place.lab.root
    )
    return {"job": job.id, "run": run or None}


def go_on(view: View, asked: AskedAbout) -> Account:
    """Start the same command again, which goes on with an unfinished run or sweep."""
    if f"/{SWEEPS}/" in asked.id and asked.id not in view.catalog.entries:
        place, name = place_of_sweep(view.catalog, asked.id)
        recorded = str(sweeps_of(place)[name].get("command") or "")
        return started(view, place, words_again(recorded, place.experiment, name), name)
    entry = view.find(asked.id)
    if entry.status == "running":
        raise Refused(f"{entry.id} is running", status=409, code="running")
    recorded = str(entry.summary.get("command") or "")
    words = words_again(recorded, entry.experiment, entry.run)
    return started(view, place_of(view, entry.lab.name, entry.experiment.name), words, entry.run)


def stop_run(view: View, asked: AskedAbout) -> Account:
    """Stop the process that trains a run, or works on a sweep; it saves what it has."""
    if f"/{SWEEPS}/" in asked.id and asked.id not in view.catalog.entries:
        place, name = place_of_sweep(view.catalog, asked.id)
        return {"process": stop(place.out / SWEEPS / name, asked.id)}
    entry = view.find(asked.id)
    return {"process": stop(entry.folder, entry.id), "row": view.row(entry)}


def note(view: View, asked: AskedToDescribe | AskedToStar | AskedToTag | AskedToHide) -> Account:
    """Change a note of a run."""
    entry = view.find(asked.id)
    try:
        write_notes(entry.folder, asked.model_dump(exclude={"id"}), entry.lab.read)
    except UserError as error:
        raise refused(error, next(iter(asked.model_dump(exclude={"id"})))) from None
    except OSError as error:
        raise Refused(f"{entry.id}: {error.strerror}", status=409, code="cannot_be_written") from None
    return {"row": view.row(again(view, entry))}


def again(view: View, entry: Entry) -> Entry:
    """A run as it is now."""
    view.catalog.update()
    return view.catalog.entries.get(entry.id, entry)


def prune(view: View, asked: AskedToPrune) -> Account:
    """Remove runs, by the rules of `runs`: never `default`, and none that is in use. dry: say what would be removed."""
    entries = view.find_all(asked.ids)
    for entry in entries:
        if entry.run == KEPT:
            raise Refused(f"{entry.id} is kept: other runs are compared with it", status=409, code="kept")
        if entry.folder.is_symlink():
            raise Refused(f"{entry.id} is a link to another folder", status=409, code="kept")
    listed = {entry.folder: entry.id for entry in entries}
    condemned, kept = condemn([(Listed(entry.folder, dict(entry.summary)), "chosen") for entry in entries])
    told: Account = {"kept": kept}
    ids = [listed[each.run.folder] for each in condemned]
    if asked.dry:
        return told | {"would": ids, "bytes": sum(each.size for each in condemned)}
    for each in condemned:
        try:
            remove(each.run.folder)
        except (UserError, OSError) as error:
            raise Refused(f"{listed[each.run.folder]}: {error}", status=409, code="in_use") from None
    view.catalog.update()
    return told | {"removed": ids}


def place_of(view: View, lab: str, experiment: str) -> Place:
    """An experiment, looked up among those that are there. Raises Refused."""
    view.catalog.update(1.0)
    for place in view.catalog.places.values():
        if (place.lab.name, place.experiment.name) == (lab, experiment):
            return place
    raise Refused(
        f"there is no experiment {f'{lab}/{experiment}'[:200]!r}", status=404, param="experiment", code="not_found"
    )


ACTIONS: dict[str, tuple[type[Strict], Callable[[View, Any], Account]]] = {
    "start": (AskedToStart, start),
    "stop": (AskedAbout, stop_run),
    "go_on": (AskedAbout, go_on),
    "describe": (AskedToDescribe, note),
    "star": (AskedToStar, note),
    "tag": (AskedToTag, note),
    "hide": (AskedToHide, note),
    "prune": (AskedToPrune, prune),
}
