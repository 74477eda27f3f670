"""What the live view knows: the catalog of runs, their tables, and what was read of them for an answer."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core.errors import UserError
from core.report.runs import RunData
from core.roles import flat
from core.serve.errors import Refused
from core.serve.live.catalog import LARGEST, Catalog, Entry, stamp
from core.serve.live.tables import Tables
from core.toml import completed
from core.tracking.run import read_config

FRESH = 1.0  # seconds for which an answer may be old
MOST = 200  # runs in one answer about several


@dataclass
class View:
    """The state of the live view. read_only: no actions. token: what actions must show. asked_for: what all requests must show."""

    catalog: Catalog
    token: str = ""
    read_only: bool = False
    asked_for: str = ""
    tables: Tables = field(default_factory=Tables)

    def find(self, id: str) -> Entry:
        """The run of this id, which is looked up among those that were found, and never a path. Raises Refused."""
        self.catalog.update(FRESH)
        if (entry := self.catalog.entries.get(id)) is None:
            raise Refused(f"there is no run {id[:200]!r}", status=404, param="id", code="run_not_found")
        return entry

    def sweeps(self) -> dict[str, str]:
        """Id of a run -> id of the sweep that it belongs to."""
        return {}

    def report_address(self, entry: Entry) -> str | None:
        """Where the page of a run is; None without one."""
        return f"/live/report/{quote(entry.id)}" if (entry.folder / "report.html").is_file() else None

    def find_all(self, ids: Iterable[str]) -> list[Entry]:
        """The runs of these ids, each once. Raises Refused for an unknown one, for none and for too many."""
        asked = list(dict.fromkeys(ids))
        if not 1 <= len(asked) <= MOST:
            raise Refused(f"id: give 1 to {MOST} of them, not {len(asked)}", param="id", code="invalid_value")
        return list(map(self.find, asked))


def run_data(entry: Entry) -> RunData:
    """A run for the functions of reports: its summary and its whole config. Raises Refused where a file is damaged."""
    if entry.problem:
        raise Refused(f"{entry.id}: {entry.problem}", status=409, param="id", code="damaged")
    summary = dict(entry.summary) | {"status": entry.status, "run": entry.name}
    return RunData(entry.folder, summary, config_of(entry))


def config_of(entry: Entry) -> dict[str, Any]:
    """config.toml of a run with every key, dotted. Raises Refused where it is missing or damaged."""
    found = read_whole_config(entry.folder, stamp(entry.folder / "config.toml"))
    if isinstance(found, str):
        raise Refused(f"{entry.id}: config.toml: {found}", status=409, param="id", code="damaged")
    return dict(found)


@functools.lru_cache(maxsize=512)
def read_whole_config(folder: Path, at: tuple[int, int]) -> Mapping[str, Any] | str:
    """`config_of`, once for each state of the file; what is wrong with it where it cannot be read."""
    if at[0] > LARGEST:
        return f"it has more than {LARGEST:,} bytes"
    if not (folder / "config.toml").is_file():
        return "it is missing"
    try:
        return flat(completed(read_config(folder)))
    except UserError as error:
        return error.message
    except (ValueError, TypeError, AttributeError, OSError) as error:
        return str(error)


def finite(value: Any) -> Any:
    """A value for JSON: None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int)) else str(value)
