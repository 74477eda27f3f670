"""Call prepare(job) of an experiment that makes its dataset itself."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.config import Config
from core.data.compose import Build, Made, compose_documents
from core.data.dataset import build_encoder
from core.data.documents import Document
from core.data.info import TEST, check_info, describe, parsed
from core.data.make import SPOOL, offered
from core.data.params import bind, source_of, title
from core.data.spool import Spool
from core.encoders.base import Encoder
from core.errors import UserError


@dataclass
class PrepareJob:
    """The argument of prepare(job) of a prepare.py.

    folder: the experiment's. dataset_dir: to be filled with train.bin, val.bin and the files beside them. It replaces
    the old dataset when prepare returns. rng: seeded by prepare.seed. fetch(address): the path of a file, downloaded
    if it is an address and not there yet. say(text): tells the user. params: [prepare.params].
    """

    folder: Path
    dataset_dir: Path
    raw_dir: Path
    rng: random.Random
    fetch: Callable[..., Path]
    say: Callable[[str], None]
    params: dict[str, Any]
    config: Config
    _write: Callable[[dict[str, Iterable[Document]], Encoder | None], Encoder]

    def write(
        self,
        train_documents: Iterable[Document],
        val_documents: Iterable[Document],
        test_documents: Iterable[Document] = (),
        *,
        encoder: Encoder | None = None,
    ) -> Encoder:
        """Encode documents as usual, with this split instead of prepare.split. All must be finite. No test documents: no test side.

        encoder: one that is used instead of the kind that prepare.encoder names. Returns the encoder that was used.
        """
        return self._write({"train": train_documents, "val": val_documents, "test": test_documents}, encoder)


def make_by_prepare(build: Build) -> Made:
    """Call prepare(job). What it does not write into dataset.json is read from its files."""
    made: list[Made] = []
    function, settings = build.source.function, build.config.prepare
    assert function is not None
    place = f"{source_of(function)}, {title(function)}"

    def write(documents: dict[str, Iterable[Document]], encoder: Encoder | None) -> Encoder:
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
            with_encoder = build if encoder is None else replace(build, encoder=encoder)
            made.append(compose_documents(with_encoder, spool, sides, {"kind": "prepare"}))
        return build_encoder(made[-1].info["encoder"], build.folder, build.source.plugins)

    say = build.source.listener.say
    job = PrepareJob(**offered(build), say=say, params=dict(settings.params), config=build.config, _write=write)
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
