"""The small parts of a block: norms and feed-forward layers, for tensors (..., C).

Shapes: N rows (tokens), C channels, F channels of the feed-forward layer.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.config import Model

GELU = {"gelu": "none", "gelu_tanh": "tanh"}  # torch's names


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean of squares + eps) over the last dimension, which stays as 1."""
    inverse: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return inverse.mul_(inverse).mul_(1 / x.shape[-1]).add_(eps).rsqrt_()


class RmsNormFunction(torch.autograd.Function):
    """x / rms(x) with a gradient of two passes; that of F.rms_norm on a CPU is a dozen small operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        inverse = inverse_rms(x, eps)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        y, inverse = ctx.saved_tensors
        along: Tensor = torch.linalg.vecdot(grad, y).unsqueeze(-1)
        return grad.addcmul(y, along, value=-1 / y.shape[-1]).mul_(inverse), None


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last dimension (arXiv:1910.07467), eps added to the mean square, in the fastest form for the device."""
    if not x.is_cpu or torch.compiler.is_compiling():
        return F.rms_norm(x, (x.shape[-1],), eps=eps)
    if torch.is_grad_enabled():
        return cast(Tensor, RmsNormFunction.apply(x, eps))  # type: ignore[no-untyped-call]
    return x * inverse_rms(x, eps)


class SquaredReluFunction(torch.autograd.Function):
    """max(x, 0)^2 (arXiv:2109.08668); autograd keeps two tensors and runs four operations where two do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return grad.mul(positive).mul_(2)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2, in the fastest form for the device."""
    if x.is_cpu and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return cast(Tensor, SquaredReluFunction.apply(x))  # type: ignore[no-untyped-call]
    return x.relu().square()


def softcap(logits: Tensor, limit: float) -> Tensor:
    """limit tanh(z / limit): bounds the logits within (-limit, limit) (arXiv:2408.00118); float32 at least."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits.div(limit).tanh().mul(limit)


class Norm(nn.Module):
    """rmsnorm has no parameters, rmsnorm_scale a weight, layernorm a weight and, if asked for, a bias."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        assert config.norm_eps is not None
        self.eps = config.norm_eps
        self.centred, self.shape = config.norm == "layernorm", (config.n_embd,)
        self.weight = nn.Parameter(torch.ones(config.n_embd)) if config.norm != "rmsnorm" else None
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if self.centred and config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.centred:
            return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        y = rms_norm(x, self.eps)
        return y if self.weight is None else y * self.weight.to(x.dtype)


class Scale(nn.Module):
    """A learnt factor for each of D channels, all `value` at first."""

    def __init__(self, D: int, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((D,), value))


class FeedForward(nn.Module):
    """Two matrices around a non-linearity; swiglu's c_fc holds the gate's matrix above the value's (arXiv:2002.05202).

    bias: whether they have one; None: as train.model.bias says.
    """

    def __init__(self, config: Model, bias: bool | None = None) -> None:
        super().__init__()
        assert config.n_ff is not None and config.bias is not None
        self.activation = config.activation
        biased = config.bias if bias is None else bias
        self.c_fc = nn.Linear(config.n_embd, config.n_ff * (2 if config.activation == "swiglu" else 1), bias=biased)
        self.c_proj = nn.Linear(config.n_ff, config.n_embd, bias=biased)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)  # (..., F), for swiglu (..., 2F)
        if self.activation == "relu2":
            x = squared_relu(x)
        elif self.activation in GELU:
            x = F.gelu(x, approximate=GELU[self.activation])
        else:
            gate, value = x.chunk(2, dim=-1)
            x = F.silu(gate) * value
        return self.c_proj(x)  # type: ignore[no-any-return]
