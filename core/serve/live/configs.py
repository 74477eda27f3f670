"""The configs of runs, whole and checked by their keys, and answers about them as JSON has them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import finite
from core.report.runs import RunData
from core.roles import flat
from core.serve.errors import Refused
from core.serve.live.catalog import Entry, stamp
from core.serve.live.labs import Lab
from core.toml import completed
from core.tracking.run import read_config


def run_data(entry: Entry) -> RunData:
    """A run for the functions of reports: its summary and its whole config. Raises Refused where a file is damaged."""
    if entry.problem:
        raise Refused(f"{entry.id}: {entry.problem}", status=409, param="id", code="damaged")
    summary = dict(entry.summary) | {"status": entry.status, "run": entry.name}
    return RunData(entry.folder, summary, config_of(entry))


def config_of(entry: Entry) -> dict[str, Any]:
    """config.toml of a run with every key, dotted. Raises Refused where it is missing or damaged."""
    found = read_whole_config(entry.lab, entry.folder, stamp(entry.folder / "config.toml"))
    if isinstance(found, str):
        raise Refused(f"{entry.id}: config.toml: {found}", status=409, param="id", code="damaged")
    return dict(found)


@functools.lru_cache(maxsize=1024)
def read_whole_config(lab: Lab, folder: Path, at: tuple[int, int]) -> Mapping[str, Any] | str:
    """`config_of`, once for each state of the file; what is wrong with it where it cannot be read."""
    try:
        return flat(completed(read_config(folder, lab.read)))
    except UserError as error:
        return error.message
    except OSError as error:
        return str(error.strerror)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return str(error)


def finite_dict(value: Mapping[str, Any]) -> dict[str, Any]:
    """A dict as `finite` makes it."""
    found: dict[str, Any] = finite(value)
    return found
