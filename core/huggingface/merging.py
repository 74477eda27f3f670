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

from core.data.batches import validation_rows
from core.encoders.base import Encoder, identity
from core.encoders.special import has_special
from core.errors import UserError
from core.huggingface.base import NAME_KEY, Base, load_base
from core.huggingface.encoder import HfEncoder
from core.huggingface.extra import quietly
from core.huggingface.lora import ADAPTER, Lora, is_transposed
from core.huggingface.quantized import QUANTIZE
from core.huggingface.to_hf import write_tokenizer

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

    largest: float
    kl: float
    tokens: int


def write_merged(loaded: Any, folder: Path) -> MergeReport:
    """Write a loaded model of a run (`core.lab.model.LoadedModel`) into an empty folder, as float32 weights that transformers
    loads without PEFT.

    The tokenizer is that of the run: the base's own files where they are the same, else files made from the run's encoder.
    A model that was trained as a whole is written as it is. Raises UserError for a quantised base, for a base whose files have
    changed, and for a model of another kind.
    """
    module = loaded.module
    refuse_other_kinds(module, loaded.run.title)
    refuse_quantised(module, loaded.run.title)
    merged = merged_model(module)
    report = compared(loaded, merged)
    write_own_tokenizer = not has_tokenizer_of(module.base, loaded.encoder)
    if write_own_tokenizer:
        name_ends(merged, loaded.trained.begin, loaded.encoder.end_token)
    with quietly():
        merged.cpu().save_pretrained(folder)
    if write_own_tokenizer:
        write_tokenizer(loaded.encoder, folder, begin=loaded.trained.begin, block_size=loaded.block_size)
    else:
        for path in {found for pattern in BESIDE for found in module.base.path.glob(pattern) if found.is_file()}:
            shutil.copyfile(path, folder / path.name)
    return report


def has_tokenizer_of(base: Base, encoder: Encoder) -> bool:
    """Whether the tokenizer in a base's folder is the encoder, to the last id."""
    if base.is_gguf or not isinstance(encoder, HfEncoder):
        return False
    try:
        own = HfEncoder.fit([], tokenizer=str(base.path), chat=has_special(encoder))
    except UserError:  # it has none, or another form
        return False
    return identity(own) == identity(encoder)


def name_ends(model: Any, begin: int | None, end: int | None) -> None:
    """Have a model name the ids that begin and end its texts, in place of those of the base's tokenizer."""
    for config in (model.config, model.config.get_text_config(), model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = begin, end, None


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
def compared(loaded: Any, merged: Any) -> MergeReport:
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
    return MergeReport(largest, divergence / max(tokens, 1), tokens)
