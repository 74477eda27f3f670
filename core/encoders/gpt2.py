"""GPT-2's byte-level BPE, id for id that of tiktoken: text in, ids out. Its merges are downloaded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Self

from core.download import download
from core.encoders.base import Ids
from core.encoders.bytelevel import ByteLevel
from core.encoders.text import wrong_state
from core.errors import UserError
from core.files import cache_folder, sha256

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


class Gpt2Encoder:
    """merges: pairs of tokens in order of rank, each spelled in GPT-2's alphabet of bytes."""

    kind = "gpt2"

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        self.coder = ByteLevel(merges)
        self.vocab_size, self.end_token = self.coder.vocab_size, self.coder.end_token

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """From a file like GPT-2's vocab.bpe: a line with its version, then a merge per line."""
        _, *lines = path.read_text(encoding="utf-8").splitlines()
        return cls([(left, right) for left, right in (line.split(" ") for line in lines)])

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0) -> Self:
        """Learn nothing, whatever the arguments. Raises UserError where GPT-2's merges cannot be had."""
        return cls.from_file(vocabulary())

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError where the state is not of this kind, and as `fit` does."""
        if state:
            raise wrong_state(cls.kind, state)
        return cls.fit([])

    def state(self) -> dict[str, Any]:
        """Nothing: the merges are the same for everyone."""
        return {}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError for half a surrogate pair."""
        return self.coder.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text; pieces not met before are merged on all cores."""
        return self.coder.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; the end token becomes "", bytes that are no UTF-8 become U+FFFD."""
        return self.coder.decode(ids)


def vocabulary() -> Path:
    """vocab.bpe in the cache, in tiktoken's cache, or downloaded now. Raises UserError where none can be had."""
    ours = cache_folder() / "gpt2" / "vocab.bpe"
    places = [ours]
    if folder := os.environ.get("TIKTOKEN_CACHE_DIR"):
        places.append(Path(folder) / hashlib.sha1(URL.encode()).hexdigest())  # the name that tiktoken gives it
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
    """The path, if GPT-2's own file is there: another would give other ids without a word."""
    if (found := sha256(path)) != SHA256:
        raise UserError(
            f"this is not GPT-2's vocab.bpe: its SHA-256 is {found}, not {SHA256}",
            place=str(path),
            remedy="Delete it: it will be downloaded again.",
        )
    return path
