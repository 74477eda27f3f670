"""Encoders between text and token ids. Registers the built-in kinds under the names that `prepare.encoder` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.plugins import hookimpl


@hookimpl
def register_encoders(register: Callable[[str, Any], None]) -> None:
    """Register the built-in encoders. numpy and tokenizers are imported only here."""
    from core.encoders.bpe import BpeEncoder
    from core.encoders.bytes import BytesEncoder
    from core.encoders.char import CharEncoder
    from core.encoders.gpt2 import Gpt2Encoder
    from core.encoders.ids import IdsEncoder
    from core.encoders.pieces import PiecesEncoder
    from core.encoders.words import WordsEncoder

    for encoder in (CharEncoder, WordsEncoder, BytesEncoder, BpeEncoder, Gpt2Encoder, IdsEncoder, PiecesEncoder):
        register(encoder.kind, encoder)
