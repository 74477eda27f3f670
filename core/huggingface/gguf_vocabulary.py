"""Our encoders as GGUF has tokenizers: an encoder in; the keys `tokenizer.ggml.*` out. llama.cpp gives the ids that ours gives.

Byte-level BPE is llama.cpp's "gpt2", with the name of the pattern that cuts text. One id per character or byte is its "rwkv":
the longest piece that fits, and no id of its own that ends a text. ("gpt2" would take id 11 for that.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.encoders.base import Encoder
from core.encoders.bytelevel import PATTERNS
from core.encoders.special import WithSpecialTokens
from core.errors import UserError
from core.huggingface.gguf_tokenizer import CONTROL, CUTS, NORMAL, WHOLE
from core.huggingface.tokenizer import WrittenTokenizer

# llama.cpp's names of patterns. That of GPT-4 is cut by "dbrx" as by "llama-bpe", which however takes a piece whole if it is in
# the vocabulary, whatever the merges say.
NAMES = {"gpt2": "gpt-2", "gpt4": "dbrx"}


@dataclass(frozen=True)
class Vocabulary:
    """model, pre: llama.cpp's names of the tokenizer and of its pattern. tokens, types: of each id. merges: in order of rank."""

    model: str
    tokens: list[str]
    types: list[int]
    pre: str = ""
    merges: tuple[str, ...] = ()


def vocabulary_of(encoder: Encoder, tokenizer: WrittenTokenizer) -> Vocabulary:
    """The vocabulary of an encoder that is written as `tokenizer`. Raises UserError for a pattern that llama.cpp does not know."""
    inner = encoder.inner if isinstance(encoder, WithSpecialTokens) else encoder
    model = tokenizer.json["model"]
    added = {each["id"]: each["content"] for each in tokenizer.json["added_tokens"]}
    names = {token: text for text, token in model["vocab"].items()} | added
    types = [CONTROL if token in tokenizer.special.values() else NORMAL for token in range(encoder.vocab_size)]
    if inner.kind in ("char", "bytes"):
        pieces = {token: escaped(piece_bytes(inner, token)) for token in range(inner.vocab_size) if token not in added}
        tokens = [pieces.get(token, names.get(token, "")) for token in range(encoder.vocab_size)]
        return Vocabulary("rwkv", tokens, types)
    missing = "<|unused_{}|>"  # a name for ids that have none
    tokens = [names.get(token, missing.format(token)) for token in range(encoder.vocab_size)]
    merges = tuple(each if isinstance(each, str) else " ".join(each) for each in model["merges"])
    return Vocabulary("gpt2", tokens, types, pattern_name(inner, tokenizer), merges)


def piece_bytes(encoder: Encoder, token: int) -> bytes:
    """What an id of a character or byte stands for."""
    return bytes([token]) if encoder.kind == "bytes" else encoder.decode([token]).encode()


def escaped(piece: bytes) -> str:
    """A piece as "rwkv" lists it: letters and digits as they are, any other byte as \\x and two digits."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in piece)


def pattern_name(encoder: Encoder, tokenizer: WrittenTokenizer) -> str:
    """llama.cpp's name of the pattern that cuts text. Raises UserError if it has none."""
    if encoder.kind in ("bpe", "gpt2"):
        own = getattr(encoder, "split_pattern", "gpt2")
        if own in NAMES:
            return NAMES[own]
        raise unknown_pattern(own)
    cuts = patterns_of(tokenizer.json["pre_tokenizer"])
    for name, known in CUTS.items():
        if cuts == known and (known == WHOLE) == bool(tokenizer.json["model"].get("ignore_merges")):
            return name
    raise unknown_pattern(json.dumps(tokenizer.json["pre_tokenizer"])[:80])


def patterns_of(pre_tokenizer: dict[str, Any]) -> tuple[str, ...]:
    """The patterns by which a tokenizer.json cuts text, one after the other."""
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    found: list[str] = []
    for part in parts:
        if part["type"] == "Split":
            found.append(part["pattern"].get("Regex", ""))
        elif part["type"] == "Digits" and part.get("individual_digits"):
            found.append(r"\p{N}")
        elif part["type"] == "ByteLevel" and part.get("use_regex", True):
            found.append(PATTERNS["gpt2"])
    return tuple(found)


def unknown_pattern(pattern: str) -> UserError:
    return UserError(
        f"llama.cpp has no name for the pattern that cuts text before pairs are merged: {pattern}",
        place="prepare.split_pattern",
        remedy=f"Prepare the data with one of {', '.join(NAMES)}, and train on it.",
    )
