"""What a pretrained model has read, so that a new token costs the work of one token. transformers keeps keys and values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from core.huggingface.extra import needed


class PretrainedCache:
    """The tokens that a model of transformers has read, for B rows of equal length."""

    def __init__(self, model: Any, block_size: int) -> None:
        """block_size: the most tokens that it takes."""
        self.past = needed("transformers", "Sampling from a pretrained model").DynamicCache(config=model.config)
        self.block_size = block_size

    @property
    def length(self) -> int:
        """Tokens held."""
        return int(self.past.get_seq_length())

    def read(self, model: Any, tokens: Tensor) -> Tensor:
        """Logits (B, 1, V) after the last of new tokens (B, T), which join the cache. float32.

        The others are not computed: those of a long prompt would need more memory than the model. Raises ValueError past
        block_size.
        """
        if (stop := self.length + tokens.shape[1]) > self.block_size:
            raise ValueError(f"{stop} tokens do not fit the model's block_size = {self.block_size}")
        found = model(
            input_ids=tokens, use_cache=True, logits_to_keep=1, **{cache_keyword(type(model).forward): self.past}
        )
        logits: Tensor = found.logits[:, -1:]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


@functools.cache
def cache_keyword(forward: Callable[..., Any]) -> str:
    """What a model's forward calls its cache: transformers is renaming it."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
