"""Who encodes documents: this process, or the workers of a launcher."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from core.data.encode import Coding, encode_here
from core.errors import UserError
from core.lab.opened import Opened


@contextlib.contextmanager
def opened_coding(opened: Opened, on: str, jobs: int | None, address: str) -> Iterator[Coding]:
    """The coding of a launcher; without one, of this process. jobs: workers; None: the launcher's own choice.

    Raises UserError for an unknown launcher, and for one that does not encode.
    """
    if not on:
        refuse_without_workers(jobs=jobs, address=address)
        yield encode_here
        return
    with opened.plugins.get("launchers", on, "on")(opened, jobs, address) as launcher:
        if not hasattr(launcher, "coding"):
            raise UserError(f'"{on}" trains runs, and encodes no documents', place="on", remedy='Use `on="ray"`.')
        if launcher.coding is encode_here:
            refuse_without_workers(jobs=jobs)
        yield launcher.coding


def refuse_without_workers(**given: int | str | None) -> None:
    """Raise UserError for an argument that only workers need. given: name -> value."""
    for name, value in given.items():
        if value:
            raise UserError(f"{name} = {value} is for workers", place=name, remedy='Choose some: `on="ray"`.')
