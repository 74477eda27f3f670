"""Answers about how a run has learnt: which steps it has kept, and what its model was at one of them.

Models are opened in one thread of their own, one after the other, and only for whoever asks; those of one run stay open.
"""

from __future__ import annotations

from typing import Any

from core.errors import RunFailed, UserError
from core.files import finite
from core.serve.errors import Refused, refused
from core.serve.live.parameters import Parameters
from core.serve.live.rows import has_weights, plan_of
from core.serve.live.tokens import refuse_code_of_others
from core.serve.live.view import View
from core.training.ladder import kept_steps

MOST_WAITING = 16  # questions of all viewers


def about_moments(view: View, asked: Parameters) -> dict[str, Any]:
    """The steps that a run has kept."""
    entry = view.find(asked.text("id"))
    return {"id": entry.id, "steps": kept_steps(entry.folder / "checkpoints") if has_weights(entry) else []}


def about_moment(view: View, asked: Parameters) -> Any:
    """What a run was at a step: its answer to a prompt, attention and embeddings. Only in the thread of view.pool. Raises Refused."""
    from core.lab.moments import Moments
    from core.lab.opened import open_folder
    from core.lab.stages import trained_as

    entry = view.find(asked.text("id"))
    refuse_code_of_others(entry.lab, may_act=asked.may_act)
    step, prompt = asked.number("step", 0, 0, 10**11), asked.text("prompt")
    try:
        key = (entry.id, entry.started)
        if view.moments is None or view.moments[0] != key:
            opened = open_folder(entry.experiment.argument, plan_of(entry).variant)
            view.moments = key, Moments(*trained_as(opened, entry.name))
        return finite(view.moments[1].at(step, prompt).as_json())
    except UserError as error:
        raise refused(error, error.place or "id") from None
    except RunFailed as error:
        raise Refused(str(error), param="id", code="invalid_value") from None
