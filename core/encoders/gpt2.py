"""GPT-2's byte-level BPE, with the same ids as tiktoken. Its merges are downloaded once."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Self

from core.download import download
from core.encoders.base import Encoder, Ids
from core.encoders.bytelevel import ByteLevel
from core.encoders.text import wrong_state
from core.errors import UserError
from core.files import cache_folder, sha256

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
VOCAB_SIZE = 50_257  # the last id ends a text
SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


class Gpt2Encoder(Encoder):
    """GPT-2's coder. Its merges are read when text is first encoded or decoded: to train on ids, nobody needs them."""

    kind = "gpt2"

    def __init__(self, merges: Sequence[tuple[str, str]] | None = None) -> None:
        """merges: pairs of tokens in order of rank, each spelled in GPT-2's alphabet of bytes; None: GPT-2's own."""
        if merges is not None:
            self.coder = ByteLevel(merges)
        self.vocab_size = VOCAB_SIZE if merges is None else self.coder.vocab_size
        self.end_token = self.vocab_size - 1

    @functools.cached_property
    def coder(self) -> ByteLevel:
        """The coder. Raises UserError where the merges are not available."""
        return ByteLevel(read_merges(vocabulary()))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """From a file like GPT-2's vocab.bpe."""
        return cls(read_merges(path))

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0) -> Self:
        """Load GPT-2's merges; neither argument is used. Raises UserError where they are not available."""
        return cls.from_file(vocabulary())

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if state:
            raise wrong_state(cls.kind, state)
        return cls()

    def state(self) -> dict[str, Any]:
        """Empty: the merges are always the same."""
        return {}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError for half a surrogate pair, and as `coder` does."""
        return self.coder.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, on all cores."""
        return self.coder.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; the end token becomes "", invalid UTF-8 becomes U+FFFD."""
        return self.coder.decode(ids)


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges of a file like GPT-2's vocab.bpe: a line with its version, then a merge per line."""
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    return [(left, right) for left, right in (line.split(" ") for line in lines)]


def vocabulary() -> Path:
    """The path of vocab.bpe: in the cache, in tiktoken's cache, or downloaded now. Raises UserError if it is not available."""
    ours = cache_folder() / "gpt2" / "vocab.bpe"
    places = [ours]
    if folder := os.environ.get("TIKTOKEN_CACHE_DIR"):
        places.append(Path(folder) / hashlib.sha1(URL.encode()).hexdigest())  # tiktoken's name for it
    for place in places:
        if place.exists():
            return checked(place)
    try:
        download(URL, ours, SHA256, "GPT-2's vocabulary")
    except UserError as error:
        remedy = f'{error.remedy} Or learn a vocabulary from your own text: encoder = "bpe".'
        raise UserError(error.message, place=error.place, remedy=remedy) from error
    return ours


def checked(path: Path) -> Path:
    """The path, if it holds GPT-2's own file: another file would silently give other ids. Raises UserError otherwise."""
    if (found := sha256(path)) != SHA256:
        raise UserError(
            f"this is not GPT-2's vocab.bpe: its SHA-256 is {found}, not {SHA256}",
            place=str(path),
            remedy="Delete it: it will be downloaded again.",
        )
    return path
