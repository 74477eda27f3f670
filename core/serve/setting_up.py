"""What a server offers, from the names that it was given: models, the live view, or both."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.listener import SILENT, Listener
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
        return Site(app, shown, [served.name for served in shelf.models], told, app.state.closing)
    labs = find_labs()
    on_demand = OpenedWhenAsked(view.catalog, limits)
    app = application(on_demand, limits, token=token, hosts=hosts, view=view, live_first=True)
    told = f"experiments: {', '.join(str(lab.folder) for lab in labs)}"
    return Site(app, shown, [], told, app.state.closing)
