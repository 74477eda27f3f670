"""Cross-entropy of logits that are a product with the output head, in chunks that one graph holds: for compiled steps.

`core.models.loss.Chunks` asks autograd for a chunk's gradient, which a compiler cannot follow. Here it is written out, so that model,
loss and gradient are one graph, in which only a chunk's logits exist.

Shapes: N tokens, C channels, V ids, K tokens of a chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NO_TARGET = -1


class CutAtProduct(NamedTuple):
    """A model cut in front of the product that gives its logits: hidden (B, T, C) weight' + bias, for weight (V, C) and bias (V,).

    softcap: bounds the logits, see `core.models.layers.softcap`; 0: none.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    softcap: float


def product_loss(cut: CutAtProduct, targets: Tensor, size: int) -> Tensor:
    """Sum of -ln p(target), a float32 scalar, over the targets (B, T) that are not -1, computed `size` tokens at a time."""
    hidden, weight, bias, cap = cut
    place = hidden.device.type
    dtype = torch.get_autocast_dtype(place) if torch.is_autocast_enabled(place) else weight.dtype
    parts = (hidden.flatten(0, 1), weight, bias, targets.reshape(-1), cap, size, dtype)
    return ProductLoss.apply(*parts)  # type: ignore[no-any-return, no-untyped-call]


class ProductLoss(torch.autograd.Function):
    """The loss and, at once, its gradient, from which `backward` takes what is asked for.

    With logits z = cap tanh(y / cap) of y = x W' + b: dy = (softmax(z) - [id is the target]) (1 - (z / cap)^2), dx = dy W,
    dW = dy' x, db = the sum of dy over tokens.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: float,
        size: int,
        dtype: torch.dtype,
    ) -> Tensor:
        head = weight.to(dtype)  # (V, C)
        added = None if bias is None else bias.to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        of_weight = torch.zeros_like(weight, dtype=wide)  # where the parts of many chunks are added up
        of_bias = None if bias is None else torch.zeros_like(bias, dtype=wide)
        nats, of_hidden = [], []
        ids = torch.arange(weight.shape[0], device=hidden.device)
        for part, wanted in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
            x = part.to(dtype)  # (K, C)
            logits = F.linear(x, head, added).to(wide)  # (K, V)
            slope = None
            if cap:
                bounded = torch.tanh(logits / cap)
                logits, slope = bounded * cap, 1 - bounded * bounded
            chosen = wanted.clamp(min=0).unsqueeze(1)  # (K, 1)
            counts = (wanted != NO_TARGET).unsqueeze(1)
            total = logits.logsumexp(dim=1, keepdim=True)
            nats.append(((total - logits.gather(1, chosen)) * counts).sum())
            grad = ((logits - total).exp() - (ids == chosen).to(wide)) * counts
            grad = (grad if slope is None else grad * slope).to(dtype)
            of_hidden.append(torch.mm(grad, head).to(hidden.dtype))
            of_weight = of_weight + torch.mm(grad.t(), x)
            if of_bias is not None:
                of_bias = of_bias + grad.sum(dim=0, dtype=wide)
        ctx.save_for_backward(
            torch.cat(of_hidden),
            of_weight.to(weight.dtype),
            None if of_bias is None or bias is None else of_bias.to(bias.dtype),
        )
        return torch.stack(nats).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_weight, of_bias = ctx.saved_tensors
        return (
            (of_hidden * gradient).to(of_hidden.dtype),
            of_weight * gradient,
            None if of_bias is None else of_bias * gradient,
            *(None,) * 4,
        )
