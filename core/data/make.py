"""Make a dataset from a text file, from a file of pairs, or from documents()."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from core.data import split
from core.data.compose import CUT_ANYWHERE, Build, Made, compose_documents, compose_text, fit
from core.data.fingerprint import stamp
from core.data.params import bind, title
from core.data.source import check_sum, draw, fetch_input, pairs
from core.data.spool import Spool
from core.data.text import first_and_rest, pieces, read_text
from core.errors import UserError

SPOOL = ".spool"


def offered(build: Build) -> dict[str, Any]:
    """The values that a function of prepare.py may ask for by name."""
    source = build.source
    if source.may_read("raw_dir"):
        source.raw_dir.mkdir(parents=True, exist_ok=True)
    return {
        "rng": random.Random(build.config.prepare.seed),
        "raw_dir": source.raw_dir,
        "dataset_dir": build.folder,
        "folder": source.experiment.folder,
    }


def make_from_function(build: Build) -> Made:
    """Draw from documents() once, then split and encode."""
    function, settings = build.source.function, build.config.prepare
    assert function is not None
    arguments = bind(function, offered(build), settings.params, build.source.place_of)
    with Spool(build.folder / SPOOL, settings.seed, title(function)) as spool:
        draw(spool, function(*arguments.args, **arguments.kwargs), settings.size, function, build.source.listener)
        return split_and_compose(build, spool)


class Reading:
    """One reading of the input from beginning to end. Takes its checksum and reports the progress."""

    def __init__(self, build: Build) -> None:
        self.build, self.path = build, fetch_input(build.source)
        self.before, self.digest = stamp(self.path), hashlib.sha256()
        self.tell = build.counter("reading", self.path.stat().st_size)

    def on_bytes(self, block: bytes) -> None:
        self.digest.update(block)
        self.tell(len(block))

    def check(self) -> None:
        """Raise UserError if the content does not match prepare.sha256."""
        check_sum(self.build.source, self.digest.hexdigest())

    def entry(self) -> dict[str, dict[str, Any]]:
        """The input's entry in dataset.json. Raises UserError if the file was written to since the reading began."""
        if stamp(self.path) != self.before:
            raise UserError(
                "was changed while it was read",
                place=str(self.path),
                remedy="Prepare again when nothing writes to it.",
            )
        return {"input": {"stamp": self.before, "sha256": self.digest.hexdigest()}}


def make_from_pairs(build: Build) -> Made:
    """Read a file with one Example per line, then split and encode."""
    reading, separator = Reading(build), build.config.prepare.separator
    with Spool(build.folder / SPOOL, build.config.prepare.seed, str(reading.path)) as spool:
        for example, place in pairs(reading.path, separator, reading.on_bytes):
            spool.add(example, place)
        reading.check()
        if not len(spool):
            raise UserError(
                "holds no pairs", place=str(reading.path), remedy=f"Each line is PROMPT{separator}COMPLETION."
            )
        made = split_and_compose(build, spool)
    made.raw = reading.entry()
    return made


def make_from_text(build: Build) -> Made:
    """Read a text file twice: once for the vocabulary, once for the ids. Memory does not grow with its size."""
    settings = build.config.prepare
    if settings.split not in ("auto", "tail"):
        raise UserError(
            f'split = "{settings.split}" needs documents, and a text file is one stream',
            place=build.source.place_of("prepare.split") or "prepare.split",
            remedy='Use split = "tail", format = "pairs", or documents() of a prepare.py.',
        )
    reading, characters = Reading(build), 0

    def first_reading() -> Iterator[str]:
        nonlocal characters
        for text in read_text(reading.path, reading.on_bytes):
            characters += len(text)
            yield text

    encoder = fit(build, pieces(first_reading()))
    reading.check()
    cut = tail_cut(characters, settings.val_fraction, str(reading.path))
    about = {"kind": "tail", "val_fraction": settings.val_fraction}
    train, val = first_and_rest(read_text(reading.path), cut, exact=encoder.kind in CUT_ANYWHERE)
    made = compose_text(build, encoder, train, val, characters, about)
    made.raw = reading.entry()
    return made


def split_and_compose(build: Build, spool: Spool) -> Made:
    """Split the documents by `prepare.split`, then encode them."""
    settings = build.config.prepare
    kind = settings.split if settings.split != "auto" else "tail" if spool.kind == "text" else "hash"
    about = {"kind": kind, "val_fraction": settings.val_fraction, "seed": settings.seed}
    spool.close()
    if kind == "hash":
        train, val = split.by_hash(spool.keys(), settings.val_fraction)
    elif kind == "shuffle":
        train, val = split.by_shuffle(spool.sizes(), settings.val_fraction, settings.seed)
    else:
        train, val = split.by_tail(spool.sizes(), settings.val_fraction)
        if spool.kind == "text":
            return compose_stream(build, spool, train, val, about)
    return compose_documents(build, spool, train, val, about)


def compose_stream(build: Build, spool: Spool, train: split.Numbers, val: split.Numbers, about: dict[str, Any]) -> Made:
    """Write running text, cut where nanoGPT cuts it. If the document there is short, the cut is before it instead of inside."""
    cut = tail_cut(spool.characters, build.config.prepare.val_fraction, spool.what)
    if len(train) and spool.sizes()[val[0]] * 10 <= spool.characters - cut:
        return compose_documents(build, spool, train, val, about)
    encoder = fit(build, pieces(spool.texts()))
    train_text, val_text = first_and_rest(spool.texts(), cut, exact=encoder.kind in CUT_ANYWHERE)
    return compose_text(build, encoder, train_text, val_text, spool.characters, about)


def tail_cut(characters: int, val_fraction: float, place: str) -> int:
    """Where running text is cut. Raises UserError where a side would be empty."""
    cut = split.tail_cut(characters, val_fraction)
    if not 0 < cut < characters:
        raise UserError(
            f"{characters:,} characters are too few to hold some out", place=place, remedy="Give it more text."
        )
    return cut
