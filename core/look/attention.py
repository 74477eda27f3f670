"""Attention maps: a text -> the weights of every layer and head, with the text's tokens.

Shapes: L layers, H heads, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from core.encoders.base import Encoder
from core.encoders.special import has_special, special_ids
from core.models.lstm import LSTM
from core.sampling.generate import prompt_ids

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AttentionMaps:
    """tokens: T texts, the first `asked` of them the prompt's. weights: (L, H, T, T), row t: where token t looks; rows sum to 1."""

    tokens: Sequence[str]
    asked: int
    weights: Array

    @property
    def layers(self) -> int:
        return int(self.weights.shape[0])


def missing(model: nn.Module) -> str:
    """Why a model has no attention maps to show; "" if it has."""
    if hasattr(model, "trace"):
        return ""
    if isinstance(model, LSTM):
        return "An LSTM has no attention, so there are no maps of it."
    return (
        f"{type(model).__name__} has no method `trace`, so there are no attention maps. Give it one: trace(tokens) gets ids "
        "(B, T) and returns an object whose `attention` is a list of weights (B, H, T, T), one for each layer."
    )


def attention_maps(model: nn.Module, encoder: Encoder, prompt: str, answer: str = "") -> AttentionMaps:
    """The attention of a model with a method `trace`, for a prompt and, if it is given, the answer after it.

    Of a text that is longer than the model's block_size, the end. Raises UserError for text that the encoder cannot encode,
    and ValueError if the model has no `trace` or the text no tokens.
    """
    if why := missing(model):
        raise ValueError(why)
    asked = prompt_ids(encoder, prompt) if prompt else []
    ids = asked + ([int(token) for token in encoder.encode(answer)] if answer else [])
    if not ids:
        raise ValueError("the text has no tokens")
    block_size: int = getattr(model, "block_size", len(ids))
    kept = ids[-block_size:]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            device = next(model.parameters()).device
            found: Any = model.trace(torch.tensor([kept], device=device))  # type: ignore[operator]
    finally:
        model.train(training)
    weights = np.stack([layer[0].float().cpu().numpy() for layer in found.attention]).astype(np.float64)
    names = {token: name for name, token in special_ids(encoder).items()} if has_special(encoder) else {}
    labels = [names.get(token) or visible(encoder.decode([token])) for token in kept]
    return AttentionMaps(labels, max(0, len(asked) - (len(ids) - len(kept))), weights)


def visible(text: str) -> str:
    """A token as one can see it."""
    shown = text.replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u21e5")
    return shown if shown else "\u2205"
