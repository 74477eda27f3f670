"""Our encoders as tokenizers of Hugging Face: an encoder in; tokenizer.json and what stands beside it out.

Each kind gets the ids that ours gives. Kinds that cannot are refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.encoders.base import Encoder
from core.encoders.bpe import BpeEncoder
from core.encoders.bytelevel import ByteLevel, alphabet_bytes
from core.encoders.bytes import BytesEncoder
from core.encoders.char import CharEncoder
from core.encoders.gpt2 import Gpt2Encoder
from core.encoders.special import WithSpecialTokens
from core.errors import UserError
from core.huggingface.encoder import HfEncoder
from core.huggingface.tokenizer_json import BYTE_LEVEL, added_token, split

END_OF_TEXT = "<|endoftext|>"  # the end token of kinds that give it no name
WRITTEN = "bpe, gpt2, bytes, char and hf"


@dataclass(frozen=True)
class WrittenTokenizer:
    """A tokenizer as other programs read it.

    json: content of tokenizer.json. special: text of each special token -> id. end, begin: of a document, ids.
    """

    json: dict[str, Any]
    special: dict[str, int]
    end: int | None = None
    begin: int | None = None

    def text(self, token: int | None) -> str | None:
        """The name of a special token."""
        return next((name for name, number in self.special.items() if number == token), None)


def written_tokenizer(encoder: Encoder, begin: int | None = None) -> WrittenTokenizer:
    """An encoder as tokenizer.json. begin: the id with which documents begin. Raises UserError for a kind that cannot be written."""
    inner = encoder.inner if isinstance(encoder, WithSpecialTokens) else encoder
    names: dict[str, int] = dict(encoder.special) if isinstance(encoder, WithSpecialTokens) else {}
    if isinstance(inner, HfEncoder):
        content = json.loads(inner.content)
        special = {each["content"]: int(each["id"]) for each in content["added_tokens"] if each["special"]}
        return WrittenTokenizer(content, special, encoder.end_token, begin)
    if isinstance(inner, CharEncoder):
        content, own = of_characters(inner)
    elif isinstance(inner, BytesEncoder):
        content, own = of_bytes(), {END_OF_TEXT: inner.end_token}
    elif isinstance(inner, BpeEncoder | Gpt2Encoder):
        coder = inner if isinstance(inner, BpeEncoder) else inner.coder
        content, own = of_merges(coder), {END_OF_TEXT: coder.end_token}
    else:
        raise UserError(
            f"a tokenizer of kind {encoder.kind} cannot be written for other programs, only {WRITTEN}",
            place="prepare.encoder",
            remedy='Prepare the data with prepare.encoder = "bpe", and train on it.',
        )
    if clash := own.keys() & names.keys():  # a special token of conversations has the same name as one of characters
        own = {END_OF_TEXT if name in clash else name: token for name, token in own.items()}
    special = own | names
    content["added_tokens"] = [
        added_token(token, name) for name, token in sorted(special.items(), key=lambda pair: pair[1])
    ]
    return WrittenTokenizer(
        {"version": "1.0", "truncation": None, "padding": None, **content}, special, encoder.end_token, begin
    )


def of_characters(encoder: CharEncoder) -> tuple[dict[str, Any], dict[str, int]]:
    """One id per character: each is cut apart, and looked up. A character without an id is an error, as with ours."""
    vocabulary = {piece: token for token, piece in enumerate(encoder.pieces) if piece}
    special = {entry: token for token, entry in enumerate(encoder.entries) if len(entry) != 1}
    every = split("[\\s\\S]")
    unknown = "[unknown]"  # not in the vocabulary, so that the library refuses what it does not know
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": unknown}
    return {"normalizer": None, "pre_tokenizer": every, "post_processor": None, "decoder": {"type": "Fuse"}, "model": model}, special  # fmt: skip


def of_bytes() -> dict[str, Any]:
    """One id per byte: BPE without merges."""
    vocabulary = alphabet_bytes()
    model: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": []}  # fmt: skip
    return {"normalizer": None, "pre_tokenizer": BYTE_LEVEL, "post_processor": None, "decoder": BYTE_LEVEL, "model": model}  # fmt: skip


def of_merges(coder: ByteLevel) -> dict[str, Any]:
    """Byte-level BPE: the library's own form, with a decoder."""
    content: dict[str, Any] = json.loads(coder.tokenizer.to_str())
    return content | {"decoder": BYTE_LEVEL}


def tokenizer_config(tokenizer: WrittenTokenizer, block_size: int) -> dict[str, Any]:
    """tokenizer_config.json. block_size: tokens that the model sees."""
    found: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        "bos_token": tokenizer.text(tokenizer.begin),
        "eos_token": tokenizer.text(tokenizer.end),
    }
    return {key: value for key, value in found.items() if value is not None}
