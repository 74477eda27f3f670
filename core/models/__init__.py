"""Models: GPT and LSTM, built from the config, and exchange of weights with nanoGPT."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_models(register: Register) -> None:
    """The models that come with Terrarium."""
    from core.models.gpt import GPT
    from core.models.lstm import LSTM

    register("gpt", GPT)
    register("lstm", LSTM)
