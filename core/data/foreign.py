"""What the ids of a dataset mean that another program made: from its meta.pkl, if it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.data.meta_pkl import read_meta
from core.errors import UserError

SUBWORDS = ("\u2581", "\u0120", "##")  # how SentencePiece, GPT-2 and WordPiece mark a piece of a word
MOST_ALIKE = 9  # more texts of one length are no words, but parts of a sequence, such as k-mers
GPT2_SIZES = (50_257, 50_304)  # GPT-2's ids; nanoGPT's model pads them to 50,304


def encoder_of(meta: Path) -> dict[str, Any]:
    """ "encoder" for dataset.json, and a "note" where that is a guess.

    Without meta.pkl the ids are GPT-2's, as in nanoGPT. Without a text for each id, they have no text. Single characters
    are characters. Texts that are mostly longer are words, with an implied space between, unless some have blanks of their
    own, marks of subwords, or all one length; those, and characters with a few longer texts, are pieces.
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
        lacks = "no itos" if content.get("itos") is None else "no text for some ids"
        note = f"{meta} has {lacks}, so samples are written as ids."
        return {"encoder": {"kind": "ids", "vocab_size": size}, "note": note}
    if len(set(texts)) == len(texts) and all(len(text) == 1 or is_special(text) for text in texts):
        return {"encoder": {"kind": "char", "itos": texts}}
    if are_words(texts):
        note = f"{meta} lists words, so text is cut at blanks and written with a space between two words."
        return {"encoder": {"kind": "words", "words": texts, "end_token": False}, "note": note}
    note = f"{meta} lists pieces of text, so text is their concatenation, and is cut into the longest ones that fit."
    return {"encoder": {"kind": "pieces", "pieces": texts}, "note": note}


def gpt2(note: str) -> dict[str, Any]:
    return {"encoder": {"kind": "gpt2"}, "note": note}


def is_special(text: str) -> bool:
    return text[:1] == "<" and text[-1:] == ">"


def are_words(texts: list[str]) -> bool:
    """Whether the texts are words that were cut at blanks."""
    plain = [text for text in texts if not is_special(text) and not text.isspace()]
    long = [text for text in plain if len(text) > 1]
    return (
        " " not in texts
        and len(set(texts)) == len(texts)
        and not any(text == "" or any(map(str.isspace, text)) for text in plain)
        and not any(text.startswith(SUBWORDS) for text in plain)
        and 2 * len(long) > len(plain)
        and not (len(long) > MOST_ALIKE and len({len(text) for text in long}) == 1)
    )


def texts_of(content: dict[str, Any], meta: Path) -> list[str] | None:
    """The text of each id, from itos or else from stoi. None if there is neither, or if vocab_size counts ids without a text.

    Raises UserError where the texts are damaged and there is no vocab_size.
    """
    itos, stoi = content.get("itos"), content.get("stoi")
    if itos is None and isinstance(stoi, dict):
        itos = {number: text for text, number in stoi.items()}
    if itos is None:
        return None
    texts = [itos.get(number) for number in range(len(itos))] if isinstance(itos, dict) else itos
    whole = [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
    size = content.get("vocab_size")
    if isinstance(size, int) and (len(whole) < len(itos) or len(whole) < size):
        return None
    if not whole or len(whole) < len(itos):
        raise UserError(
            "itos does not number texts from 0", place=str(meta), remedy="Write it as nanoGPT's prepare.py does."
        )
    return whole
