"""What the page may change: start, stop, go on, describe, star, tag, hide, prune. Bodies are checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from core.errors import UserError
from core.files import is_locked
from core.lab.pruning import KEPT, Listed, condemn, remove
from core.private import command_line
from core.process import Program
from core.serve.bodies import Strict
from core.serve.errors import Refused, refused
from core.serve.live.catalog import Place
from core.serve.live.stopping import stop
from core.serve.live.targets import find_target, whole_id
from core.serve.live.view import MOST, View
from core.serve.live.words import NAMING, words_again, words_for
from core.tracking.notes import write_notes
from core.tracking.run import lock_file

Account = dict[str, Any]


class AskedToStart(Strict):
    """The body of /live/start. name: of the run or the sweep. settings: key=value. more: further options, as typed."""

    lab: str
    experiment: str
    command: str
    name: str = ""
    settings: Annotated[list[str], Field(max_length=200, default_factory=list)]
    options: Annotated[dict[str, str | int | bool | list[str]], Field(default_factory=dict)]
    more: str = ""
    dry: bool = False


class AskedAbout(Strict):
    """A body that names a run, a run with stages, a sweep, or a job."""

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
    """Start a run or a sweep. dry: only say which command that is, or the problem with it."""
    place = find_place(view, asked.lab, asked.experiment)
    options = dict(asked.options) | ({NAMING.get(asked.command, ""): asked.name} if asked.name else {})
    try:
        words, name = words_for(view.read, place.experiment, asked.command, asked.settings, options, asked.more)
    except Refused as error:
        if asked.dry:
            return {"problem": error.message}
        raise
    if asked.dry:
        return {"command": command_line([*Program.words, *words])}
    return started(view, place, words, whole_id(place, name.partition("/")[0], is_sweep=asked.command == "sweep"))


def started(view: View, place: Place, words: list[str], about: str) -> Account:
    """Start a command about a run or a sweep."""
    return {"job": view.jobs.start(words, place, about).id, "about": about}


def go_on(view: View, asked: AskedAbout) -> Account:
    """Start the same command again, which goes on with an unfinished run or sweep."""
    target = find_target(view.catalog, asked.id)
    if view.is_worked_on(target):
        raise Refused(f"{target.id} is running", status=409, code="running")
    kinds = [command for command in NAMING if (command == "sweep") == bool(target.sweep)]
    words = words_again(view.read, target.command, kinds, target.place.experiment, target.name)
    return started(view, target.place, words, target.whole)


def stop_it(view: View, asked: AskedAbout) -> Account:
    """Stop whoever works on a run or a sweep, or a command that was started from the page, by its id; it saves what it has."""
    if job := view.jobs.running(asked.id):
        return {"process": job.stop()}
    target = find_target(view.catalog, asked.id)
    locked = [folder for folder in target.folders if is_locked(lock_file(folder))]
    if not locked and (job := view.jobs.running(target.whole)):  # it prepares, evaluates or reports
        return {"process": job.stop()}
    return {"process": stop((locked or target.folders)[0], target.id)}


def note(view: View, asked: AskedToDescribe | AskedToStar | AskedToTag | AskedToHide) -> Account:
    """Change a note of a run, a run with stages, or a sweep."""
    target = find_target(view.catalog, asked.id)
    try:
        write_notes(target.folder, asked.model_dump(exclude={"id"}), target.place.lab.read)
    except UserError as error:
        raise refused(error, next(iter(asked.model_dump(exclude={"id"})))) from None
    except OSError as error:
        raise Refused(f"{target.id}: {error.strerror}", status=409, code="cannot_be_written") from None
    view.catalog.update()
    entry = view.catalog.entries.get(target.id)
    if entry is None:
        view.catalog.tell(target.id)
    return {"row": view.row(entry) if entry else None}


def prune(view: View, asked: AskedToPrune) -> Account:
    """Remove runs, by the rules of `runs`: never `default`, and none that is in use. dry: say what would be removed."""
    entries = view.find_all(asked.ids)
    for entry in entries:
        if entry.run == KEPT:
            raise Refused(f"{entry.id} is kept: other runs are compared with it", status=409, code="kept")
        if entry.folder.is_symlink():
            raise Refused(f"{entry.id} is a link to another folder", status=409, code="kept")
        if entry.stage and view.is_worked_on(find_target(view.catalog, entry.id.rpartition("/")[0])):
            raise Refused(f"{entry.id} is a stage of a run that trains", status=409, code="in_use")
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


def find_place(view: View, lab: str, experiment: str) -> Place:
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
    "stop": (AskedAbout, stop_it),
    "go_on": (AskedAbout, go_on),
    "describe": (AskedToDescribe, note),
    "star": (AskedToStar, note),
    "tag": (AskedToTag, note),
    "hide": (AskedToHide, note),
    "prune": (AskedToPrune, prune),
}
