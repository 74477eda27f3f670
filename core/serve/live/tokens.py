"""Who may act, and open the models of others: whoever shows the token."""

from __future__ import annotations

from starlette.requests import Request

from core.serve.errors import Refused
from core.serve.guard import shows
from core.serve.live.labs import Lab
from core.serve.live.view import View


def refuse_without_token(view: View, request: Request) -> None:
    """Raise Refused for an action in a view that only shows, or without the token."""
    if view.read_only:
        raise Refused("this server only shows: nothing can be changed here", status=403, code="read_only")
    if not is_let_act(view, request):
        raise Refused(
            "the token is missing or wrong: open the address that the server has printed, or send `Authorization: Bearer TOKEN`",
            status=401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def is_let_act(view: View, request: Request) -> bool:
    """Whether a request shows the token that actions need."""
    return bool(view.token) and shows(request.headers, view.token)


def refuse_code_of_others(lab: Lab, *, may_act: bool) -> None:
    """Raise Refused where a model of a folder that was given by name is to be opened without the token: its prepare.py is run."""
    if lab.is_given and not may_act:
        raise Refused(
            f"To open a model of {lab.name} runs the prepare.py that lies there. This needs the token: open the address that the "
            "server has printed. A server that only shows opens no model of such a folder.",
            status=403,
            code="token_needed",
        )
