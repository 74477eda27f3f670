"""Make a dataset from a text file, from pairs, or from documents(): the three ordinary ways."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from core.data import split
from core.data.compose import CUT_ANYWHERE, Made, Work, compose_documents, compose_text, fit
from core.data.fingerprint import stamp
from core.data.params import bind, title
from core.data.source import check_sum, draw, fetch_input, pairs
from core.data.spool import Spool
from core.data.text import first_and_rest, pieces, read_text
from core.errors import UserError

SPOOL = ".spool"


def offered(work: Work) -> dict[str, Any]:
    """Values that a function of prepare.py may ask for by name."""
    source = work.source
    if source.reads_raw_dir:
        source.raw_dir.mkdir(parents=True, exist_ok=True)
    return {
        "rng": random.Random(work.config.prepare.seed),
        "raw_dir": source.raw_dir,
        "dataset_dir": work.folder,
        "folder": source.experiment.folder,
    }


def make_from_function(work: Work) -> Made:
    """Draw from documents() once, then split and encode."""
    function, settings = work.source.function, work.config.prepare
    assert function is not None
    arguments = bind(function, offered(work), settings.params, work.source.place_of)
    with Spool(work.folder / SPOOL, settings.seed, title(function)) as spool:
        draw(spool, function(*arguments.args, **arguments.kwargs), settings.size, function, work.progress)
        return split_and_compose(work, spool)


class Reading:
    """One reading of the input from begin to end: its checksum, and the progress."""

    def __init__(self, work: Work) -> None:
        self.work, self.path = work, fetch_input(work.source)
        self.before, self.digest = stamp(self.path), hashlib.sha256()
        self.tell = work.counter("reading", self.path.stat().st_size)

    def on_bytes(self, block: bytes) -> None:
        self.digest.update(block)
        self.tell(len(block))

    def check(self) -> None:
        """Raise UserError if the content is not what prepare.sha256 says."""
        check_sum(self.work.source, self.digest.hexdigest())

    def entry(self) -> dict[str, dict[str, Any]]:
        """The input's entry in dataset.json. Raises UserError if it was written to since the reading began."""
        if stamp(self.path) != self.before:
            raise UserError(
                "was changed while it was read", place=str(self.path), remedy="Prepare again when it is at rest."
            )
        return {"input": {"stamp": self.before, "sha256": self.digest.hexdigest()}}


def make_from_pairs(work: Work) -> Made:
    """Read a file with an Example per line, then split and encode."""
    reading, separator = Reading(work), work.config.prepare.separator
    with Spool(work.folder / SPOOL, work.config.prepare.seed, str(reading.path)) as spool:
        for example, place in pairs(reading.path, separator, reading.on_bytes):
            spool.add(example, place)
        reading.check()
        if not len(spool):
            raise UserError(
                "holds no pairs", place=str(reading.path), remedy=f"Each line is PROMPT{separator}COMPLETION."
            )
        made = split_and_compose(work, spool)
    made.raw = reading.entry()
    return made


def make_from_text(work: Work) -> Made:
    """Read a text file twice, once for the vocabulary and once for the ids; memory does not grow with its size."""
    settings = work.config.prepare
    if settings.split not in ("auto", "tail"):
        raise UserError(
            f'split = "{settings.split}" needs documents, and a text file is one stream',
            place=work.source.place_of("prepare.split") or "prepare.split",
            remedy='Use split = "tail", format = "pairs", or documents() of a prepare.py.',
        )
    reading, characters = Reading(work), 0

    def first_reading() -> Iterator[str]:
        nonlocal characters
        for text in read_text(reading.path, reading.on_bytes):
            characters += len(text)
            yield text

    encoder = fit(work, pieces(first_reading()))
    reading.check()
    cut = tail_cut(characters, settings.val_fraction, str(reading.path))
    about = {"kind": "tail", "val_fraction": settings.val_fraction}
    train, val = first_and_rest(read_text(reading.path), cut, exact=encoder.kind in CUT_ANYWHERE)
    made = compose_text(work, encoder, train, val, characters, about)
    made.raw = reading.entry()
    return made


def split_and_compose(work: Work, spool: Spool) -> Made:
    """Choose the sides by `prepare.split`, then encode them."""
    settings = work.config.prepare
    kind = settings.split if settings.split != "auto" else "tail" if spool.kind == "text" else "hash"
    about = {"kind": kind, "val_fraction": settings.val_fraction, "seed": settings.seed}
    spool.close()
    if kind == "tail" and spool.kind == "text":
        return compose_stream(work, spool, about)
    if kind == "hash":
        train, val = split.by_hash(spool.keys(), settings.val_fraction)
    elif kind == "tail":
        train, val = split.by_tail(spool.sizes(), settings.val_fraction)
    else:
        train, val = split.by_shuffle(spool.sizes(), settings.val_fraction, settings.seed)
    return compose_documents(work, spool, train, val, about)


def compose_stream(work: Work, spool: Spool, about: dict[str, Any]) -> Made:
    """Running text, cut where nanoGPT cuts it; but where the document there is short, before it instead of inside."""
    sizes = spool.sizes()
    cut = tail_cut(spool.characters, work.config.prepare.val_fraction, spool.what)
    train, val = split.by_tail(sizes, work.config.prepare.val_fraction)
    if len(train) and sizes[val[0]] * 10 <= spool.characters - cut:
        return compose_documents(work, spool, train, val, about)
    encoder = fit(work, pieces(spool.texts()))
    train_text, val_text = first_and_rest(spool.texts(), cut, exact=encoder.kind in CUT_ANYWHERE)
    return compose_text(work, encoder, train_text, val_text, spool.characters, about)


def tail_cut(characters: int, val_fraction: float, place: str) -> int:
    """Where running text is cut. Raises UserError where a side would be empty."""
    cut = split.tail_cut(characters, val_fraction)
    if not 0 < cut < characters:
        raise UserError(
            f"{characters:,} characters are too few to hold some out", place=place, remedy="Give it more text."
        )
    return cut
