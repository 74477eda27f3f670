"""Models that are opened when somebody asks them, and closed when nobody does for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
EVERY = 30.0  # seconds between two looks for models to close


@dataclass(eq=False)
class Held:
    """A model that is open, or is being opened. weights: what tells its checkpoint from others. used: when it was last in use.

    users: how many requests have it in their hands, besides those that its worker knows.
    """

    opening: asyncio.Future[Served]
    weights: tuple[int, int]
    used: float
    users: int = 0

    @property
    def served(self) -> Served | None:
        """The model; None while it is being opened."""
        return self.opening.result() if self.opening.done() and not self.opening.exception() else None

    @property
    def is_idle(self) -> bool:
        """Whether it is open, writes nothing, and nobody is about to ask it."""
        return self.served is not None and not self.users and self.served.worker.is_idle


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
        entries = self.catalog.entries.values()
        return {self.catalog.model_name(entry.id): entry for entry in entries if has_weights(entry)}

    def described(self) -> list[dict[str, Any]]:
        """The entries of /v1/models. Those that are not open say only what their run's summary says."""
        opened = {served.name: served for served in self.models}
        return [
            opened[name].described() if name in opened else closed(name, entry)
            for name, entry in sorted(self.named().items())
        ]

    @asynccontextmanager
    async def using(self, name: str | None, *, may_act: bool = False) -> AsyncIterator[Served]:
        """The model of this name, which is opened if it is not, and again where its run has newer weights. It stays open until
        the end of the block. Raises Refused.
        """
        if name is None:
            raise Refused("model is missing: say which run", param="model", code="missing_field")
        entry = await asyncio.to_thread(self.entry_of, name)
        refuse_code_of_others(entry.lab, may_act=may_act)
        held = self.held_for(name, entry)
        held.users += 1
        try:
            yield await asyncio.shield(held.opening)
        finally:
            held.users -= 1
            held.used = asyncio.get_running_loop().time()

    def held_for(self, name: str, entry: Entry) -> Held:
        """The model of a run, which is being opened if it was not open. Raises Refused where there is no room."""
        weights = weights_of(entry)
        held = self.held.get(name)
        if held and held.weights != weights and held.is_idle:
            self.let_go(name)
            held = None
        if held is None:
            self.make_room()
            opening = asyncio.ensure_future(asyncio.to_thread(self.opened, name, entry))
            opening.add_done_callback(lambda done: self.held.pop(name) if done.exception() else None)
            held = self.held[name] = Held(opening, weights, asyncio.get_running_loop().time())
        return held

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

    def make_room(self) -> None:
        """Close the model that was asked longest ago where as many are open as may be. Raises Refused if all are in use."""
        if len(self.held) < MOST_OPEN:
            return
        idle = [name for name, held in self.held.items() if held.is_idle]
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
        entries = self.catalog.entries
        known = set(map(self.catalog.model_name, entries))
        for name, held in list(self.held.items()):
            is_gone = name not in known and name not in entries
            if held.is_idle and (is_gone or loop.time() - held.used > UNUSED):
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
