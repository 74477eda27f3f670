"""Models that are opened when somebody asks them, and closed when nobody does for a while."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.serve.errors import Refused
from core.serve.limits import Limits
from core.serve.live.catalog import Catalog, Entry, stamp
from core.serve.live.rows import has_weights, plan_of
from core.serve.live.tokens import refuse_code_of_others
from core.training.ladder import MANIFEST

if TYPE_CHECKING:
    from core.serve.models import Served

MOST_OPEN = 2
UNUSED = 300.0  # seconds after which a model is closed
JUST_FOUND = 2.0  # seconds in which whoever has asked for a model may not have used it yet
EVERY = 30.0  # seconds between two looks for models to close


@dataclass(eq=False)
class Held:
    """A model that is open, or is being opened. weights: what tells its checkpoint from others. used: when it was asked for."""

    opening: asyncio.Future[Served]
    weights: tuple[int, int]
    used: float

    @property
    def served(self) -> Served | None:
        """The model; None while it is being opened."""
        return self.opening.result() if self.opening.done() and not self.opening.exception() else None

    def is_idle(self, seconds: float, now: float) -> bool:
        """Whether it writes nothing, and nobody has asked for it for some seconds."""
        return self.served is not None and self.served.worker.is_idle and now - self.used > seconds


class OpenedWhenAsked:
    """The models of every run that has a checkpoint, by the names EXP/RUN, EXP/RUN/STAGE, or with the lab before them.

    All but `described`, `entry_of` and `opened` happens in the event loop, so that nobody waits while a model is opened.
    """

    def __init__(self, catalog: Catalog, limits: Limits) -> None:
        self.catalog, self.limits = catalog, limits
        self.held: dict[str, Held] = {}
        self.timer: asyncio.TimerHandle | None = None

    @property
    def models(self) -> tuple[Served, ...]:
        """Those that are open."""
        return tuple(held.served for held in list(self.held.values()) if held.served)

    def named(self) -> dict[str, Entry]:
        """The runs that can be asked, by name. The lab stands before it where there are several."""
        self.catalog.update(1.0)
        several = len(self.catalog.labs) > 1
        entries = self.catalog.entries.values()
        return {entry.id if several else entry.id.partition("/")[2]: entry for entry in entries if has_weights(entry)}

    def described(self) -> list[dict[str, Any]]:
        """The entries of /v1/models. Those that are not open say only what their run's summary says."""
        opened = {served.name: served for served in self.models}
        return [
            opened[name].described() if name in opened else closed(name, entry)
            for name, entry in sorted(self.named().items())
        ]

    async def find(self, name: str | None, *, may_act: bool = False) -> Served:
        """The model of this name, which is opened if it is not, and again where its run has newer weights. Raises Refused."""
        if name is None:
            raise Refused("model is missing: say which run", param="model", code="missing_field")
        entry = await asyncio.to_thread(self.entry_of, name)
        refuse_code_of_others(entry.lab, may_act=may_act)
        weights, now = weights_of(entry), asyncio.get_running_loop().time()
        held = self.held.get(name)
        if held and held.weights != weights and held.is_idle(0.0, now):
            self.let_go(name)
            held = None
        if held is None:
            self.make_room(now)
            opening = asyncio.ensure_future(asyncio.to_thread(self.opened, name, entry))
            opening.add_done_callback(lambda done: self.held.pop(name) if done.exception() else None)
            held = self.held[name] = Held(opening, weights, now)
        served = await asyncio.shield(held.opening)
        held.used = asyncio.get_running_loop().time()
        return served

    def entry_of(self, name: str) -> Entry:
        """The run of this name. Raises Refused if there is none, or it has no checkpoint."""
        self.catalog.update(1.0)
        entries = self.catalog.entries
        ids = [name, *(f"{lab.name}/{name}" for lab in self.catalog.labs if len(self.catalog.labs) == 1)]
        entry = next((entries[id] for id in ids if id in entries), None)
        if entry is None or not has_weights(entry):
            raise Refused(f"no model is called {name[:100]!r}", status=404, param="model", code="model_not_found")
        return entry

    def opened(self, name: str, entry: Entry) -> Served:
        """Open the model of a run. Raises Refused if its checkpoint cannot be read."""
        from core.errors import RunFailed, UserError
        from core.serve.errors import refused
        from core.serve.models import open_model

        try:
            served = open_model(name, entry.experiment.argument, entry.name, plan_of(entry).variant, (), self.limits)
        except UserError as error:
            raise refused(error, "model") from None
        except RunFailed as error:
            raise Refused(str(error), param="model", code="invalid_value") from None
        served.worker.start()
        return served

    def make_room(self, now: float) -> None:
        """Close the model that was asked longest ago where as many are open as may be. Raises Refused if all are in use."""
        if len(self.held) < MOST_OPEN:
            return
        idle = [name for name, held in self.held.items() if held.is_idle(JUST_FOUND, now)]
        if not idle:
            raise Refused(
                f"{MOST_OPEN} models are in use, and more are not opened at once. Try again in a moment.",
                status=429,
                code="busy",
                headers={"Retry-After": "2"},
            )
        self.let_go(min(idle, key=lambda name: self.held[name].used))

    def let_go(self, name: str) -> None:
        """Close a model that writes nothing."""
        if served := self.held.pop(name).served:
            served.worker.close()

    def close_unused(self) -> None:
        """Close the models that nobody has asked for some minutes, and those of runs that are gone. Comes again by itself."""
        loop = asyncio.get_running_loop()
        several, entries = len(self.catalog.labs) > 1, self.catalog.entries
        known = entries if several else {id.partition("/")[2] for id in entries}
        for name, held in list(self.held.items()):
            if held.is_idle(UNUSED if name in known or name in entries else 0.0, loop.time()):
                self.let_go(name)
        self.timer = loop.call_later(EVERY, self.close_unused)

    def start(self) -> None:
        """Nothing is open yet."""
        self.close_unused()

    def close(self) -> None:
        """Close all."""
        if self.timer:
            self.timer.cancel()
        for name in list(self.held):
            self.let_go(name)


def weights_of(entry: Entry) -> tuple[int, int]:
    """What tells the weights that a run is asked with from earlier ones."""
    found = [stamp(entry.folder / "checkpoints" / name / MANIFEST) for name in ("best", "last")]
    return next((each for each in found if any(each)), (0, 0))


def closed(name: str, entry: Entry) -> dict[str, Any]:
    """The entry of /v1/models of a model that is not open."""
    meta = {"n_params": entry.summary.get("parameters"), "opened": False}
    return {"id": name, "object": "model", "created": entry.time // 10**9, "owned_by": "terrarium", "meta": meta}
