"""Choose a token from logits: greedy, or drawn with temperature, top-k and top-p.

Shapes: B rows, V ids, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COLDEST = 1e-4  # below it, logits could exceed the range of numbers; the likeliest id is all that is drawn anyway


def uniform_draws(seeds: Sequence[int], steps: int, device: torch.device) -> Tensor:
    """Random numbers in [0, 1), (steps, B). Column i depends on seeds[i] only, so rows do not influence each other."""
    columns = [torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(columns, dim=1).to(device)


def choose(
    logits: Tensor, draw: Tensor | None, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Choose one id per row, (B,), from logits (B, V).

    draw: a number in [0, 1) per row, which selects from the cumulative distribution. None, or a temperature below COLDEST:
    the likeliest id.
    top_k: choose from the k likeliest ids; 0: all. top_p: choose from the fewest likeliest ids whose probabilities, after
    temperature and top_k, add up to at least top_p (arXiv:1904.09751).
    """
    if draw is None or temperature < COLDEST:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    ids = None
    if 0 < top_k < logits.shape[-1]:
        logits, ids = logits.topk(top_k, dim=-1)  # (B, K), the likeliest first
    elif top_p < 1:
        logits, ids = logits.sort(dim=-1, descending=True)  # (B, K) with K = V
    # in float64, a float32 draw below 1 times the total is always below the total
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)  # (B, K)
    total = cumulative[:, -1:]
    if top_p < 1:
        # the first candidate always stays; a sum just below top_p by rounding must not add another one
        last = (cumulative < top_p - 1e-9).sum(dim=-1, keepdim=True).clamp_(max=cumulative.shape[-1] - 1)
        total = cumulative.gather(-1, last)
    place = torch.searchsorted(cumulative, draw.double().unsqueeze(-1) * total, right=True)  # (B, 1)
    place.clamp_(max=cumulative.shape[-1] - 1)  # where the logits are not finite
    return (place if ids is None else ids.gather(-1, place)).squeeze(-1)
