"""What a server offers, from the names that it was given: models, the live view, or both."""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.listener import SILENT, Listener
from core.process import Program
from core.serve.app import application
from core.serve.limits import Limits
from core.serve.live.catalog import Catalog
from core.serve.live.labs import Lab, given_labs, holds_labs, own_labs
from core.serve.live.shelf import OpenedWhenAsked
from core.serve.live.view import View
from core.serve.live.words import ReadCommand
from core.serve.server import Address, Site


def set_up(
    names: Sequence[str],
    variant: str,
    overrides: Sequence[str],
    limits: Limits,
    address: Address,
    token: str = "",
    listener: Listener = SILENT,
    *,
    read: ReadCommand,
    read_only: bool = False,
) -> Site:
    """What is served.

    read: how the commands that the page starts are read. names: models, EXP, EXP/RUN or EXP/RUN/STAGE; or folders of
    experiments; none for every experiment. token: what clients must show; "" makes one where other machines reach the server.
    Actions always need one. Raises UserError.
    """
    token = token or ("" if address.is_local else secrets.token_urlsafe(24))
    folders = [Path(name) for name in names if holds_labs(Path(name))]
    if folders and len(folders) < len(names):
        other = next(name for name in names if not holds_labs(Path(name)))
        raise UserError(
            "a folder of experiments and a model cannot be served together",
            place=other,
            remedy="Give folders only, or models only.",
        )

    if not folders:
        refuse_lost_folders(names)

    given = given_labs(folders)  # once: a folder that goes away later is a lab with a problem

    def find_labs() -> list[Lab]:
        return given if folders else own_labs()

    read_only = read_only or bool(
        names and not folders and not token
    )  # clients of models that ask for no token get none
    acting = "" if read_only else token or secrets.token_urlsafe(24)
    view = View(Catalog(find_labs), read, acting, read_only=read_only, asked_for=token)
    hosts, shown = [address.host, *address.hosts], token or acting
    if names and not folders:
        from core.serve.models import open_models

        shelf = open_models(names, variant, overrides, limits, listener)
        app = application(shelf, limits, token=token, hosts=hosts, view=view)
        told = f"models: {', '.join(served.title for served in shelf.models)}"
        return Site(app, shown, [served.name for served in shelf.models], told, app.state.closing, view.jobs.going_on)
    labs = find_labs()
    on_demand = OpenedWhenAsked(view.catalog, limits)
    app = application(on_demand, limits, token=token, hosts=hosts, view=view, live_first=True)
    told = f"experiments: {', '.join(str(lab.folder) for lab in labs)}"
    return Site(app, shown, [], told, app.state.closing, view.jobs.going_on)


def refuse_lost_folders(names: Sequence[str]) -> None:
    """Raise UserError for a folder that holds no experiments, and for a path that leads nowhere. A name without slashes may be a typo
    in that of a model, of which its reader says more.
    """
    from core.lab.choosing import split

    for name in names:
        try:
            split(name)
        except UserError as error:
            folder = Path(name)
            if folder.is_dir():
                if not (inner := labs_in(folder)):
                    given_labs([folder])
                verb = "does" if len(inner) == 1 else "do"
                raise UserError(
                    f"this folder holds no experiments, but {' and '.join(each.name for each in inner)} in it {verb}",
                    place=name,
                    remedy=f"Show what is there: {Program.name()} serve {shlex.join(map(str, inner))}",
                ) from None
            if "/" in name:
                near = shlex.join(map(str, labs_in(folder.parent)))
                raise UserError(
                    f"there is no such folder, and {error.message}",
                    place=name,
                    remedy=f"Folders with experiments: {near}" if near else error.remedy,
                ) from None


def labs_in(folder: Path) -> list[Path]:
    """The folders in a folder that hold experiments."""
    found = []
    with contextlib.suppress(OSError):
        for each in sorted(folder.iterdir()):
            with contextlib.suppress(OSError):
                found += [each] if holds_labs(each) else []
    return found
