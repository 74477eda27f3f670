"""Fit an encoder and write both sides of a dataset with it: text or documents in, files and dataset.json's content out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.config import Config
from core.data import split
from core.data.documents import segments
from core.data.encode import Side, token_type
from core.data.meta_pkl import write_meta
from core.data.source import Progress, Source
from core.data.split import Numbers
from core.data.spool import Spool
from core.data.text import pieces
from core.encoders.base import Encoder
from core.errors import UserError
from core.plugins.manager import plugins

CUT_ANYWHERE = ("char", "bytes")  # encoders with no token longer than a character


@dataclass
class Made:
    """What stands in the new folder. info: for dataset.json. checksums: sha256 of files, where known. raw: of the input."""

    info: dict[str, Any]
    checksums: dict[str, str] = field(default_factory=dict)
    raw: dict[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Work:
    """A source, the folder to fill, and whom to tell how far it is."""

    source: Source
    folder: Path
    progress: Progress

    @property
    def config(self) -> Config:
        return self.source.config

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """A function that adds up how much is done."""
        done = 0

        def add(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, total)

        return add


def fit(work: Work, texts: Iterable[str], *, end_token: bool = False) -> Encoder:
    """The encoder that `prepare.encoder` names, with a vocabulary from these texts, which are read to their end.

    end_token: it should have one; kinds that can do without one are asked for it.
    """
    settings, unread = work.config.prepare, iter(texts)
    if settings.encoder_from:
        encoder = work.source.borrowed_encoder()
        if end_token and encoder.end_token is None:
            raise UserError(
                "the borrowed encoder has no end token, and these completions end in no text of their own",
                place=work.source.place_of("prepare.encoder_from"),
                remedy="End each completion with a line break.",
            )
        for _ in unread:
            pass
        return encoder
    kind: type[Encoder] = plugins().get(
        "encoders", settings.encoder, work.source.place_of("prepare.encoder") or "prepare.encoder"
    )
    asked = {"end_token": True} if end_token and "end_token" in inspect.signature(kind.fit).parameters else {}
    encoder = kind.fit(unread, vocab_size=settings.vocab_size, **asked)
    for _ in unread:  # an encoder with a fixed vocabulary has read nothing
        pass
    return encoder


def compose_text(
    work: Work, encoder: Encoder, train: Iterable[str], val: Iterable[str], characters: int, about: dict[str, Any]
) -> Made:
    """Write running text. characters: of both sides, for the progress. about: the split, for dataset.json."""
    tell = work.counter("encoding", characters)
    sides = [Side(work.folder, "train", encoder, tell), Side(work.folder, "val", encoder, tell)]
    for side, texts in zip(sides, (train, val), strict=True):
        side.write_text(texts)
    return finish(work, encoder, sides, {"kind": "text", "stop": "", "end_token": None, "groups": [], "split": about})


def compose_documents(work: Work, spool: Spool, train: Numbers, val: Numbers, about: dict[str, Any]) -> Made:
    """Write documents, given the numbers of each side. Raises UserError where a side is empty."""
    keys, numbers = spool.keys(), {"train": train, "val": val}
    for name, chosen in numbers.items():
        if not len(chosen):
            raise UserError(
                f"nothing is left for {name}: {len(spool):,} documents, {len(set(keys.tolist())):,} of them different, "
                f'under split = "{about["kind"]}"',
                place=spool.what,
                remedy='There must be two different ones at least; prompts that are all the same need split = "shuffle".',
            )
    about = {**about, "overlap": split.overlap(keys[train], keys[val])}
    if spool.kind == "text":
        encoder = fit(work, pieces(spool.texts()))
        return compose_text(work, encoder, spool.texts(train), spool.texts(val), spool.characters, about)
    stop = spool.ending or ""
    texts: Iterable[str] = (text for document in spool.read() for text, _ in segments(document))
    if work.config.prepare.encoder in CUT_ANYWHERE:  # a few long texts are quicker to learn from than many short ones
        texts = pieces(texts)
    encoder = fit(work, texts, end_token=not stop)
    end = None if stop else encoder.end_token
    tell = work.counter("encoding", spool.characters)
    sides = []
    for name, chosen in numbers.items():
        sides.append(Side(work.folder, name, encoder, tell))
        sides[-1].write_documents(spool.read(chosen.tolist()), keys[chosen], spool.groups, end)
    info = {"kind": spool.kind, "stop": stop, "end_token": end, "groups": list(spool.groups), "split": about}
    return finish(work, encoder, sides, info)


def finish(work: Work, encoder: Encoder, sides: list[Side], info: dict[str, Any]) -> Made:
    """meta.pkl where nanoGPT would have one, and the rest of dataset.json."""
    if encoder.kind == "char":
        write_meta(work.folder / "meta.pkl", encoder.state()["itos"])
    checksums: dict[str, str] = {}
    for side in sides:
        checksums |= side.checksums
    return Made(
        {
            "encoder": {"kind": encoder.kind} | encoder.state(),
            "vocab_size": encoder.vocab_size,
            "dtype": token_type(encoder.vocab_size).name,
            **info,
            **{side.name: side.counts for side in sides},
        },
        checksums,
    )
