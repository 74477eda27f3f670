"""Write a GPT as a model folder of Hugging Face: a loaded model in; config.json, weights and tokenizer out.

An architecture that transformers has is written as that one. Any other model, such as preset "modern", is written with its
own code, core/huggingface/modeling_terrarium.py, which transformers runs with trust_remote_code=True.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as tensors_to_bytes

from core import durable
from core.config import Sampling
from core.encoders.base import Encoder
from core.errors import UserError
from core.huggingface.architectures import ANY, EITHER, PARAMS, Architecture, architecture_of, features_of, missing_in
from core.huggingface.template import chat_template
from core.huggingface.tokenizer import WrittenTokenizer, tokenizer_config, written_tokenizer
from core.huggingface.weights import HEAD, Tensors, completed_weights, to_theirs
from core.models.gpt import GPT

CODE = "modeling_terrarium"
# What the code that is written along computes.
OWN = Architecture(
    "TerrariumForCausalLM",
    "terrarium",
    dict.fromkeys(("norm", "activation", "softcap", "smear", "ngram", "window", "bias", "qkv_bias", "qk_norm", "qk_scale", "n_kv_head", "head_width"), ANY)
    | {"position": ("rope", "learned", "none"), "tie_weights": EITHER}
    | {f"{PARAMS}{key}": (False,) for key in ("post_norm", "ff_bias", "head_bias")},
)  # fmt: skip


def write_hf(model: GPT, encoder: Encoder, folder: Path, *, begin: int | None, sampling: Sampling) -> str:
    """Fill an empty folder with a model that transformers loads, in float32. Returns the class that loads it.

    begin: the id with which documents begin. sampling: how the model writes if nothing else is asked for. Raises UserError for
    a feature that can neither be expressed nor is in the code that is written along, and for a kind of tokenizer.
    """
    architecture = hf_architecture(model)
    tokenizer = written_tokenizer(encoder, begin)
    weights = hf_weights(model, architecture)
    config = hf_config(model, architecture, tokenizer, tied=not any(name in weights for name in (HEAD,)))
    data = tensors_to_bytes(weights, metadata={"format": "pt"})
    durable.write_file(folder / "model.safetensors", data)
    write_json(folder / "config.json", config)
    write_tokenizer(encoder, folder, begin=begin, block_size=model.block_size)
    write_json(
        folder / "generation_config.json", generation_config(tokenizer, sampling, cached=architecture is not OWN)
    )
    if architecture is OWN:
        durable.write_file(folder / f"{CODE}.py", Path(__file__).with_name(f"{CODE}.py").read_bytes())
    return architecture.title


def write_tokenizer(encoder: Encoder, folder: Path, *, begin: int | None, block_size: int) -> None:
    """Write an encoder as tokenizer.json with its settings and, where it has marks for conversations, a chat template.

    begin: the id with which documents begin. block_size: tokens that the model sees. Raises UserError for a kind that cannot be
    written.
    """
    tokenizer = written_tokenizer(encoder, begin)
    write_json(folder / "tokenizer.json", tokenizer.json)
    write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer, block_size))
    if template := chat_template(encoder):
        durable.write_file(folder / "chat_template.jinja", template.encode())


def hf_architecture(model: GPT) -> Architecture:
    """An architecture of transformers that the model is, else our own. Raises UserError if it is neither."""
    try:
        return architecture_of(model, "transformers")
    except UserError as error:
        lacks = missing_in(OWN, features_of(model))
        if lacks:
            key = lacks[0]
            shown = features_of(model)[key]
            raise UserError(
                f"a model with {key.removeprefix(PARAMS)} = {shown!r} cannot be written for transformers",
                place=f"train.model.{key}",
                remedy=error.remedy,
            ) from None
        return OWN


def hf_weights(model: GPT, architecture: Architecture) -> Tensors:
    """The weights under the names of transformers, float32; a tied head once."""
    own = architecture is OWN
    state = completed_weights(model, norms=not own and architecture.kind != "gpt2", biased=architecture.biased)
    return state if own else to_theirs(state, architecture.names, model.blocks[0].attn.scheme.rows)


def hf_config(model: GPT, architecture: Architecture, tokenizer: WrittenTokenizer, *, tied: bool) -> dict[str, Any]:
    """The content of config.json. tied: there is no weight of the head."""
    config = model.config
    common = {
        "architectures": [architecture.title],
        "model_type": architecture.kind,
        "vocab_size": model.vocab_size,
        "bos_token_id": tokenizer.begin,
        "eos_token_id": tokenizer.end,
        "tie_word_embeddings": tied,
        "dtype": "float32",
    }
    if architecture is OWN:
        keys = set(type(config).model_fields) - {"params", "init_from", "init_checkpoint", "depth", "kind"}
        auto = {"AutoConfig": f"{CODE}.TerrariumConfig", "AutoModelForCausalLM": f"{CODE}.TerrariumForCausalLM"}
        return common | {"auto_map": auto, "model": config.model_dump(include=keys)}
    if architecture.kind == "gpt2":
        return common | {
            "n_positions": config.block_size,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_inner": config.n_ff,
            "activation_function": "gelu" if config.activation == "gelu" else "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout,
        }
    return common | {
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_ff,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_width,
        "max_position_embeddings": config.block_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,  # where versions before 5 read it
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "hidden_act": "silu" if config.activation == "swiglu" else "relu2",
        "attention_bias": False,
        "mlp_bias": False,
    }


def generation_config(tokenizer: WrittenTokenizer, sampling: Sampling, *, cached: bool) -> dict[str, Any]:
    """generation_config.json: how the run samples. cached: the model can keep keys and values."""
    greedy = sampling.temperature == 0
    drawn = {"temperature": sampling.temperature or 0.8, "top_k": sampling.top_k, "top_p": sampling.top_p}
    found = {
        "bos_token_id": tokenizer.begin,
        "eos_token_id": tokenizer.end,
        "do_sample": not greedy,
        "max_new_tokens": sampling.max_new_tokens,
        **({} if greedy else drawn),
        **({} if cached else {"use_cache": False}),
    }
    return {key: value for key, value in found.items() if value is not None}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A new file of readable JSON."""
    durable.write_file(path, (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
