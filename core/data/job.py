"""prepare(job): an experiment that makes its dataset by itself, with as much of ours as it wants."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.config import Config
from core.data.compose import Made, Work, compose_documents
from core.data.documents import Document
from core.data.info import describe
from core.data.make import SPOOL, offered
from core.data.params import bind
from core.data.spool import Spool


@dataclass
class Job:
    """What prepare(job) of a prepare.py gets.

    folder: the experiment's. dataset_dir: to be filled with train.bin, val.bin and what belongs to them; it takes
    the place of the old dataset when prepare returns. rng: seeded by prepare.seed. params: [prepare.params].
    """

    folder: Path
    dataset_dir: Path
    raw_dir: Path
    rng: random.Random
    params: dict[str, Any]
    config: Config
    _write: Callable[[Iterable[Document], Iterable[Document]], None]

    def write(self, train_documents: Iterable[Document], val_documents: Iterable[Document]) -> None:
        """Encode documents as ever, but with this split instead of prepare.split. Both must end."""
        self._write(train_documents, val_documents)


def make_by_prepare(work: Work) -> Made:
    """Call prepare(job). What it leaves out of dataset.json, or all of it, is found out from its files."""
    made: list[Made] = []
    function, settings = work.source.function, work.config.prepare
    assert function is not None

    def write(train_documents: Iterable[Document], val_documents: Iterable[Document]) -> None:
        with Spool(work.folder / SPOOL, settings.seed, "job.write()") as spool:
            for document in train_documents:
                spool.add(document)
            first = len(spool)
            for document in val_documents:
                spool.add(document)
            spool.close()
            made.append(
                compose_documents(work, spool, np.arange(first), np.arange(first, len(spool)), {"kind": "prepare"})
            )

    values = offered(work)
    job = Job(**values, params=dict(settings.params), config=work.config, _write=write)
    own_settings = any(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())
    arguments = bind(function, {"job": job}, settings.params if own_settings else {}, work.source.place_of)
    function(*arguments.args, **arguments.kwargs)
    if made:
        return made[-1]
    own = work.folder / "dataset.json"
    return Made(describe(work.folder) | (json.loads(own.read_bytes()) if own.exists() else {}))
