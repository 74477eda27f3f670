"""Products of a GPT's blocks in float8: twice the operations per second of bfloat16, on hardware that has them.

Each tensor is scaled so that its largest number is the largest of its format (per-tensor scaling, arXiv:2209.05433): weights and
activations with three bits of mantissa (e4m3), gradients with two and a wider range (e5m2). Sums, weights and the output head stay as
they are.

Shapes: N tokens, C channels in, O channels out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.errors import UserError

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16  # of every dimension: what the hardware multiplies
OLDEST = (8, 9)  # CUDA's compute capability of Ada, the first with such products


def scaled(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x / scale in float8, and the scale, () in float32. Zeros have the smallest scale."""
    largest = torch.finfo(dtype).max
    scale = x.detach().abs().amax().float().clamp(min=1e-12) / largest
    return (x.float() / scale).clamp(-largest, largest).to(dtype), scale


def product(a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """a (N, C) b (C, O) of scaled tensors; b's columns must be rows of memory."""
    return torch._scaled_mm(a, b, scale_a=scales[0], scale_b=scales[1], out_dtype=dtype)


def columns(x: Tensor) -> Tensor:
    """The same matrix, with its columns as rows of memory."""
    return x.t().contiguous().t()


class Float8Product(torch.autograd.Function):
    """x (N, C) W' of W (O, C), and its gradients dx = dy W, dW = dy' x, all by products in float8."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        (low_x, x_scale), (low_weight, weight_scale) = scaled(x, FORWARD), scaled(weight, FORWARD)
        ctx.save_for_backward(low_x, x_scale, low_weight, weight_scale)
        ctx.dtypes = x.dtype, weight.dtype
        return product(low_x, low_weight.t(), (x_scale, weight_scale), x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        low_x, x_scale, low_weight, weight_scale = ctx.saved_tensors
        low, scale = scaled(grad, BACKWARD)
        of_x = product(low, columns(low_weight), (scale, weight_scale), ctx.dtypes[0])
        of_weight = product(low.t().contiguous(), columns(low_x), (scale, x_scale), ctx.dtypes[0])
        return of_x, of_weight.to(ctx.dtypes[1])


class Float8Linear(nn.Linear):
    """A linear layer that multiplies in float8 while it is trained under autocast, and as any other elsewhere."""

    def forward(self, input: Tensor) -> Tensor:
        place, tokens = input.device.type, input.numel() // self.in_features
        if not (self.training and torch.is_autocast_enabled(place) and tokens % MULTIPLE == 0):
            return super().forward(input)
        dtype = torch.get_autocast_dtype(place)
        flat = input.reshape(tokens, self.in_features).to(dtype)
        y: Tensor = Float8Product.apply(flat, self.weight)  # type: ignore[no-untyped-call]
        y = y if self.bias is None else y + self.bias.to(dtype)
        return y.view(*input.shape[:-1], self.out_features)


def use_float8(model: nn.Module) -> None:
    """Have a GPT's blocks multiply in float8. Raises UserError for widths that the hardware cannot multiply."""
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if name.startswith("transformer.h.") and type(layer) is nn.Linear
    }
    if not layers:
        raise UserError(
            "the model has no blocks of a GPT to multiply in float8",
            place="train.runtime.float8",
            remedy="Leave float8 out, or train a model of kind gpt.",
        )
    for name, layer in layers.items():
        if layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
            raise UserError(
                f"float8 multiplies multiples of {MULTIPLE}, and a layer has {layer.in_features} and {layer.out_features} channels",
                place="train.runtime.float8",
                remedy=f"Make n_embd, n_ff and the heads' widths together multiples of {MULTIPLE}, or leave float8 out.",
            )
        low = Float8Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        low.weight, low.bias = layer.weight, layer.bias
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, low)


def refuse_without_float8(device: torch.device) -> None:
    """Raise UserError for a device whose hardware has no such products."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < OLDEST:
        raise UserError(
            f'device "{device}" does not multiply in float8',
            place="train.runtime.float8",
            remedy="That needs an NVIDIA GPU from Ada or Hopper on (RTX 40, L4, H100). Leave float8 out.",
        )
