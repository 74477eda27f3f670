"""A finetuned model as a folder of transformers: its adapter is merged into the full-precision base, in float32, and compared.

Shapes: T tokens of a row, V rows of the model's vocabulary.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import files
from core.data.batches import validation_rows
from core.errors import UserError
from core.huggingface.adapters import refuse_taken
from core.huggingface.base import NAME_KEY, Base, load_base
from core.huggingface.extra import quietly
from core.huggingface.lora import ADAPTER, Lora, is_transposed
from core.huggingface.quantized import QUANTIZE

BATCHES = 8  # of the validation side, evenly spaced, that are compared
# What stands beside the weights of a base and says how text becomes ids and back. It goes along.
BESIDE = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
)


@dataclass(frozen=True)
class MergeReport:
    """How the merged model differs from the trained one. largest: difference of two logits. kl: mean divergence of the merged
    model's distribution of the next token from the trained one's, nats. tokens: how many were compared, on validation rows."""

    folder: Path
    largest: float
    kl: float
    tokens: int


def write_merged(loaded: Any, folder: Path) -> MergeReport:
    """Write a loaded model of a run (`core.lab.model.LoadedModel`) as float32 weights that transformers loads without PEFT.

    A model that was trained as a whole is written as it is. Raises UserError for a quantised base, for a base whose files have
    changed, for a model of another kind, and for a folder that is there and not empty.
    """
    module = loaded.module
    refuse_other_kinds(module, loaded.run.title)
    refuse_quantised(module, loaded.run.title)
    refuse_taken(folder)
    merged = merged_model(module)
    report = compared(loaded, merged, folder)
    write_model(merged, module.base, folder)
    return report


def refuse_other_kinds(module: Any, title: str) -> None:
    """Raise UserError for a model without a pretrained base."""
    if getattr(module, "pretrained_base", None) is None:
        raise UserError(
            f"{title} is not finetuned from a pretrained model", place=title, remedy='train.model.kind = "hf" is.'
        )


def refuse_quantised(module: Any, title: str) -> None:
    """Raise UserError if the adapter was trained on a quantised base."""
    if module.is_quantised:
        raise UserError(
            f"{title} was trained on a base in four bits, and a merge into it would change what it computes",
            place=f'{QUANTIZE} = "nf4"',
            remedy='Export the adapter alone, which loads on a base in four bits; or train with quantize = "none" to merge.',
        )


@torch.no_grad()
def merged_model(module: Any) -> Any:
    """The base with what was trained, in float32, as a model of transformers on the CPU. Raises UserError for another base."""
    if module.base.identity["sha256"] != module.pretrained_base["sha256"]:
        raise UserError("the base's files have changed", place=NAME_KEY, remedy="Put them back, or train again.")
    model = load_base(module.base, torch.float32)
    trained = {
        name: each.detach().cpu().float() for name, each in module.model.named_parameters() if each.requires_grad
    }
    if module.lora is None:
        for name, tensor in trained.items():
            model.get_parameter(name).copy_(tensor)
        return model
    for name in module.adapted:
        layer = model.get_submodule(name)
        added = added_by(trained, name, module.lora)
        layer.weight += added.T if is_transposed(layer) else added
    return model


def added_by(trained: dict[str, Tensor], name: str, lora: Lora) -> Tensor:
    """What the adapter adds to the weights (out, in) of a layer: alpha / r times B A."""
    down, up = (trained[f"{name}.lora_{part}.{ADAPTER}.weight"] for part in "AB")
    return lora.alpha / lora.r * (up @ down)


@torch.no_grad()
def compared(loaded: Any, merged: Any, folder: Path) -> MergeReport:
    """Compare the trained and the merged model on rows of the validation side, one row at a time."""
    module, data = loaded.module.eval(), loaded.config.train.data
    device, merged = next(module.parameters()).device, merged.to(next(module.parameters()).device).eval()
    largest, divergence, tokens = 0.0, 0.0, 0
    for inputs, _ in validation_rows(loaded.dataset.val, data, BATCHES):
        for row in torch.split(torch.from_numpy(inputs).to(device), 1):
            one, other = module(row)[0].float(), merged(input_ids=row, use_cache=False).logits[0].float()  # (T, V)
            largest = max(largest, float((one - other).abs().max()))
            one, other = one.double().log_softmax(-1), other.double().log_softmax(-1)
            divergence += float((one.exp() * (one - other)).sum())
            tokens += len(one)
    return MergeReport(folder, largest, divergence / max(tokens, 1), tokens)


def write_model(model: Any, base: Base, folder: Path) -> None:
    """Write a model of transformers, with the tokenizer of its base if that is a folder. It appears when it is complete."""
    with files.new_folder(folder.absolute()) as temporary:
        with quietly():
            model.cpu().save_pretrained(temporary)
        if not base.is_gguf:
            for path in {found for pattern in BESIDE for found in base.path.glob(pattern) if found.is_file()}:
                shutil.copyfile(path, temporary / path.name)
