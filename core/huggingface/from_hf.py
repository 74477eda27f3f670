"""Read a model folder of Hugging Face into our own GPT: config.json and safetensors in; keys of [train.model] and weights out.

Only what our GPT computes is read. Everything else in config.json that changes the computation is refused by its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.config import Data, Model
from core.defaults import resolved_model
from core.errors import UserError, did_you_mean
from core.huggingface.architectures import ARCHITECTURES, Architecture
from core.huggingface.weights import EMBEDDING, HEAD, Tensors, to_ours
from core.models.foreign import ForeignModel
from core.models.gpt import GPT

AS_IT_IS = 'Use train.model.kind = "hf", which runs it as it is.'
KINDS = {architecture.kind: architecture for architecture in ARCHITECTURES}
# Keys of config.json -> the values with which our GPT computes the same; the first is what a missing key means.
ROTARY: dict[str, tuple[Any, ...]] = {
    "rope_scaling": (None,), "use_sliding_window": (False, None), "attention_bias": (False, None), "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None), "quantization_config": (None,), "pretraining_tp": (1, None),
}  # fmt: skip
GPT2: dict[str, tuple[Any, ...]] = {
    "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,),
    "quantization_config": (None,),
}  # fmt: skip
ACTIVATIONS = {"llama": {"silu": "swiglu"}, "arcee": {"relu2": "relu2"}, "gpt2": {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}}  # fmt: skip
NO_WEIGHTS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # buffers that old files hold


def read_hf(folder: Path) -> ForeignModel:
    """Read a model. No code in the folder is run. Raises UserError for a folder that is none, and for what our GPT is not."""
    content = read_config(folder)
    architecture = KINDS.get(str(content.get("model_type")))
    if architecture is None:
        kind = content.get("model_type")
        raise UserError(
            f"model_type = {kind!r} is none of our architectures ({', '.join(KINDS)})",
            place=str(folder / "config.json"),
            remedy=AS_IT_IS,
        )
    place = str(folder / "config.json")
    model = gpt2_keys(content, place) if architecture.kind == "gpt2" else rotary_keys(content, architecture, place)
    theirs = read_weights(folder)
    if architecture.kind == "gpt2" and not any(name.startswith("transformer.") for name in theirs):
        theirs = {name if name == HEAD else f"transformer.{name}": tensor for name, tensor in theirs.items()}
    ignored = [name for name in theirs if name.endswith(NO_WEIGHTS)]
    if model["tie_weights"] and HEAD in theirs:
        ignored.append(HEAD)  # the embedding once more
    return as_ours(model, theirs, architecture, str(folder), ignored)


def as_ours(
    model: dict[str, Any], theirs: Mapping[str, Tensor], architecture: Architecture, place: str, ignored: list[str],
    *, gguf: bool = False,
) -> ForeignModel:  # fmt: skip
    """The model from its keys and its weights. Raises UserError as `to_ours`, and where a shape differs."""
    names = architecture.gguf_names if gguf else architecture.names
    embedding = theirs.get(names.theirs(EMBEDDING)[0])
    vocab_size = 0 if embedding is None else len(embedding)
    with torch.device("meta"):
        expected = dict(
            GPT(resolved_model(Model(**model), Data()), max(vocab_size, 1)).named_parameters()
        )  # a tied one once
    state = to_ours(theirs, expected, names, place, ignored)
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"tensor {names.theirs(name)[0]} gives {name} of shape {tuple(tensor.shape)}, and the configuration asks "
                f"for {tuple(expected[name].shape)}",
                place=place,
                remedy="Download the model again, whole.",
            )
    return ForeignModel(model, state, vocab_size)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json. Raises UserError if there is none."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", place=str(path), remedy="Name a model's folder, with config.json and weights."
        ) from None  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise UserError(f"damaged: {error}", place=str(path), remedy="Download the model again.") from None
    return content


def read_weights(folder: Path) -> Tensors:
    """All tensors of a folder's safetensors files. Raises UserError if there are none, or one is damaged."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            "there is no .safetensors file",
            place=str(folder),
            remedy="Name a model's folder that has its weights as safetensors. Pickled weights are not read: they could run code.",
        )
    found: Tensors = {}
    for file in files:
        try:
            found |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"damaged: {error}", place=str(file), remedy="Download the model again, whole.") from None
    return found


def number(content: Mapping[str, Any], key: str, place: str, default: Any = None) -> Any:
    """A number of config.json. Raises UserError if it is missing, or none."""
    value = content.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key} = {value!r} is no number", place=place, remedy="Download the model again.")
    return value


def refuse_others(content: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], place: str) -> None:
    """Raise UserError for the first key whose value our GPT does not have."""
    for key, values in allowed.items():
        if (value := content.get(key, values[0])) not in values:
            raise UserError(f"our GPT has no {key} = {value!r}", place=place, remedy=AS_IT_IS)


def activation(content: Mapping[str, Any], key: str, kind: str, place: str) -> str:
    """Our name of the activation. Raises UserError for one that we do not have."""
    known = ACTIVATIONS.get(kind, ACTIVATIONS["llama"])
    value = str(content.get(key, next(iter(known))))
    if value not in known:
        raise UserError(
            f"our GPT has no {key} = {value!r} here", place=place, remedy=f"{did_you_mean(value, known)} {AS_IT_IS}"
        )
    return known[value]


def rotary_keys(content: Mapping[str, Any], architecture: Architecture, place: str) -> dict[str, Any]:
    """Keys of [train.model] from the config.json of a Llama, Qwen2, Qwen3 or Arcee."""
    rope = content.get("rope_parameters") or {}
    kinds = set(content.get("layer_types") or ["full_attention"])
    scaling = content.get("rope_scaling")
    plain = isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) == "default"
    refuse_others({**content, "rope_scaling": None if plain else scaling}, ROTARY, place)
    refuse_others(
        {"rope_type": rope.get("rope_type", "default"), "layer_types": sorted(kinds)},
        {"rope_type": ("default",), "layer_types": (["full_attention"],)},
        place,
    )
    n_embd, n_head = number(content, "hidden_size", place), number(content, "num_attention_heads", place)
    takes = architecture.takes
    return {
        "kind": "gpt",
        "preset": "portable" if architecture.kind == "qwen3" else "llama",
        "n_layer": number(content, "num_hidden_layers", place),
        "n_head": n_head,
        "n_kv_head": number(content, "num_key_value_heads", place, n_head),
        "n_embd": n_embd,
        "head_width": number(content, "head_dim", place, n_embd // n_head),
        "n_ff": number(content, "intermediate_size", place),
        "block_size": number(content, "max_position_embeddings", place),
        "norm_eps": float(number(content, "rms_norm_eps", place, 1e-6)),
        "rope_base": float(rope.get("rope_theta") or number(content, "rope_theta", place, 10_000.0)),
        "activation": activation(content, "hidden_act", architecture.kind, place),
        "qkv_bias": True in takes["qkv_bias"],
        "tie_weights": bool(content.get("tie_word_embeddings", False)),
    }


def gpt2_keys(content: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Keys of [train.model] from the config.json of a GPT-2."""
    refuse_others(content, GPT2, place)
    n_embd = number(content, "n_embd", place, 768)
    return {
        "kind": "gpt",
        "preset": "gpt2",
        "n_layer": number(content, "n_layer", place, 12),
        "n_head": number(content, "n_head", place, 12),
        "n_embd": n_embd,
        "n_ff": number(content, "n_inner", place, 4 * n_embd),
        "block_size": number(content, "n_positions", place, 1024),
        "norm_eps": float(number(content, "layer_norm_epsilon", place, 1e-5)),
        "activation": activation(content, "activation_function", "gpt2", place),
        "bias": True,
        "tie_weights": bool(content.get("tie_word_embeddings", True)),
    }
