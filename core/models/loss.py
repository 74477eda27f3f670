"""Cross-entropy of next tokens, in nats.

Shapes: B rows, T tokens, C channels, V ids, N tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.product_loss import NO_TARGET, product_loss

LOGITS = 1 << 24  # of a chunk at most, 64 MB in float32: several such tensors live at once
GPU_SHARE = 64  # on a GPU, a chunk's logits in float32 may take this fraction of its memory: 1.25 of 80 GB
WHOLE = 1 << 26  # of a micro-batch that is computed at once, 256 MB


class CutAtHead(NamedTuple):
    """A model cut in front of its output head.

    hidden (B, T, C): what the head reads. head: (N, C) -> logits (N, V), each from its own row. parameters: that head trains.
    """

    hidden: Tensor
    head: Callable[[Tensor], Tensor]
    parameters: tuple[nn.Parameter, ...]


def next_token_loss(model: Callable[..., Any], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -ln p(target), a float32 scalar, and the number of targets, of a model and inputs (B, T).

    Where all logits together would be large, they are computed in chunks and never kept: see `chunked_loss`. targets as for
    `token_loss`. The model says how it is cut by a method `cut_at_head(inputs)`. Compiled, it is cut at `cut_at_product(inputs)`,
    into chunks of its `loss_chunk` tokens, if it has that.
    """
    if torch.compiler.is_compiling():
        size = getattr(model, "loss_chunk", 0)
        if not size or inputs.numel() <= size or (at := model.cut_at_product(inputs)) is None:  # type: ignore[attr-defined]
            return token_loss(model(inputs), targets)
        return product_loss(at, targets, size), (targets != NO_TARGET).sum()
    if not is_large(model, inputs) or (cut := model.cut_at_head(inputs)) is None:  # type: ignore[attr-defined]
        return token_loss(model(inputs), targets)
    return chunked_loss(cut, targets, chunk_of(model))


def is_large(model: Callable[..., Any], inputs: Tensor) -> bool:
    """Whether a model can be cut, and its logits of these inputs are too large to keep."""
    if not isinstance(model, nn.Module) or inputs.numel() * ids_of(model) <= WHOLE:
        return False
    return is_its_own(model)


def ids_of(model: nn.Module) -> int:
    """V; 0 if the model does not say."""
    size = getattr(model, "vocab_size", 0)
    return size if isinstance(size, int) else 0


def chunk_of(model: Callable[..., Any]) -> int:
    """N: tokens whose logits are computed at once."""
    assert isinstance(model, nn.Module)
    place = next(model.parameters()).device
    return tokens_within(gpu_logits(place) if place.type == "cuda" else LOGITS, ids_of(model))


def gpu_logits(device: torch.device) -> int:
    """Logits of a chunk on a GPU, by its memory. Small chunks waste time: each reads and writes the gradient of the whole head."""
    return int(torch.cuda.get_device_properties(device).total_memory) // (4 * GPU_SHARE)


def tokens_within(logits: int, ids: int) -> int:
    """The most tokens whose logits are at most so many; at least 1."""
    return max(1, logits // ids)


def use_loss_chunks(model: nn.Module, logits: int) -> None:
    """Have compiled code of a GPT compute the loss of at most so many logits at once. Other models are left alone."""
    if hasattr(model, "loss_chunk") and is_its_own(model):
        size = tokens_within(logits, ids_of(model))
        model.loss_chunk = 1 << (size.bit_length() - 1)  # type: ignore[assignment]  # a power of two, for fast products


def is_its_own(model: nn.Module) -> bool:
    """Whether `cut_at_head` belongs to the model's `forward`: a class that is derived from ours may compute something else."""
    owners = [
        next((cls for cls in type(model).__mro__ if name in vars(cls)), None) for name in ("forward", "cut_at_head")
    ]
    changed = "forward" in vars(model) or model._forward_hooks or model._forward_pre_hooks
    return owners[1] is not None and owners[0] is owners[1] and not changed


def token_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -ln p(target), a float32 scalar, and the number of targets, an int64 scalar.

    logits (B, T, V); targets (B, T), -1 where there is no target. Both results stay on the device: reading them waits.
    """
    return nats_of(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)), (targets != NO_TARGET).sum()


def nats_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -ln p(target) of logits (N, V) and targets (N,)."""
    # float32 at least: a bfloat16 logarithm has three digits
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return F.cross_entropy(logits, targets, ignore_index=NO_TARGET, reduction="sum")


def chunked_loss(cut: CutAtHead, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """`token_loss` of a model that is cut, `size` tokens at a time: the logits of one chunk are alive, and their gradient.

    The gradient of a chunk is computed at once, with its loss, so no logits are computed twice.
    """
    flat, wanted = cut.hidden.flatten(0, 1), targets.reshape(-1)
    if torch.is_grad_enabled() and (flat.requires_grad or cut.parameters):
        nats: Tensor = Chunks.apply(cut.head, wanted, size, flat, *cut.parameters)  # type: ignore[no-untyped-call]
    else:
        pairs = zip(torch.split(flat, size), torch.split(wanted, size), strict=True)
        nats = torch.stack([nats_of(cut.head(part), chosen) for part, chosen in pairs]).sum()
    return nats, (targets != NO_TARGET).sum()


class Chunks(torch.autograd.Function):
    """The sum of -ln p(target) of hidden states (B T, C), and its gradient, chunk by chunk."""

    @staticmethod
    def forward(
        context: Any,
        head: Callable[[Tensor], Tensor],
        targets: Tensor,
        size: int,
        hidden: Tensor,
        *parameters: nn.Parameter,
    ) -> Tensor:
        """Compute the loss, and keep its gradient with respect to hidden and parameters."""
        of_hidden = torch.empty_like(hidden)
        # in float32, where many small parts are added up
        sums = [torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in parameters]
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        for begin in range(0, len(hidden), size):
            rows = slice(begin, begin + size)
            with torch.enable_grad():
                part = hidden[rows].detach().requires_grad_()
                nats = nats_of(head(part), targets[rows])
            with torch.autocast(hidden.device.type, enabled=False):  # as in a backward pass outside of it
                found = torch.autograd.grad(nats, (part, *parameters))
            total += nats.detach()
            of_hidden[rows] = found[0]
            for whole, piece in zip(sums, found[1:], strict=True):
                whole += piece
        context.save_for_backward(of_hidden, *(s.to(p.dtype) for s, p in zip(sums, parameters, strict=True)))
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients, times the gradient of the sum."""
        return (None, None, None, *(gradient * kept for kept in context.saved_tensors))
