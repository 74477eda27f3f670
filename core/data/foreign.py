"""What the ids of a dataset mean that another program made: from its meta.pkl, if it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.data.meta_pkl import read_meta
from core.errors import UserError

GPT2_SIZES = (50_257, 50_304)  # GPT-2's ids; nanoGPT's model pads them to 50,304


def encoder_of(meta: Path) -> dict[str, Any]:
    """ "encoder" for dataset.json, and a "note" where that is a guess.

    Without meta.pkl the ids are GPT-2's, as in nanoGPT. With a vocab_size only, they have no text. With texts longer than
    a character they are words, with an implied space between, unless the texts have spaces of their own.
    Raises UserError for a meta.pkl that describes no vocabulary.
    """
    if not meta.exists():
        return gpt2(f"{meta.parent}: there is no meta.pkl, so the ids are taken to be GPT-2's, as in nanoGPT.")
    content = read_meta(meta)
    texts, size = texts_of(content, meta), content.get("vocab_size")
    if texts is None:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 2**32:
            raise UserError(
                "holds neither itos nor vocab_size",
                place=str(meta),
                remedy="Write it as nanoGPT's prepare.py does. Without it, the ids are taken to be GPT-2's.",
            )
        if size in GPT2_SIZES:
            return gpt2(f"{meta} has {size:,} ids and no itos, so they are taken to be GPT-2's.")
        note = f"{meta} has no itos, so samples are written as ids."
        return {"encoder": {"kind": "ids", "vocab_size": size}, "note": note}
    if all(len(text) == 1 or (text[:1] == "<" and text[-1:] == ">") for text in texts):
        return {"encoder": {"kind": "char", "itos": texts}}
    if all(text and (not any(map(str.isspace, text)) or len(text) == 1) for text in texts) and " " not in texts:
        note = f"{meta} lists words, so text is cut at blanks and written with a space between two words."
        return {"encoder": {"kind": "words", "words": texts, "end_token": False}, "note": note}
    note = f"{meta} lists pieces of text, so text is their concatenation, and is cut into the longest ones that fit."
    return {"encoder": {"kind": "pieces", "pieces": texts}, "note": note}


def gpt2(note: str) -> dict[str, Any]:
    return {"encoder": {"kind": "gpt2"}, "note": note}


def texts_of(content: dict[str, Any], meta: Path) -> list[str] | None:
    """The text of each id, from itos or else from stoi; None if there is neither. Raises UserError for one that is damaged."""
    itos, stoi = content.get("itos"), content.get("stoi")
    if itos is None and isinstance(stoi, dict):
        itos = {number: text for text, number in stoi.items()}
    if itos is None:
        return None
    texts = [itos.get(number) for number in range(len(itos))] if isinstance(itos, dict) else itos
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(
            "itos does not number texts from 0", place=str(meta), remedy="Write it as nanoGPT's prepare.py does."
        )
    return texts
