"""Fit an encoder and write both sides of a dataset with it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import process
from core.chat.conversation import END, SPECIAL, Conversation
from core.chat.render import trimmed
from core.config import Config
from core.data import split
from core.data.documents import Document, segments
from core.data.encode import Coding, Side, encode_here, token_type
from core.data.info import HELD_OUT
from core.data.meta_pkl import write_meta
from core.data.source import Source
from core.data.spool import Spool
from core.data.text import pieces
from core.encoders.base import Encoder, Frame, frame_of
from core.encoders.special import STATE, WithSpecialTokens, has_special, marks_of
from core.errors import UserError

SMALLEST = 257  # ids that prepare.vocab_size must leave for text: as without special tokens
CUT_ANYWHERE = ("char", "bytes")  # encoders with no token longer than a character


@dataclass
class Made:
    """The content of the new folder. info: for dataset.json. checksums: sha256 by file, where known. raw: of the input."""

    info: dict[str, Any]
    checksums: dict[str, str] = field(default_factory=dict)
    raw: dict[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Build:
    """A dataset being built: its source, and the folder to fill. encoder: one that prepare.py has made; None: what the settings
    say. coding: who encodes."""

    source: Source
    folder: Path
    encoder: Encoder | None = None
    coding: Coding = encode_here

    @property
    def config(self) -> Config:
        return self.source.config

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """A function that adds up how much is done and reports it."""
        done = 0

        def add(count: int) -> None:
            nonlocal done
            done += count
            self.source.listener.progress(what, done, total)

        return add


def fit(build: Build, texts: Iterable[str], *, end_token: bool = False) -> Encoder:
    """The encoder that `prepare.encoder` names, with a vocabulary from these texts. All of them are read.

    end_token: the encoder needs one. Kinds where it is optional are asked for it.
    """
    settings, unread = build.config.prepare, iter(texts)
    if build.encoder is not None:
        encoder = build.encoder
        if settings.special_tokens == "chat" and not has_special(encoder):
            encoder = WithSpecialTokens(encoder, SPECIAL)
    elif settings.encoder_from:
        encoder = build.source.borrowed_encoder()
        if settings.special_tokens == "chat" and not has_special(encoder):
            raise UserError(
                f"the encoder of {settings.encoder_from} has no special tokens",
                place=build.source.place_of("prepare.special_tokens"),
                remedy='Set prepare.special_tokens = "chat" where that dataset is made.',
            )
        cut = getattr(getattr(encoder, "inner", encoder), "split_pattern", "gpt2")
        if settings.split_pattern not in ("gpt2", cut):
            raise UserError(
                f"the encoder of {settings.encoder_from} cuts text by {cut!r}, not by {settings.split_pattern!r}",
                place=build.source.place_of("prepare.split_pattern"),
                remedy="Leave split_pattern out, or set it where that dataset is made.",
            )
        if end_token and encoder.end_token is None:
            raise UserError(
                "the borrowed encoder has no end token, and these completions do not end in a common character",
                place=build.source.place_of("prepare.encoder_from"),
                remedy="End each completion with a line break.",
            )
    else:
        kind = build.source.encoder_kind
        takes, chat = inspect.signature(kind.fit).parameters, settings.special_tokens == "chat"
        special = SPECIAL if chat and "chat" not in takes else ()
        asked: dict[str, Any] = {"end_token": True} if end_token and not special and "end_token" in takes else {}
        if settings.split_pattern != "gpt2":
            refuse_setting(build, kind, "split_pattern", "cut text by a pattern", "bpe")
            asked["split_pattern"] = settings.split_pattern
        if settings.tokenizer:
            refuse_setting(build, kind, "tokenizer", "read a tokenizer from files", "hf")
        asked |= {"tokenizer": build.source.tokenizer} if "tokenizer" in takes else {}
        asked |= {"chat": chat} if "chat" in takes else {}
        # The files of a tokenizer have a fingerprint of their own: they are no inputs of documents().
        with process.noting_opened_files() if "tokenizer" in takes else contextlib.nullcontext():
            encoder = kind.fit(unread, vocab_size=ids_of_text(build, len(special)), **asked)
        for sentence in getattr(encoder, "notes", ()):
            build.source.listener.say(sentence)
        if special:
            encoder = WithSpecialTokens(encoder, special)
    for _ in unread:  # an encoder with a fixed vocabulary has read nothing
        pass
    return encoder


def refuse_setting(build: Build, kind: type[Encoder], key: str, what: str, other: str) -> None:
    """Raise UserError if a kind of encoder does not take a setting. what: it is for. other: a kind that takes it."""
    if key not in inspect.signature(kind.fit).parameters:
        raise UserError(
            f"the encoder {kind.kind} does not {what}",
            place=build.source.place_of(f"prepare.{key}"),
            remedy=f'Leave {key} out, or set prepare.encoder = "{other}".',
        )


def ids_of_text(build: Build, special: int) -> int:
    """How many ids text may have beside the special tokens. Raises UserError if those leave too few."""
    left = build.config.prepare.vocab_size - special
    if left < SMALLEST:
        raise UserError(
            f"vocab_size = {left + special} leaves {left} ids beside the {special} special tokens, too few for text",
            place=build.source.place_of("prepare.vocab_size"),
            remedy=f"Use {SMALLEST + special} or more.",
        )
    return left


def compose_text(
    build: Build,
    encoder: Encoder,
    texts: Mapping[str, Iterable[str]],
    characters: int,
    about: dict[str, Any],
    *,
    apart: bool = False,
) -> Made:
    """Write running text. texts: of each side. characters: of all sides, for the progress. about: the split, for dataset.json.

    apart: each text is a document, with the encoder's begin and end token around it, if it has them; otherwise all of them
    are one document.
    """
    frame = frame_of(encoder)
    tell = build.counter("encoding", characters)
    sides = []
    for name, text in texts.items():
        sides.append(Side(build.folder, name, encoder, tell, build.coding))
        first, last = apart or len(sides) == 1, apart or len(sides) == len(texts)
        sides[-1].write_text(
            text,
            Frame(frame.begin if first else None, frame.end if last else None),
            apart=apart,
            masked=frame.begin is not None,
        )
    info: dict[str, Any] = {"kind": "text", "stop": "", "end_token": frame.end, "groups": [], "split": about}
    return finish(build, encoder, sides, info | begin_entry(frame))


def begin_entry(frame: Frame) -> dict[str, Any]:
    """The entry of dataset.json on the token that begins documents; none without one."""
    return {} if frame.begin is None else {"begin": frame.begin}


def compose_documents(
    build: Build, spool: Spool, numbers: split.Sides, about: dict[str, Any], held_out: Spool | None = None
) -> Made:
    """Write documents, given the numbers of each side. held_out: Examples that are on none of them, written beside them.

    Raises UserError where a side is empty.
    """
    keys = spool.keys()
    for name, chosen in numbers.items():
        if not len(chosen):
            raise UserError(
                f"no documents are left for {name}: there are {len(spool):,}, {len(set(keys.tolist())):,} of them different, "
                f'with split = "{about["kind"]}"',
                place=spool.what,
                remedy='Yield at least two different documents. If all prompts are the same, use split = "shuffle".',
            )
    about = {**about, "overlap": split.overlap(keys[numbers["train"]], keys[numbers["val"]])}
    if "test" in numbers and about["kind"] == "column":
        about["test_overlap"] = split.overlap(keys[numbers["train"]], keys[numbers["test"]])
    if spool.kind == "text" and not spool.chat:
        encoder = fit(build, pieces(spool.texts()))
        of_sides = {name: spool.texts(chosen) for name, chosen in numbers.items()}
        return compose_text(build, encoder, of_sides, spool.characters, about, apart=True)
    chat = spool.chat and spool.kind != "examples"
    stop = "" if chat else spool.ending or ""
    spools = [spool] if held_out is None else [spool, held_out]
    texts: Iterable[str] = (
        text
        for each in spools
        for document in each.read()
        for text, _, special in segments(document, chat=chat)
        if not special
    )
    if build.config.prepare.encoder in CUT_ANYWHERE:  # a few long texts are faster to learn from than many short ones
        texts = pieces(texts)
    encoder = fit(build, texts, end_token=not stop)
    ends = None if stop or chat else encoder.end_token  # what is written behind each learnt piece
    end = marks_of(encoder)[END][0] if chat else ends
    frame = Frame(None if chat else frame_of(encoder).begin, ends)
    tell = build.counter("encoding", spool.characters)
    sides = []
    for name, chosen in numbers.items():
        sides.append(Side(build.folder, name, encoder, tell, build.coding))
        documents = spool.read(chosen.tolist())
        fits: list[bool] | None = None
        if chat and build.config.prepare.max_tokens and spool.kind == "conversations":
            fits = []
            documents = trim(build, documents, encoder, f"{spool.what}, {name} side", fits)
        sides[-1].write_documents(documents, keys[chosen], spool.groups, frame, chat=chat, fits=fits)
    if held_out is not None:
        sides.append(Side(build.folder, HELD_OUT, encoder))
        sides[-1].write_documents(held_out.read(), held_out.keys(), held_out.groups, frame)
        about |= {"held_out_removed": spool.left_out}
    kind = "documents" if spool.kind == "text" else spool.kind
    info: dict[str, Any] = {"kind": kind, "stop": stop, "end_token": end, "groups": list(spool.groups), "split": about}
    info |= begin_entry(frame)
    return finish(
        build, encoder, sides, info | ({} if held_out is None else {"held_out_groups": list(held_out.groups)})
    )


def trim(
    build: Build, documents: Iterable[Document], encoder: Encoder, place: str, fits: list[bool]
) -> Iterator[Document]:
    """The conversations without the oldest turns of those that are longer than `prepare.max_tokens`, which is told.

    fits: gets whether each stays. One whose last turns alone are longer does not, which is told, too. Raises UserError if
    none stays.
    """
    limit, shorter, longest = build.config.prepare.max_tokens, 0, None
    for document in documents:
        assert isinstance(document, Conversation)
        try:
            kept = trimmed(document, encoder, limit)
        except UserError as error:
            longest = longest or UserError(error.message, place=place, remedy=error.remedy)
            fits.append(False)
            continue
        fits.append(True)
        shorter += kept is not document
        yield kept
    if longest and not any(fits):
        raise longest
    if shorter:
        build.source.listener.say(
            f"{place}: {shorter:,} conversation{'s have' if shorter > 1 else ' has'} more than {limit:,} tokens "
            "(prepare.max_tokens), so the oldest turns are left out."
        )
    if longest:
        out = fits.count(False)
        build.source.listener.say(
            f"{place}: {out:,} conversation{'s are' if out > 1 else ' is'} left out, because the last turns alone have more "
            f"than {limit:,} tokens (prepare.max_tokens)."
        )


def finish(build: Build, encoder: Encoder, sides: list[Side], info: dict[str, Any]) -> Made:
    """Write meta.pkl where nanoGPT would have one, and complete the content of dataset.json."""
    if encoder.kind == "char":
        write_meta(build.folder / "meta.pkl", [*encoder.state()["itos"], *encoder.state().get(STATE, [])])
    described = {
        "encoder": {"kind": encoder.kind} | encoder.state(),
        "vocab_size": encoder.vocab_size,
        "dtype": token_type(encoder.vocab_size).name,
    }
    checksums = {name: checksum for side in sides for name, checksum in side.checksums.items()}
    texts = {side.name: side.text.hexdigest() for side in sides}
    return Made(described | info | {side.name: side.counts for side in sides} | {"texts": texts}, checksums)
