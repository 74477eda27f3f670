"""What the live view knows: the catalog of runs, their tables, and what was read of them for an answer."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from core.files import is_locked
from core.serve.errors import Refused
from core.serve.live.catalog import ACTIVE, Catalog, Entry, is_young, stamp
from core.serve.live.jobs import Jobs
from core.serve.live.rows import row_of, whole_row
from core.serve.live.sweeps import runs_of_sweeps
from core.serve.live.tables import MetricsTable, Tables
from core.serve.live.targets import Target
from core.serve.live.words import ReadCommand
from core.tracking.run import lock_file

if TYPE_CHECKING:
    from core.lab.moments import Moments

FRESH = 1.0  # seconds for which an answer may be old
MOST = 200  # runs in one answer about several


@dataclass
class View:
    """The state of the live view. read: how commands are read. read_only: no actions. token: what actions must show.
    asked_for: what all requests must show.

    moments: the kept steps of the run that was asked for them last, with what tells it from others. pool: the thread that opens
    them, which starts with the first question.
    """

    catalog: Catalog
    read: ReadCommand
    token: str = ""
    read_only: bool = False
    asked_for: str = ""
    tables: Tables = field(default_factory=Tables)
    jobs: Jobs = field(default_factory=Jobs)
    moments: tuple[tuple[str, str], Moments] | None = None
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "moments"))
    short_rows: dict[str, tuple[Entry, dict[str, Any]]] = field(default_factory=dict)
    whole_rows: dict[str, tuple[Entry, dict[str, Any]]] = field(default_factory=dict)  # of runs that have ended
    # Of the board, by experiment: what groups depend on, groups.
    shared: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    known_sweeps: tuple[int, dict[str, str]] = field(default=(-1, {}))  # with the version of the catalog

    @property
    def version(self) -> tuple[int, int]:
        """What an answer depends on: as long as it is the same, so are the answers."""
        return self.catalog.version, self.jobs.version

    def find(self, id: str) -> Entry:
        """The run of this id, which is looked up among those that were found, and never a path. Raises Refused."""
        self.catalog.update(FRESH if id in self.catalog.entries else 0.0)
        if (entry := self.catalog.entries.get(id)) is None:
            raise Refused(f"there is no run {id[:200]!r}", status=404, param="id", code="run_not_found")
        return entry

    def is_worked_on(self, target: Target) -> bool:
        """Whether a process works on a run or a sweep: it has the lock of a folder, or it was started from the page and runs."""
        return any(is_locked(lock_file(folder)) for folder in target.folders) or bool(self.jobs.running(target.whole))

    def sweeps(self) -> dict[str, str]:
        """Id of a run -> id of the sweep that it belongs to."""
        version, found = self.known_sweeps
        if version != self.catalog.version:
            version, places = self.catalog.version, list(self.catalog.places.values())
            found = {id: sweep for place in places for id, sweep in runs_of_sweeps(place).items()}
            self.known_sweeps = version, found
        return found

    def table(self, entry: Entry) -> MetricsTable:
        """The metrics.csv of a run."""
        return self.tables.of(entry.folder / "metrics.csv", entry.lab.open)

    def rows(self) -> list[tuple[Entry, dict[str, Any]]]:
        """Each run with its row without what takes reading more files, made once for each state of the run."""
        entries, known = self.catalog.entries, self.short_rows
        now = self.short_rows = {
            id: known[id] if id in known and known[id][0] is entry else (entry, row_of(entry))
            for id, entry in entries.items()
        }
        self.whole_rows = {id: each for id, each in list(self.whole_rows.items()) if id in entries}
        return list(now.values())

    def row(self, entry: Entry) -> dict[str, Any]:
        """The whole row of a run, with what its model is called where it can be asked. Made once of a run that has ended."""
        known = self.whole_rows.get(entry.id)
        row = known[1] if known and known[0] is entry else whole_row(entry)
        if entry.status not in ACTIVE and not is_young(entry.time):
            self.whole_rows[entry.id] = entry, row
        name = self.catalog.model_name(entry.id) if row["can_chat"] else None
        return row | {"sweep": self.sweeps().get(entry.id), "chat": name}

    def report_address(self, id: str, folder: Path) -> str | None:
        """Where the page in a folder is, another address for each state of it; with a key where requests need a token."""
        if not (folder / "report.html").is_file():
            return None
        key = f"&key={self.key_of(id)}" if self.asked_for else ""
        return f"/live/report/{quote(id)}?at={stamp(folder / 'report.html')[1]}{key}"

    def key_of(self, id: str) -> str:
        """What opens one report, as a frame cannot send the token."""
        return hmac.new(self.asked_for.encode(), id.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def find_all(self, ids: Iterable[str]) -> list[Entry]:
        """The runs of these ids, each once. Raises Refused for an unknown one, for none and for too many."""
        return list(map(self.find, each_once(ids)))

    def find_those_there(self, ids: Iterable[str]) -> tuple[list[Entry], list[str]]:
        """As `find_all`, and the ids of runs that are not there, such as removed ones. Raises Refused for none and for too many."""
        asked = each_once(ids)
        self.catalog.update(FRESH if self.catalog.entries.keys() >= set(asked) else 0.0)
        known = self.catalog.entries
        return [known[id] for id in asked if id in known], [id for id in asked if id not in known]


def each_once(ids: Iterable[str]) -> list[str]:
    """The ids of a question, each once. Raises Refused for none and for too many."""
    asked = list(dict.fromkeys(ids))
    if not 1 <= len(asked) <= MOST:
        raise Refused(f"id: give 1 to {MOST} of them, not {len(asked)}", param="id", code="invalid_value")
    return asked
