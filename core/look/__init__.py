"""Pictures of the inside of a trained model: attention maps, embeddings of the numbers, and their Fourier spectrum.

from core.look import attention_maps, attention_figure

maps = attention_maps(model.module, model.encoder, "12+34=")
attention_figure(maps, layer=0).savefig("attention.png")
"""

from __future__ import annotations

from core.look.attention import Attention, attention_maps
from core.look.embeddings import Embeddings, fourier_spectrum, principal_plane, token_embeddings
from core.look.figures import attention_figure, embeddings_figure, spectrum_figure

__all__ = [
    "Attention", "Embeddings", "attention_figure", "attention_maps", "embeddings_figure", "fourier_spectrum",
    "principal_plane", "spectrum_figure", "token_embeddings",
]  # fmt: skip
