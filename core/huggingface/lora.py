"""LoRA (arXiv:2106.09685) through peft: small matrices beside frozen ones. Which layers get them is checked and listed first."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from core.errors import UserError, did_you_mean
from core.huggingface.extra import needed, quietly

TARGETS = "train.model.params.target_modules"
ALL_LINEAR = "all-linear"
RANK, ALPHA = 8, 16.0  # peft's examples begin there; what is added is scaled by alpha / r = 2
ADAPTER = "default"  # peft's name of the only adapter, a part of its parameters' names
SHOWN = 12  # names in an error


@dataclass(frozen=True)
class Lora:
    """What to add. r: rank. alpha: the sum of what is added is scaled by alpha / r. dropout: of the inputs of what is added.

    target_modules: "all-linear" (all but the output head), a regular expression for whole names, or ends of names.
    """

    r: int
    alpha: float
    dropout: float
    target_modules: str | Sequence[str]


@dataclass(frozen=True)
class AdaptedLayers:
    """Equal layers that LoRA touches: the end of their names, the shape (out, in) of their weights, and how many there are."""

    name: str
    shape: tuple[int, int]
    count: int


def adapt(model: Any, lora: Lora) -> list[str]:
    """Add adapters to a model of transformers, in place, and freeze everything else. Returns the names of the layers.

    The adapters are float32, whatever the model is: updates of 1e-4 vanish in bfloat16. Raises UserError if a target matches
    no layer. Warns of a layer whose weights are all zero.
    """
    layers = linear_layers(model)
    names = matching(layers, lora.target_modules, head_of(model, layers))
    refuse_tied_head(model, names, layers)
    warn_of_dead(layers, names)
    peft = needed("peft", "train.model.params.lora = true")
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
        fan_in_fan_out=is_transposed(layers[names[0]]),
    )
    with quietly():
        peft.inject_adapter_in_model(config, model, ADAPTER)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return names


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer that multiplies with one matrix, by its name. transformers' Conv1D is one, with its matrix transposed."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or is_transposed(module):
            found[name] = module
    return found


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer is transformers' Conv1D, whose matrix is (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def head_of(model: Any, layers: Mapping[str, nn.Module]) -> str:
    """The name of the output head; "" if it has none of its own."""
    head = model.get_output_embeddings()
    return next((name for name, layer in layers.items() if layer is head), "")


def matching(layers: Mapping[str, nn.Module], targets: str | Sequence[str], head: str) -> list[str]:
    """The names of the layers that the targets choose. Raises UserError for a target that chooses none."""
    if targets == ALL_LINEAR:
        found = [name for name in layers if name != head]
    elif isinstance(targets, str):
        found = by_expression(layers, targets)
    else:
        for target in targets:
            if not any(is_end(name, target) for name in layers):
                raise no_match(target, layers)
        found = [name for name in layers if any(is_end(name, target) for target in targets)]
    if not found and targets == ALL_LINEAR:
        raise UserError(
            "the base model has no linear layers beside its output head, so there is nothing to put adapters on",
            place=TARGETS,
            remedy="Give another base model, or set lora = false to train it as a whole.",
        )
    if not found:
        raise no_match(str(targets), layers)
    return found


def by_expression(layers: Mapping[str, nn.Module], expression: str) -> list[str]:
    """The names that match a regular expression as a whole. Raises UserError for one that is not valid."""
    try:
        return [name for name in layers if re.fullmatch(expression, name)]
    except re.error as error:
        raise UserError(
            f'target_modules = "{expression}" is not a regular expression: {error}',
            place=TARGETS,
            remedy=f'Give "{ALL_LINEAR}", a list of ends of names, or a regular expression.',
        ) from None


def is_end(name: str, end: str) -> bool:
    """Whether a dotted name ends with these parts."""
    return name == end or name.endswith(f".{end}")


def no_match(target: str, layers: Mapping[str, nn.Module]) -> UserError:
    """The error for a target without layers. It lists the names that there are."""
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
    more = f" and {len(ends) - SHOWN} more" if len(ends) > SHOWN else ""
    near = did_you_mean(target, ends)
    return UserError(
        f"no layer of the base model is called '{target}'",
        place=TARGETS,
        remedy=(f"{near} " if near.startswith("Did") else "") + f"Its layers end in: {', '.join(ends[:SHOWN])}{more}.",
    )


def refuse_tied_head(model: Any, names: Sequence[str], layers: Mapping[str, nn.Module]) -> None:
    """Raise UserError if the head is to be adapted, and its weights are the embedding's too."""
    embedding = model.get_input_embeddings()
    for name in names:
        if embedding is not None and getattr(layers[name], "weight", None) is getattr(embedding, "weight", 0):
            raise UserError(
                f"{name} shares its weights with the embedding, so an adapter on it could never be merged",
                place=TARGETS,
                remedy=f'Leave it out: "{ALL_LINEAR}" does.',
            )


def warn_of_dead(layers: Mapping[str, nn.Module], names: Sequence[str]) -> None:
    """Warn of layers whose weights are all zero: an adapter on them often has no effect, because nothing reads them."""
    weights = {name: layers[name].weight for name in names}
    dead = [name for name, weight in weights.items() if isinstance(weight, torch.Tensor) and is_zero(weight)]
    if dead:
        more = f" and {len(dead) - 3} more" if len(dead) > 3 else ""
        warnings.warn(
            f"{TARGETS}: the weights of {', '.join(dead[:3])}{more} are all zero, so the base model may not use "
            f"{'them' if len(dead) > 1 else 'it'}. Leave out what it does not use.",
            stacklevel=2,
        )


def is_zero(weight: torch.Tensor) -> bool:
    """Whether all numbers are zero. Those on the device meta have no values."""
    return weight.device.type != "meta" and not bool(weight.any())


def grouped(layers: Mapping[str, tuple[int, int]]) -> list[AdaptedLayers]:
    """Layers by the end of their name and their shape, in the order of their first. layers: name -> shape (out, in)."""
    counts = Counter((name.rpartition(".")[2], shape) for name, shape in layers.items())
    return [AdaptedLayers(name, shape, count) for (name, shape), count in counts.items()]


def shape_of_layer(layer: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    if is_transposed(layer):
        inputs, outputs = layer.weight.shape  # type: ignore[misc]
        return int(outputs), int(inputs)
    return int(layer.out_features), int(layer.in_features)  # type: ignore[arg-type]
