"""Read a GGUF file into our own GPT: metadata and tensors of any precision in; keys of [train.model] and weights out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import UserError
from core.huggingface.architectures import Architecture
from core.huggingface.extra import needed
from core.huggingface.from_hf import AS_IT_IS, KINDS, as_ours, count, positive
from core.huggingface.gguf_metadata import read_metadata
from core.huggingface.weights import Tensors, unpermuted
from core.models.foreign import ForeignModel
from core.toml import shortened

# Keys of the architecture that give a number of [train.model], and those that say nothing of their own.
SIZES = {
    "block_count": "n_layer", "attention.head_count": "n_head", "attention.head_count_kv": "n_kv_head",
    "embedding_length": "n_embd", "attention.key_length": "head_width", "feed_forward_length": "n_ff",
    "context_length": "block_size", "attention.layer_norm_rms_epsilon": "norm_eps", "attention.layer_norm_epsilon": "norm_eps",
    "rope.freq_base": "rope_base",
}  # fmt: skip
NUMBERS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base")  # need not be whole
NEEDED = ("block_count", "attention.head_count", "embedding_length", "feed_forward_length", "context_length")
SILENT = ("vocab_size",)
AS_WIDE = ("attention.value_length", "rope.dimension_count")  # must be as wide as a head
OFF: dict[str, tuple[Any, ...]] = {"rope.scaling.type": ("none",), "rope.scaling.factor": (1.0, 0.0)}


def read_gguf(path: Path) -> ForeignModel:
    """Read a model, dequantised to float32. Raises UserError for a file that is none, and for what our GPT is not."""
    gguf = needed("gguf", "Import from GGUF")
    try:
        metadata = read_metadata(path)
        reader = gguf.GGUFReader(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", place=str(path), remedy="Name a .gguf file.") from None
    except Exception as error:  # numpy's and the package's own, for a damaged or foreign file
        raise UserError(f"no GGUF file: {error}", place=str(path), remedy="Download it again, whole.") from None
    kind = str(metadata.get("general.architecture"))
    if kind not in KINDS:
        raise UserError(
            f"the architecture {shortened(repr(kind))} is none of ours ({', '.join(KINDS)})", place=str(path), remedy="Convert another model."
        )  # fmt: skip
    architecture, theirs = KINDS[kind], tensors_of(gguf, reader, path)
    model = keys_of(metadata, architecture, str(path)) | {"tie_weights": "output.weight" not in theirs}
    if architecture.permutes:
        for name in theirs:
            for part, heads in ((".attn_q.", model["n_head"]), (".attn_k.", model["n_kv_head"])):
                if part in name and theirs[name].dim() and len(theirs[name]) % (2 * heads) == 0:  # else it does not fit
                    theirs[name] = unpermuted(theirs[name], heads)
    return as_ours(model, theirs, architecture, str(path), [], gguf=True)


def tensors_of(gguf: Any, reader: Any, path: Path) -> Tensors:
    """Every tensor, float32. Raises UserError for a precision that the package cannot read."""
    found: Tensors = {}
    for tensor in reader.tensors:
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise UserError(
                f"tensor {tensor.name} is {tensor.tensor_type.name}, which the package gguf cannot read",
                place=str(path),
                remedy="Take a file in another precision, such as Q8_0 or F16.",
            ) from None
        except (ValueError, LookupError) as error:
            raise UserError(
                f"tensor {tensor.name} is damaged: {error}", place=str(path), remedy="Download it again, whole."
            ) from None
        found[tensor.name] = torch.from_numpy(np.array(values, np.float32))  # a copy: the file is mapped into memory
    return found


def keys_of(metadata: dict[str, Any], architecture: Architecture, place: str) -> dict[str, Any]:
    """Keys of [train.model]. Raises UserError for a key of the architecture that our GPT does not have, or that is missing."""
    prefix = f"{architecture.kind}."
    given = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    if missing := [key for key in NEEDED if key not in given]:
        raise UserError(f"it has no {prefix}{missing[0]}", place=place, remedy="Convert the model again.")
    takes, gpt2 = architecture.takes, architecture.kind == "gpt2"
    found: dict[str, Any] = {
        "kind": "gpt",
        "preset": {"gpt2": "gpt2", "qwen3": "portable"}.get(architecture.kind, "llama"),
    }
    for key in given.keys() & SIZES.keys():
        if key in NUMBERS:
            found[SIZES[key]] = short(positive(given, key, place, 1.0))
        else:
            found[SIZES[key]] = count(given, key, place)
    found.setdefault("n_kv_head", found["n_head"])
    found.setdefault("head_width", max(1, found["n_embd"] // found["n_head"]))
    wide = found["head_width"]
    for key, value in given.items():
        usual = key in SIZES or key in SILENT or (key in AS_WIDE and value == wide) or value in OFF.get(key, ())
        if not usual:
            raise UserError(f"our GPT has no {prefix}{key} = {shortened(repr(value))}", place=place, remedy=AS_IT_IS)
    found["activation"] = "gelu_tanh" if gpt2 else takes["activation"][0]
    found["bias"] = gpt2
    return found | {"qkv_bias": True in takes["qkv_bias"]}


def short(value: float) -> float:
    """A number as it was meant: 1e-05, where float32 has 9.999999747378752e-06."""
    return float(f"{value:.7g}")
