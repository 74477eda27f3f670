"""prepare(job): an experiment that makes its dataset by itself, with as much of ours as it wants."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.config import Config
from core.data.compose import Made, Work, compose_documents
from core.data.documents import Document
from core.data.info import check_info, describe, parsed
from core.data.make import SPOOL, offered
from core.data.params import bind, source_of, title
from core.data.spool import Spool
from core.errors import UserError


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
            if not 0 < first < len(spool):
                raise UserError(
                    f"job.write() got no documents for {'train' if not first else 'val'}",
                    place=made_in(function),
                    remedy="Give it at least one for each side: job.write(train_documents, val_documents).",
                )
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
    return Made(left_by(function, work.folder))


def left_by(function: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """What dataset.json should say of the files that prepare(job) wrote. Raises UserError if they are no dataset.

    Errors name the function: the folder is a temporary one, which is gone when they are read.
    """
    own = folder / "dataset.json"
    try:
        info = describe(folder) | (parsed(own) if own.exists() else {})
        check_info(info)
    except UserError as error:
        file = f"{Path(error.place).name}: " if Path(error.place) != folder else ""
        raise UserError(file + error.message, place=made_in(function), remedy=error.remedy) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"dataset.json is damaged: {error}",
            place=made_in(function),
            remedy="Leave out of it what you do not know, or all of it: the rest is found out from the other files.",
        ) from None
    return info


def made_in(function: Callable[..., Any]) -> str:
    return f"{source_of(function)}, {title(function)}"
