"""Call prepare(job) of an experiment that makes its dataset itself."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.config import Config
from core.data.compose import Build, Made, compose_documents
from core.data.documents import Document
from core.data.info import TEST, check_info, describe, parsed
from core.data.make import SPOOL, offered
from core.data.params import bind, source_of, title
from core.data.spool import Spool
from core.errors import UserError


@dataclass
class PrepareJob:
    """The argument of prepare(job) of a prepare.py.

    folder: the experiment's. dataset_dir: to be filled with train.bin, val.bin and the files beside them. It replaces
    the old dataset when prepare returns. rng: seeded by prepare.seed. fetch(address): the path of a file, downloaded
    if it is an address and not there yet. params: [prepare.params].
    """

    folder: Path
    dataset_dir: Path
    raw_dir: Path
    rng: random.Random
    fetch: Callable[..., Path]
    params: dict[str, Any]
    config: Config
    _write: Callable[[dict[str, Iterable[Document]]], None]

    def write(
        self,
        train_documents: Iterable[Document],
        val_documents: Iterable[Document],
        test_documents: Iterable[Document] = (),
    ) -> None:
        """Encode documents as usual, with this split instead of prepare.split. All must be finite. No test documents: no test side."""
        self._write({"train": train_documents, "val": val_documents, "test": test_documents})


def make_by_prepare(build: Build) -> Made:
    """Call prepare(job). What it does not write into dataset.json is read from its files."""
    made: list[Made] = []
    function, settings = build.source.function, build.config.prepare
    assert function is not None
    place = f"{source_of(function)}, {title(function)}"

    def write(documents: dict[str, Iterable[Document]]) -> None:
        with Spool(build.folder / SPOOL, settings.seed, "job.write()", chat=build.source.chat) as spool:
            sides = {}
            for side, given in documents.items():
                first = len(spool)
                for document in given:
                    spool.add(document)
                if side != TEST or len(spool) > first:
                    sides[side] = np.arange(first, len(spool))
            spool.close()
            if empty := [side for side, numbers in sides.items() if not len(numbers)]:
                raise UserError(
                    f"job.write() got no documents for {empty[0]}",
                    place=place,
                    remedy="Give it at least one for each side: job.write(train_documents, val_documents).",
                )
            made.append(compose_documents(build, spool, sides, {"kind": "prepare"}))

    job = PrepareJob(**offered(build), params=dict(settings.params), config=build.config, _write=write)
    own_settings = any(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())
    arguments = bind(function, {"job": job}, settings.params if own_settings else {}, build.source.place_of)
    function(*arguments.args, **arguments.kwargs)
    return made[-1] if made else Made(described(build.folder, place))


def described(folder: Path, place: str) -> dict[str, Any]:
    """The content of dataset.json for the files that prepare(job) wrote. Raises UserError if they are not a dataset.

    place: where the function is. Errors name it, because the folder is temporary and gone when they are read.
    """
    own = folder / "dataset.json"
    try:
        info = describe(folder) | (parsed(own) if own.exists() else {})
        check_info(info)
    except UserError as error:
        file = f"{Path(error.place).name}: " if Path(error.place) != folder else ""
        raise UserError(file + error.message, place=place, remedy=error.remedy) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"dataset.json is damaged: {error}",
            place=place,
            remedy="Leave out of it what you do not know, or do not write it: the rest is read from the other files.",
        ) from None
    return info
