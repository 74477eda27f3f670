"""Pictures of the inside of a trained model: attention maps, embeddings of the numbers, and their Fourier spectrum.

from core.look import attention_figure, attention_maps

maps = attention_maps(model.module, model.encoder, "12+34=")
attention_figure(maps, layer=0).savefig("attention.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.look.attention import AttentionMaps, attention_maps
    from core.look.embeddings import (
        Embeddings,
        Plane,
        fitted_plane,
        fourier_spectrum,
        principal_plane,
        token_embeddings,
    )
    from core.look.figures import attention_figure, embeddings_figure, spectrum_figure

# Imported when they are used: every command loads the packages of core, and torch takes a second.
LAZY = {
    "AttentionMaps": "attention",
    "attention_maps": "attention",
    "Embeddings": "embeddings",
    "Plane": "embeddings",
    "fitted_plane": "embeddings",
    "fourier_spectrum": "embeddings",
    "principal_plane": "embeddings",
    "token_embeddings": "embeddings",
    "attention_figure": "figures",
    "embeddings_figure": "figures",
    "spectrum_figure": "figures",
}

__all__ = [
    "AttentionMaps", "Embeddings", "Plane", "attention_figure", "attention_maps", "embeddings_figure", "fitted_plane",
    "fourier_spectrum", "principal_plane", "spectrum_figure", "token_embeddings",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(importlib.import_module(f"core.look.{LAZY[name]}"), name)
    raise AttributeError(f"module 'core.look' has no attribute '{name}'")
