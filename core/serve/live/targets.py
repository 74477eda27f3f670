"""What an action or a page is about: a run, a run with stages, or a sweep, looked up by its id and never by a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.serve.errors import Refused
from core.serve.live.catalog import SWEEPS, Catalog, Entry, Place
from core.serve.live.sweeps import sweeps_of


@dataclass(frozen=True)
class Target:
    """A run, a run with stages, or a sweep.

    name: RUN, or the sweep's. folder: of it. entries: the runs in it. command: what started it. sweep: sweep.json of a sweep.
    """

    id: str
    place: Place
    name: str
    folder: Path
    entries: tuple[Entry, ...]
    command: str
    sweep: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> str:
        """The id of what one command makes: of a stage, that of the run with all stages."""
        return whole_id(self.place, self.name, is_sweep=bool(self.sweep))

    @property
    def folders(self) -> list[Path]:
        """The folders that whoever works on it may have locked: of a stage, that of the run with all stages, too."""
        found = [self.folder]
        for entry in () if self.sweep else self.entries:
            found += [entry.folder, *([entry.folder.parent] if entry.stage else [])]
        return list(dict.fromkeys(found))


def find_target(catalog: Catalog, id: str) -> Target:
    """What an id means. Raises Refused."""
    catalog.update(1.0 if id in catalog.entries else 0.0)
    for place in catalog.places.values():
        head = f"{place.head}/"
        if not id.startswith(head):
            continue
        name = id.removeprefix(head)
        if (entry := catalog.entries.get(id)) is not None:
            return Target(id, place, entry.run, entry.folder, (entry,), command_of(entry.summary))
        stages = [each for each in catalog.entries.values() if each.stage and each.id.rpartition("/")[0] == id]
        if stages:
            stages.sort(key=lambda stage: stage.started)
            return Target(id, place, name, stages[0].folder.parent, tuple(stages), command_of(stages[-1].summary))
        sweep = name.removeprefix(f"{SWEEPS}/")
        if sweep != name and (values := sweeps_of(place).get(sweep)):
            ids = {f"{head}{point['run']}" for point in values["points"]}
            entries = [each for each in catalog.entries.values() if {each.id, f"{head}{each.run}"} & ids]
            return Target(id, place, sweep, place.out / SWEEPS / sweep, tuple(entries), command_of(values), values)
    raise Refused(f"there is no run {id[:200]!r}", status=404, param="id", code="run_not_found")


def whole_id(place: Place, name: str, *, is_sweep: bool) -> str:
    """The id of the run or the sweep of this name."""
    return "/".join([place.head, *([SWEEPS] if is_sweep else []), name])


def command_of(values: Mapping[str, Any]) -> str:
    """The command in a summary.json or a sweep.json."""
    return str(values.get("command") or "")
