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
from core.toml import shortened

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
LARGEST = 1e30  # of any number that a real configuration has
NO_WEIGHTS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # buffers that old files hold


def read_hf(folder: Path) -> ForeignModel:
    """Read a model. No code in the folder is run. Raises UserError for a folder that is none, and for what our GPT is not."""
    content = read_config(folder)
    architecture = KINDS.get(str(content.get("model_type")))
    if architecture is None:
        kind = content.get("model_type")
        raise UserError(
            f"model_type = {shortened(repr(kind))} is none of our architectures ({', '.join(KINDS)})",
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
    """The model from its keys and its weights. Raises UserError as `to_ours`, and for keys that describe no GPT."""
    names = architecture.gguf_names if gguf else architecture.names
    embedding = theirs.get(names.theirs(EMBEDDING)[0])
    vocab_size = len(embedding) if embedding is not None and embedding.dim() else 0
    refuse_heads(model, rotates=architecture.kind != "gpt2", place=place)
    if model["n_layer"] > len(theirs):  # before so many are made
        raise UserError(
            f"{model['n_layer']:,} layers are asked for, and there are {len(theirs):,} tensors in all",
            place=place,
            remedy="Download the model again, whole.",
        )
    try:
        with torch.device("meta"):
            made = GPT(resolved_model(Model(**model), Data()), max(vocab_size, 1))
    except (ValueError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"it describes no GPT of ours: {reason}", place=place, remedy="Download it again.") from None
    expected = {name: each.shape for name, each in made.named_parameters()}  # a tied one once
    return ForeignModel(model, to_ours(theirs, expected, names, place, ignored), vocab_size)


def refuse_heads(model: Mapping[str, Any], *, rotates: bool, place: str) -> None:
    """Raise UserError for heads that no model of its architecture has. rotates: positions turn pairs of channels."""
    heads, width = model["n_head"], model.get("head_width", 0)
    if not rotates and model["n_embd"] % heads:
        problem = f"{model['n_embd']:,} channels are not divided evenly by {heads:,} heads"
    elif rotates and width % 2:
        problem = f"heads are {width:,} channels wide, and positions need an even number"
    elif rotates and heads % model["n_kv_head"]:
        problem = f"{heads:,} heads of queries cannot share {model['n_kv_head']:,} heads of keys and values evenly"
    else:
        return
    raise UserError(problem, place=place, remedy="Download the model again.")


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
        except (SafetensorError, OSError, LookupError, ValueError) as error:
            raise UserError(f"damaged: {error}", place=str(file), remedy="Download the model again, whole.") from None
    return found


def count(content: Mapping[str, Any], key: str, place: str, default: Any = None) -> int:
    """A whole number from 1 on. Raises UserError if it is missing, or none."""
    value = content.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise UserError(
            f"{key} = {shortened(repr(value))} is no whole number above 0",
            place=place,
            remedy="Download the model again.",
        )
    return value


def positive(content: Mapping[str, Any], key: str, place: str, default: float) -> float:
    """A number above 0. Raises UserError for anything else."""
    value = content.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LARGEST:
        raise UserError(
            f"{key} = {shortened(repr(value))} is no number above 0", place=place, remedy="Download the model again."
        )
    return float(value)


def yes(content: Mapping[str, Any], key: str, place: str, default: bool) -> bool:
    """True or false. Raises UserError for anything else."""
    value = content.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise UserError(
            f"{key} = {shortened(repr(value))} is neither true nor false",
            place=place,
            remedy="Download the model again.",
        )
    return value


def table(content: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    """A table of keys; an empty one if it is missing. Raises UserError for anything else."""
    value = content.get(key)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError(
            f"{key} = {shortened(repr(value))} is no table of keys", place=place, remedy="Download the model again."
        )
    return value


def refuse_others(content: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], place: str) -> None:
    """Raise UserError for the first key whose value our GPT does not have."""
    for key, values in allowed.items():
        if (value := content.get(key, values[0])) not in values:
            raise UserError(f"our GPT has no {key} = {shortened(repr(value))}", place=place, remedy=AS_IT_IS)


def activation(content: Mapping[str, Any], key: str, kind: str, place: str) -> str:
    """Our name of the activation. Raises UserError for one that we do not have."""
    known = ACTIVATIONS.get(kind, ACTIVATIONS["llama"])
    value = str(content.get(key, next(iter(known))))
    if value not in known:
        raise UserError(
            f"our GPT has no {key} = {shortened(repr(value))} here",
            place=place,
            remedy=f"{did_you_mean(value, known)} {AS_IT_IS}",
        )
    return known[value]


def rotary_keys(content: Mapping[str, Any], architecture: Architecture, place: str) -> dict[str, Any]:
    """Keys of [train.model] from the config.json of a Llama, Qwen2, Qwen3 or Arcee."""
    rope = table(content, "rope_parameters", place)
    layers = content.get("layer_types") or ["full_attention"]
    kinds = sorted({str(each) for each in layers}) if isinstance(layers, list) else layers
    scaling = content.get("rope_scaling")
    plain = isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) == "default"
    refuse_others({**content, "rope_scaling": None if plain else scaling}, ROTARY, place)
    refuse_others(
        {"rope_type": rope.get("rope_type", "default"), "layer_types": kinds},
        {"rope_type": ("default",), "layer_types": (["full_attention"],)},
        place,
    )
    n_embd, n_head = count(content, "hidden_size", place), count(content, "num_attention_heads", place)
    takes = architecture.takes
    return {
        "kind": "gpt",
        "preset": "portable" if architecture.kind == "qwen3" else "llama",
        "n_layer": count(content, "num_hidden_layers", place),
        "n_head": n_head,
        "n_kv_head": count(content, "num_key_value_heads", place, n_head),
        "n_embd": n_embd,
        "head_width": count(content, "head_dim", place, max(1, n_embd // n_head)),
        "n_ff": count(content, "intermediate_size", place),
        "block_size": count(content, "max_position_embeddings", place),
        "norm_eps": positive(content, "rms_norm_eps", place, 1e-6),
        "rope_base": positive(rope, "rope_theta", place, positive(content, "rope_theta", place, 10_000.0)),
        "activation": activation(content, "hidden_act", architecture.kind, place),
        "qkv_bias": True in takes["qkv_bias"],
        "tie_weights": yes(content, "tie_word_embeddings", place, False),
    }


def gpt2_keys(content: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Keys of [train.model] from the config.json of a GPT-2."""
    refuse_others(content, GPT2, place)
    n_embd = count(content, "n_embd", place, 768)
    return {
        "kind": "gpt",
        "preset": "gpt2",
        "n_layer": count(content, "n_layer", place, 12),
        "n_head": count(content, "n_head", place, 12),
        "n_embd": n_embd,
        "n_ff": count(content, "n_inner", place, 4 * n_embd),
        "block_size": count(content, "n_positions", place, 1024),
        "norm_eps": positive(content, "layer_norm_epsilon", place, 1e-5),
        "activation": activation(content, "activation_function", "gpt2", place),
        "bias": True,
        "tie_weights": yes(content, "tie_word_embeddings", place, True),
    }
