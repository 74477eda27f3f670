"""Make a dataset from a text file, from a file of pairs, or from documents()."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

from core.data import split
from core.data.compose import CUT_ANYWHERE, Build, Made, compose_documents, compose_text, fit
from core.data.encode import NO_FRAME
from core.data.fetching import fetched
from core.data.fingerprint import stamp
from core.data.held_out import check_held_out, draw_held_out, held_out_function, own_params
from core.data.params import bind, title
from core.data.source import INPUT, check_sum, default_size, draw, fetch_input, pairs
from core.data.spool import Spool
from core.data.text import first_and_rest, pieces, read_text
from core.encoders.base import Encoder, frame_of
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
        "fetch": partial(fetched, source),
    }


def make_from_function(build: Build) -> Made:
    """Draw from documents() once, then split and encode."""
    function, settings = build.source.function, build.config.prepare
    assert function is not None
    probes = held_out_function(build.source)
    arguments = bind(function, offered(build), own_params(function, probes, settings.params), build.source.place_of)
    with contextlib.ExitStack() as stack:
        held_out = None if probes is None else stack.enter_context(draw_held_out(build, probes))
        refused = frozenset(held_out.prompt_keys) if held_out else frozenset()
        spool = stack.enter_context(
            Spool(build.folder / SPOOL, settings.seed, title(function), refused, chat=build.source.chat)
        )
        size = settings.size or default_size(build.source)
        documents = function(*arguments.args, **arguments.kwargs)
        draw(spool, documents, size, function, build.source.listener, given=settings.size is not None)
        if held_out is not None:
            check_held_out(build, held_out, spool)
        return split_and_compose(build, spool, held_out)


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
        return {INPUT: {"stamp": self.before, "sha256": self.digest.hexdigest()}}


def make_from_pairs(build: Build) -> Made:
    """Read a file with one Example per line, then split and encode."""
    reading, separator = Reading(build), build.config.prepare.separator
    with Spool(build.folder / SPOOL, build.config.prepare.seed, str(reading.path), chat=build.source.chat) as spool:
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
    about = {"kind": "tail", **fractions(build, "tail")}
    sides = cut_in_sides(build, read_text(reading.path), characters, str(reading.path), encoder)
    made = compose_text(build, encoder, sides, characters, about)
    made.raw = reading.entry()
    return made


def split_and_compose(build: Build, spool: Spool, held_out: Spool | None = None) -> Made:
    """Split the documents by `prepare.split`, then encode them, and the Examples of held_out() if there are any."""
    settings = build.config.prepare
    kind = settings.split if settings.split != "auto" else "tail" if spool.kind == "text" else "hash"
    val, test = fractions(build, kind).values()
    about = {"kind": kind, **fractions(build, kind), "seed": settings.seed}
    spool.close()
    if kind == "hash":
        sides = split.by_hash(spool.keys(), val, test)
    elif kind == "shuffle":
        sides = split.by_shuffle(spool.sizes(), val, test, settings.seed)
    else:
        sides = split.by_tail(spool.sizes(), val, test)
        if spool.kind == "text":
            return compose_stream(build, spool, sides, about)
    return compose_documents(build, spool, sides, about, held_out)


def fractions(build: Build, kind: str) -> dict[str, float]:
    """The fractions held out by a split of this kind."""
    settings = build.config.prepare
    default = split.TEST_FRACTION if kind == "hash" else 0.0
    test = default if settings.test_fraction is None else settings.test_fraction
    return {"val_fraction": settings.val_fraction, "test_fraction": test}


def compose_stream(build: Build, spool: Spool, sides: split.Sides, about: dict[str, Any]) -> Made:
    """Running text, cut where nanoGPT cuts it. If the documents there are short, the cuts are between them.

    So they are where special tokens keep documents apart, unless there are too few.
    """
    sizes = spool.sizes()
    held_out = [numbers for side, numbers in sides.items() if side != "train" and len(numbers)]
    short = all(sizes[numbers[0]] * 10 <= sizes[numbers].sum() for numbers in held_out)
    apart = spool.chat or keeps_apart(build)
    if len(sides["train"]) and (short or (apart and len(held_out) == len(sides) - 1)):
        return compose_documents(build, spool, sides, about)
    encoder = fit(build, pieces(spool.texts()))
    texts = cut_in_sides(build, spool.texts(), spool.characters, spool.what, encoder)
    return compose_text(build, encoder, texts, spool.characters, about)


def keeps_apart(build: Build) -> bool:
    """Whether the encoder may put tokens around documents."""
    if build.encoder is not None or not build.config.prepare.encoder_from:
        return hasattr(build.encoder or build.source.encoder_kind, "pinned")
    return frame_of(build.source.borrowed_encoder()) != NO_FRAME


def cut_in_sides(
    build: Build, texts: Iterable[str], characters: int, place: str, encoder: Encoder
) -> dict[str, Iterable[str]]:
    """Running text of this length as sides, which must be read in order. Raises UserError where one would be empty."""
    val, test = fractions(build, "tail").values()
    cuts = [split.tail_cut(characters, val + test), *([split.tail_cut(characters, test)] if test else [])]
    if not all(low < high for low, high in pairwise([0, *cuts, characters])):
        raise UserError(
            f"{characters:,} characters are too few to hold some out", place=place, remedy="Give it more text."
        )
    exact = encoder.kind in CUT_ANYWHERE
    train, rest = first_and_rest(texts, cuts[0], exact=exact)
    if not test:
        return {"train": train, "val": rest}
    held_out, last = first_and_rest(rest, cuts[1] - cuts[0], exact=exact)
    return {"train": train, "val": held_out, "test": last}
