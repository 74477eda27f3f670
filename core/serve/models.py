"""The models that a server offers, by the names that clients use: EXP, EXP/RUN or EXP/RUN/STAGE."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from core.errors import UserError, did_you_mean
from core.lab.choosing import split
from core.lab.model import LoadedModel, load_model
from core.lab.opened import open_folder
from core.lab.stages import trained_as
from core.listener import SILENT, Listener
from core.models.build import parameter_count
from core.serve.errors import Refused
from core.serve.limits import Limits
from core.serve.worker import Worker


@dataclass(frozen=True)
class Served:
    """A model that clients can ask. name: as they call it. created: when its checkpoint was written, seconds since 1970."""

    name: str
    model: LoadedModel
    worker: Worker
    created: int

    @property
    def can_chat(self) -> bool:
        """Whether it was trained on conversations with special tokens."""
        return self.model.trained.conversations

    @property
    def title(self) -> str:
        """The name, with what it is good for."""
        return f"{self.name} ({'chat' if self.can_chat else 'text'})"

    def described(self) -> dict[str, Any]:
        """An entry of /v1/models."""
        own = self.model.decoding({})
        meta = {
            "n_vocab": self.model.encoder.vocab_size,
            "n_ctx_train": self.model.block_size,
            "n_params": parameter_count(self.model.module),
            "chat": self.can_chat,
            "temperature": own["temperature"],
            "top_k": own["top_k"],
        }
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "terrarium", "meta": meta}


class AnyShelf(Protocol):
    """The models of a server."""

    @property
    def models(self) -> tuple[Served, ...]:
        """Those that are open."""

    def described(self) -> list[dict[str, Any]]:
        """The entries of /v1/models."""

    def using(self, name: str | None, *, may_act: bool = False) -> AbstractAsyncContextManager[Served]:
        """The model of this name, which stays open for the block; without a name the only one. may_act: whether the token was
        shown. Raises Refused.
        """

    def start(self) -> None:
        """Start the workers."""

    def close(self) -> None:
        """End the workers."""


@dataclass(frozen=True)
class Shelf:
    """All models of a server, which are open from its start to its end."""

    models: tuple[Served, ...]

    def described(self) -> list[dict[str, Any]]:
        """The entries of /v1/models."""
        return [served.described() for served in self.models]

    def start(self) -> None:
        """Start the workers."""
        for served in self.models:
            served.worker.start()

    def close(self) -> None:
        """End the workers."""
        for served in self.models:
            served.worker.close()

    @asynccontextmanager
    async def using(self, name: str | None, *, may_act: bool = False) -> AsyncIterator[Served]:
        """The model of this name; without a name the only one. Raises Refused."""
        yield self.find(name)

    def find(self, name: str | None) -> Served:
        """`using`, for those who do not wait."""
        if name is None and len(self.models) == 1:
            return self.models[0]
        for served in self.models:
            if served.name == name:
                return served
        names = [served.name for served in self.models]
        if name is None:
            raise Refused(f"model is missing: it is one of {', '.join(names)}", param="model", code="missing_field")
        message = f"no model is called {name[:100]!r}. {did_you_mean(name[:100], names)}"
        raise Refused(message, status=404, param="model", code="model_not_found")


def open_models(
    names: Sequence[str], variant: str, overrides: Sequence[str], limits: Limits, listener: Listener = SILENT
) -> Shelf:
    """Load models by name: EXP, EXP/RUN or EXP/RUN/STAGE.

    Raises UserError for an unknown name, and for one that is given twice.
    """
    served: dict[str, Served] = {}
    for name in names:
        experiment, run = split(name)
        known = experiment.name if run is None else f"{experiment.name}/{run}"
        model = open_model(known, experiment.argument, run, variant, overrides, limits, listener)
        if known in served:
            raise UserError(f"two models would be called {known}", place=name, remedy="Name each model once.")
        served[known] = model
    return Shelf(tuple(served.values()))


def open_model(
    known: str,
    experiment: str,
    run: str | None,
    variant: str,
    overrides: Sequence[str],
    limits: Limits,
    listener: Listener = SILENT,
) -> Served:
    """Load a run's model, to be called `known`. Raises UserError and RunFailed."""
    opened = open_folder(experiment, variant, overrides, listener)
    model = load_model(*trained_as(opened, run))
    if not any(text.startswith("sample.runtime.threads=") for text in overrides):
        model = with_a_core_left(model)
    summary = model.run.folder / "summary.json"
    created = int((summary if summary.is_file() else model.run.folder).stat().st_mtime)
    return Served(known, model, Worker(model, limits), created)


def with_a_core_left(model: LoadedModel) -> LoadedModel:
    """The model, which computes on all cores but one: requests need one too.

    On two cores, answers then come at twice to three times the rate (docs/LOG.md).
    """
    machine = model.trained.machine
    machine = replace(machine, threads=max(1, min(machine.threads, torch.get_num_threads() - 1)))
    return replace(model, trained=replace(model.trained, machine=machine))
