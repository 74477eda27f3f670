"""Write a GPT as a GGUF file, which llama.cpp and Ollama run: a loaded model in; one file with weights and tokenizer out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core.encoders.base import Encoder
from core.errors import UserError
from core.huggingface.architectures import Architecture, architecture_of
from core.huggingface.extra import needed
from core.huggingface.gguf_vocabulary import vocabulary_of
from core.huggingface.template import chat_template
from core.huggingface.tokenizer import written_tokenizer
from core.huggingface.weights import Tensors, completed_weights, permuted, to_theirs
from core.models.gpt import GPT

NAME = "model.gguf"
TYPES = ("f32", "f16", "bf16", "q8_0")
LARGEST_F16 = 65_504
GELU_NOTE = (
    "llama.cpp computes gelu by an approximation (tanh), and this model was trained with the exact form: logits differ in the "
    'third digit. For equal ones train with train.model.activation = "gelu_tanh".'
)


def write_gguf(model: GPT, encoder: Encoder, folder: Path, *, begin: int | None, title: str, kind: str) -> list[str]:
    """Write model.gguf into an empty folder. Returns remarks for the user.

    begin: the id with which documents begin. title: the model's name. kind: of matrices, one of TYPES; norms and biases stay
    f32, and so do matrices in rows that blocks of q8_0 do not fit. Raises UserError for a feature without a counterpart.
    """
    gguf = needed("gguf", "Export to GGUF")
    architecture = architecture_of(model, "llama.cpp")
    tensors = gguf_weights(model, architecture)
    quantised = {name: stored_as(gguf, name, tensor.numpy(), kind) for name, tensor in tensors.items()}
    writer = gguf.GGUFWriter(None, architecture.kind)
    for key, value in sizes(model, architecture).items():
        add(writer, f"{architecture.kind}.{key}", value)
    writer.add_name(title)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}" if kind != "f32" else "ALL_F32"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_tokenizer(writer, encoder, begin)
    for name, (data, stored) in quantised.items():
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file(folder / NAME)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    odd = (
        sum(1 for name, (_, stored) in quantised.items() if stored == 0 and tensors[name].dim() > 1)
        if kind != "f32"
        else 0
    )
    return [
        *([GELU_NOTE] if model.config.activation == "gelu" else []),
        *(
            [f"{odd} matrices are f32: their rows are no multiple of 32, as {kind} needs."]
            if odd and kind == "q8_0"
            else []
        ),
    ]


def gguf_weights(model: GPT, architecture: Architecture) -> Tensors:
    """The weights under the names and in the order of llama.cpp, float32."""
    state = completed_weights(model, norms=architecture.kind != "gpt2", biased=architecture.biased)
    scheme = model.blocks[0].attn.scheme
    tensors = to_theirs(state, architecture.gguf_names, scheme.rows)
    if not architecture.permutes:
        return tensors
    heads = {".attn_q.": scheme.n_head, ".attn_k.": scheme.n_kv_head}
    for name in tensors:
        for part, count in heads.items():
            if part in name:
                tensors[name] = permuted(tensors[name], count).contiguous()
    return tensors


def sizes(model: GPT, architecture: Architecture) -> dict[str, Any]:
    """The metadata of the architecture, without its prefix."""
    config = model.config
    found: dict[str, Any] = {
        "context_length": config.block_size,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.n_ff,
        "attention.head_count": config.n_head,
        "vocab_size": model.vocab_size,
    }
    if architecture.kind == "gpt2":
        return found | {"attention.layer_norm_epsilon": config.norm_eps}
    return found | {
        "attention.head_count_kv": config.n_kv_head,
        "attention.key_length": config.head_width,
        "attention.value_length": config.head_width,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": config.head_width,
        "rope.freq_base": config.rope_base,
    }


def add(writer: Any, key: str, value: int | float) -> None:
    """A number of the metadata."""
    (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)


def add_tokenizer(writer: Any, encoder: Encoder, begin: int | None) -> None:
    """The vocabulary, the ids around documents, and the chat template."""
    tokenizer = written_tokenizer(encoder, begin)
    vocabulary = vocabulary_of(encoder, tokenizer)
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.pre:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "gpt2":  # which needs the key, and the package writes no empty list: one that never applies
        writer.add_token_merges(vocabulary.merges or ("\u20ac \u20ac",))
    writer.add_add_bos_token(begin is not None)
    writer.add_add_eos_token(False)
    if begin is not None:
        writer.add_bos_token_id(begin)
    if tokenizer.end is not None:
        writer.add_eos_token_id(tokenizer.end)
    if template := chat_template(encoder):
        writer.add_chat_template(template)


def stored_as(gguf: Any, name: str, values: np.ndarray[Any, Any], kind: str) -> tuple[np.ndarray[Any, Any], Any]:
    """A tensor as it is stored, and its type. Raises UserError for a number that f16 cannot hold."""
    types = gguf.GGMLQuantizationType
    small = values.ndim == 1 or name == "position_embd.weight" or (kind == "q8_0" and values.shape[-1] % 32)
    if kind == "f32" or small:
        return values, types.F32
    if kind == "f16" and (largest := float(np.abs(values).max())) > LARGEST_F16:
        raise UserError(
            f"{name} has a number of {largest:.3g}, and f16 ends at {LARGEST_F16:,}",
            place="type",
            remedy="Write bf16 or f32.",
        )
    stored = types[kind.upper()]
    return gguf.quants.quantize(values, stored), stored
