"""Models that are opened when somebody asks them, and closed when nobody does for a while."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from core.serve.errors import Refused
from core.serve.limits import Limits
from core.serve.live.catalog import Catalog, Entry
from core.serve.live.rows import plan_of

if TYPE_CHECKING:
    from core.serve.models import Served

MOST_OPEN = 2
UNUSED = 300.0  # seconds after which a model is closed
JUST_FOUND = 30.0  # seconds in which whoever has asked for a model may not have used it yet


class OpenedWhenAsked:
    """The models of every run that has a checkpoint, by the names EXP/RUN, EXP/RUN/STAGE, or with the lab before them."""

    def __init__(self, catalog: Catalog, limits: Limits) -> None:
        self.catalog, self.limits = catalog, limits
        self.open: dict[str, Served] = {}
        self.used: dict[str, float] = {}
        self.turn = threading.Lock()

    @property
    def models(self) -> tuple[Served, ...]:
        """Those that are open."""
        return tuple(self.open.values())

    def named(self) -> dict[str, Entry]:
        """The runs that can be asked, by name. The lab stands before it where there are several."""
        self.catalog.update(1.0)
        several = len(self.catalog.labs) > 1
        found = {}
        for entry in self.catalog.entries.values():
            checkpoints = entry.folder / "checkpoints"
            if not entry.problem and any((checkpoints / name).is_dir() for name in ("best", "last")):
                found[entry.id if several else entry.id.partition("/")[2]] = entry
        return found

    def described(self) -> list[dict[str, Any]]:
        """The entries of /v1/models. Those that are not open say only what their run's summary says."""
        return [
            self.open[name].described() if name in self.open else closed(name, entry)
            for name, entry in sorted(self.named().items())
        ]

    def find(self, name: str | None) -> Served:
        """The model of this name, which is opened if it is not. Raises Refused."""
        if name is None:
            raise Refused("model is missing: say which run", param="model", code="missing_field")
        with self.turn:
            self.close_unused()
            if name not in self.open:
                self.open[name] = self.opened(name)
            self.used[name] = time.monotonic()
            return self.open[name]

    def opened(self, name: str) -> Served:
        """Open the model of a run. Raises Refused if there is no such run, or its checkpoint cannot be read."""
        from core.errors import RunFailed, UserError
        from core.serve.errors import refused
        from core.serve.models import open_model

        known = self.named()
        entry = known.get(name) or known.get(name.partition("/")[2] if name in self.catalog.entries else "")
        if entry is None:
            raise Refused(f"no model is called {name[:100]!r}", status=404, param="model", code="model_not_found")
        try:
            served = open_model(name, entry.experiment.argument, entry.name, plan_of(entry).variant, (), self.limits)
        except UserError as error:
            raise refused(error, "model") from None
        except RunFailed as error:
            raise Refused(str(error), param="model", code="invalid_value") from None
        served.worker.start()
        return served

    def close_unused(self) -> None:
        """Close models that nobody has asked for some minutes, and the oldest ones where too many are open."""
        now = time.monotonic()
        idle = [
            name for name in sorted(self.open, key=lambda name: self.used[name]) if not self.open[name].worker.tickets
        ]
        over = max(0, len(self.open) - MOST_OPEN + 1)
        for place, name in enumerate(idle):
            unused = now - self.used[name]
            if unused > UNUSED or (place < over and unused > JUST_FOUND):
                self.open.pop(name).worker.close()
                del self.used[name]

    def start(self) -> None:
        """Nothing is open yet."""

    def close(self) -> None:
        """Close all."""
        with self.turn:
            for served in self.open.values():
                served.worker.close()
            self.open.clear()


def closed(name: str, entry: Entry) -> dict[str, Any]:
    """The entry of /v1/models of a model that is not open."""
    meta = {"n_params": entry.summary.get("parameters"), "opened": False}
    return {"id": name, "object": "model", "created": entry.time // 10**9, "owned_by": "terrarium", "meta": meta}
