"""QLoRA's base (arXiv:2305.14314): the matrices of a frozen model as 4-bit NF4, through bitsandbytes, on a GPU or a CPU."""

from __future__ import annotations

from typing import Any

from torch import nn

from core.errors import UserError
from core.huggingface.extra import needed

QUANTIZE = "train.model.params.quantize"


def refuse_full_finetuning() -> UserError:
    """The error for a quantised base without adapters."""
    return UserError(
        'quantize = "nf4" with lora = false: four bits can hold a base, but cannot be trained',
        place=QUANTIZE,
        remedy='Set lora = true, or quantize = "none".',
    )


def quantise(model: Any, name: str) -> int:
    """Prepare all linear layers but the output head for NF4, in place: `.to(device)` then quantises them.

    Returns how many. Raises UserError if there are none.
    """
    library = needed("bitsandbytes", f'{QUANTIZE} = "nf4"')
    head = model.get_output_embeddings()
    found = [(path, layer) for path, layer in model.named_modules() if type(layer) is nn.Linear and layer is not head]
    if not found:
        raise UserError(
            f"{name} has no linear layers that bitsandbytes can quantise: a {type(model).__name__} keeps its matrices transposed",
            place=QUANTIZE,
            remedy='Use quantize = "none", or another base model.',
        )
    for path, layer in found:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, quantised(library, layer))
    model.is_loaded_in_4bit = True  # peft asks
    return len(found)


def quantised(library: Any, layer: nn.Linear) -> nn.Module:
    """The layer for NF4, with the same weights. The constants of its blocks are quantised too (double quantisation)."""
    four = library.nn.Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    four.weight = library.nn.Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True, module=four
    )
    four.bias = layer.bias
    made: nn.Module = four
    return made


def keep_layout(model: nn.Module) -> None:
    """Leave 4-bit layers in training mode, in which they compute the same.

    In evaluation mode bitsandbytes repacks their weights for a CPU. That fails where the number of outputs is not divisible by
    its block, and training could not go on from it.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and hasattr(module, "quant_state"):
            module.training = True
