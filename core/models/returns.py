"""Models that return more than logits, as nanoGPT's (logits, loss) and Hugging Face's outputs do."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from core.errors import UserError

TARGETS = "targets"  # nanoGPT's model computes the logits of all places only where it is given these


def return_logits(model: nn.Module, place: str) -> nn.Module:
    """The same model, which returns the logits (B, T, V) of all places, and nothing else, where it is called with ids alone.

    place: names the model in errors. A call raises UserError where there are no such logits.
    """
    if TARGETS in inspect.signature(model.forward).parameters:
        model.register_forward_pre_hook(give_targets, with_kwargs=True)

    def take_logits(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], found: Any) -> Any:
        if len(arguments) != 1 or named.get(TARGETS, arguments[0]) is not arguments[0]:
            return found  # a call of its own author's, such as model(ids, targets) in loss()
        logits = found[0] if isinstance(found, tuple) and found else getattr(found, "logits", found)
        shape = tuple(arguments[0].shape)
        if not isinstance(logits, Tensor) or logits.dim() != 3 or tuple(logits.shape[:2]) != shape:
            got = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"the model returned {got} for ids of shape {shape}, not logits (B, T, V)",
                place=place,
                remedy="Return the logits of all places, or (logits, loss) as nanoGPT does.",
            )
        return logits

    model.register_forward_hook(take_logits, with_kwargs=True)
    return model


def give_targets(
    _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add the ids as targets to a call with ids alone. The loss over them is not used."""
    if len(arguments) != 1 or named:
        return arguments, named
    ids = arguments[0].contiguous()  # nanoGPT calls targets.view(-1)
    return (ids,), {TARGETS: ids}
