"""Pretrained models and tokenizers. What they need beyond Terrarium's own packages is imported where it is used."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_encoders(register: Register) -> None:
    """The encoder of pretrained models."""
    from core.huggingface.encoder import HfEncoder

    register(HfEncoder.kind, HfEncoder)
