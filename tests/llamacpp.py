"""llama.cpp as a referee in tests: a GGUF file in; what it writes, and how likely it finds that, out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp, llama.cpp for Python, is not installed")


class Wrote(NamedTuple):
    """ids: of the tokens written. likely: for each of them, id -> ln p of the likeliest ones. prompt: tokens of the prompt."""

    text: str
    ids: list[int]
    likely: list[dict[int, float]]
    prompt: int


class Referee:
    """A GGUF file, computed on one thread with keys and values in float32."""

    def __init__(self, path: Path, context: int = 64) -> None:
        options = xllamacpp.CommonParams()
        options.model.path, options.n_ctx, options.verbosity = str(path), context, -1
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        options.cache_type_k = options.cache_type_v = 0
        options.flash_attn_type, options.warmup, options.fit_params, options.endpoint_slots = 0, False, False, False
        self.server = xllamacpp.Server(options)

    def write(self, prompt: str | list[int], tokens: int, likeliest: int = 3) -> Wrote:
        """Greedy, without the stop at an end token."""
        asked = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": likeliest, "cache_prompt": False}
        answer: dict[str, Any] = self.server.handle_completions(asked)
        choice, usage = answer["choices"][0], answer["usage"]
        steps = choice["logprobs"]["content"]
        likely = [{each["id"]: each["logprob"] for each in step["top_logprobs"]} for step in steps]
        return Wrote(choice["text"], [step["id"] for step in steps], likely, usage["prompt_tokens"])
