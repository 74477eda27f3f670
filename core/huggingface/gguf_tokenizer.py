"""A tokenizer from the metadata of a GGUF file, as the content of a tokenizer.json.

Only byte-level BPE, which GGUF calls "gpt2": its vocabulary and merges are in the file, and the pattern that cuts text by name.
The patterns are those that the models were trained with, as their own tokenizer.json have them.
"""

from __future__ import annotations

from typing import Any

from core.encoders.bytelevel import PATTERNS
from core.errors import UserError, did_you_mean
from core.huggingface.tokenizer_json import BYTE_LEVEL, added_token, split

NORMAL, UNKNOWN, CONTROL, DEFINED = 1, 2, 3, 4  # types of tokens
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
HEAD = r"[^\r\n\p{L}\p{N}]?"
GPT4O = (
    rf"{HEAD}{UPPER}*{LOWER}+{ENDINGS}?|{HEAD}{UPPER}+{LOWER}*{ENDINGS}?|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3, QWEN2 = rf"{ENDINGS}|{WORDS}|\p{{N}}{{1,3}}|{REST}", rf"{ENDINGS}|{WORDS}|\p{{N}}|{REST}"
# Name -> the patterns by which text is cut, one after the other.
CUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("default", "gpt-2", "olmo", "phi-2", "dolly-v2"), (PATTERNS["gpt2"],)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), (r"\p{N}", PATTERNS["gpt2"])),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "smaug-bpe"), (LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), (QWEN2,)),
    **dict.fromkeys(("gpt-4o", "llama4"), (GPT4O,)),
}
WHOLE = (LLAMA3,)  # patterns of models that take a piece whole, if it is in the vocabulary, whatever the merges say


def tokenizer_of(metadata: dict[str, Any], place: str) -> dict[str, Any]:
    """The content of a tokenizer.json. Raises UserError for a kind of tokenizer that is not known here."""
    model, cut = metadata.get("tokenizer.ggml.model"), str(metadata.get("tokenizer.ggml.pre", "default"))
    if model != "gpt2":
        raise UserError(
            f"its tokenizer is of the kind {model!r}, and only byte-level BPE ('gpt2') is read from GGUF",
            place=place,
            remedy="Name the model's folder with its tokenizer.json instead.",
        )
    if cut not in CUTS:
        raise UserError(
            f"it cuts text by the pattern called {cut!r}, which is not known here",
            place=place,
            remedy=f"Name the model's folder with its tokenizer.json instead. {did_you_mean(cut, CUTS)}",
        )
    tokens, merges = metadata.get("tokenizer.ggml.tokens", []), metadata.get("tokenizer.ggml.merges", [])
    types = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if not tokens or len(types) != len(tokens):
        raise UserError("it has no vocabulary", place=place, remedy="Name another file.")
    added = [
        added_token(number, tokens[number], special=kind != DEFINED)
        for number, kind in enumerate(types)
        if kind in (UNKNOWN, CONTROL, DEFINED)
    ]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*map(split, CUTS[cut]), BYTE_LEVEL]},
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "ignore_merges": CUTS[cut] == WHOLE,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }
