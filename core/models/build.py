"""A model from the section [train.model]: the experiment's own build_model, else the registered kind."""

from __future__ import annotations

from types import ModuleType

import torch

from core.config import Model
from core.errors import UserError
from core.plugins.manager import plugins


def build_model(config: Model, vocab_size: int, code: ModuleType | None = None) -> torch.nn.Module:
    """A freshly initialised model. code: the experiment's prepare.py, whose `build_model(config, vocab_size)` goes first.

    Raises UserError for an unknown kind and for a build_model that returns no torch.nn.Module.
    """
    own = getattr(code, "build_model", None)
    build = own or plugins().get("models", config.kind, "train.model.kind")
    model = build(config, vocab_size)
    if not isinstance(model, torch.nn.Module):
        raise UserError(
            f"build_model returned {type(model).__name__}, not a torch.nn.Module",
            place=str(getattr(code, "__file__", config.kind)),
            remedy="Return a module that maps token ids (B, T) to logits (B, T, V).",
        )
    if not hasattr(model, "block_size"):
        model.block_size = config.block_size  # type: ignore[assignment]
    return model


def parameter_count(model: torch.nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in model.parameters())
