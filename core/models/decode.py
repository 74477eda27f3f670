"""One new token per row: ids (B, 1) and the cache in, logits (B, 1, V) out, the same as from GPT.forward.

At this size a step is nearly all dispatch: so no modules, weights that are laid out for the product with one token, one
copy for a key and its value, and no operation that a single token has no use for (docs/LOG.md has the figures).
Shapes: B rows, H heads, D channels of a head, C channels, S tokens with the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.attention import logit_scale, rotate
from core.models.layers import Norm, inverse_rms

if TYPE_CHECKING:
    from core.models.cache import KVCache
    from core.models.gpt import GPT

Apply = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """What a block does to one token (B, C)."""

    norm_1: Apply
    qkv: Apply
    project: Callable[[Tensor, Tensor], Tensor]  # (residual, mixed values) -> residual
    norm_2: Apply
    expand: Apply
    contract: Callable[[Tensor, Tensor], Tensor]


class Decoder:
    """The weights of a GPT as they are now, ready for single tokens; made once per cache."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.scale = logit_scale(model.head_width, bool(model.config.qk_norm))
        self.nothing = model.lm_head.weight.new_zeros(())
        self.layers = [
            Layer(
                norm(block.ln_1),
                product(block.attn.c_attn),
                residual_product(block.attn.c_proj),
                norm(block.ln_2),
                activated(str(block.mlp.activation), product(block.mlp.c_fc)),
                residual_product(block.mlp.c_proj),
            )
            for block in model.blocks
        ]
        self.norm, self.head = norm(model.transformer["ln_f"]), product(model.lm_head)  # type: ignore[arg-type]

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Logits (B, 1, V) of tokens (B, 1), which follow those of the cache and join it."""
        model, scale, nothing, normalised = self.model, self.scale, self.nothing, self.model.config.qk_norm
        recent = cache.recall(tokens, model.lookback)
        hidden, (cos, sin) = model.embed(recent, 1, cache.length)
        x = hidden[:, 0]  # (B, C)
        B, H, D = x.shape[0], model.n_head, model.head_width
        for layer, keys, values, new in zip(self.layers, *cache.places(H), strict=True):
            qkv = layer.qkv(layer.norm_1(x)).view(B, 3, H, D)
            qk = qkv[:, :2]
            if normalised:
                qk.mul_(inverse_rms(qk))
            if cos is not None and sin is not None:
                rotate(qk, cos, sin, out=qk)
            new.copy_(qkv[:, 1:].transpose(0, 1))
            scores = torch.baddbmm(nothing, qkv[:, 0].reshape(B * H, 1, D), keys, beta=0, alpha=scale)  # (BH, 1, S)
            mixed = torch.bmm(torch.softmax(scores, -1), values).view(B, H * D)
            x = layer.project(x, mixed)
            x = layer.contract(x, layer.expand(layer.norm_2(x)))
        cache.length += 1
        return model.finish(self.head(self.norm(x)).unsqueeze(1), recent)


def norm(module: Norm) -> Apply:
    """The module's forward, without what its gradient would need."""
    weight, bias, shape = module.weight, module.bias, module.shape
    if module.centred:
        return lambda x: torch.layer_norm(x, shape, weight, bias, 1e-5)
    if weight is None:
        return lambda x: x * inverse_rms(x)
    return lambda x: x * inverse_rms(x) * weight


def product(linear: nn.Linear) -> Apply:
    """x -> x W' + b. A transposed copy of the weights halves the time of a product with few rows."""
    weight, bias = linear.weight.detach().t().contiguous(), linear.bias
    if bias is None:
        return lambda x: torch.mm(x, weight)
    return lambda x: torch.addmm(bias, x, weight)


def residual_product(linear: nn.Linear) -> Callable[[Tensor, Tensor], Tensor]:
    """(residual, x) -> residual + x W' + b."""
    apply = product(linear)
    return lambda residual, x: apply(x).add_(residual)


def activated(kind: str, apply: Apply) -> Apply:
    """A product and the non-linearity behind it."""
    if kind == "relu2":
        return lambda x: apply(x).relu_().square_()
    if kind == "gelu":
        return lambda x: F.gelu(apply(x))

    def swiglu(x: Tensor) -> Tensor:
        gate, value = apply(x).chunk(2, dim=-1)
        return F.silu(gate).mul_(value)

    return swiglu
