"""Which of our models is which architecture elsewhere: a GPT in; the architecture, or what has no counterpart, out.

A feature is a key of [train.model] that changes what a model computes, not only its size. An architecture lists the values
of every feature that it has, so that a feature that nobody thought of is refused and not dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.config import Model
from core.errors import UserError
from core.huggingface.weights import ARCEE, ARCEE_GGUF, GPT2, GPT2_GGUF, LLAMA, LLAMA_GGUF, Names
from core.models.attention import scheme_of
from core.models.gpt import GPT
from core.models.nanogpt import params_of

# Keys that say how large a model is, how it begins, or what it is trained from; every architecture takes any value.
SIZES = ("kind", "preset", "init_from", "init_checkpoint", "depth", "n_layer", "n_head", "n_embd", "n_ff", "block_size",
         "dropout", "norm_eps", "rope_base", "zero_init", "window_pattern", "params")  # fmt: skip
ANY: tuple[Any, ...] = ()
EITHER = (False, True)
USUAL = None  # of n_kv_head: as n_head; of head_width: n_embd / n_head
PARAMS = "params."
# As most architectures have it.
PLAIN: dict[str, tuple[Any, ...]] = {
    "softcap": (0.0,), "smear": (False,), "ngram": (0,), "window": (0,), "bias": (False,), "qkv_bias": (False,),
    "qk_norm": (False,), "qk_scale": EITHER, "tie_weights": EITHER, "n_kv_head": ANY, "head_width": ANY,
    "params.post_norm": (False,), "params.ff_bias": (False,), "params.head_bias": (False,),
}  # fmt: skip
# rmsnorm has no scales: they are written as 1, and embeddings are normalised beforehand.
ROTARY = PLAIN | {"norm": ("rmsnorm_scale", "rmsnorm"), "position": ("rope",), "activation": ("swiglu",)}


@dataclass(frozen=True)
class Architecture:
    """An architecture that other programs have.

    title: the class in transformers. kind: `model_type` in config.json, and the name in GGUF. takes: the values of each
    feature; empty: any. names, gguf_names: of its tensors. biased: modules that always have a bias.
    """

    title: str
    kind: str
    takes: Mapping[str, tuple[Any, ...]]
    names: Names = LLAMA
    gguf_names: Names = LLAMA_GGUF
    biased: tuple[str, ...] = ()

    @property
    def permutes(self) -> bool:
        """Whether llama.cpp rotates neighbouring channels of this architecture, not those half a head apart."""
        return self.kind in ("llama", "arcee")


ARCHITECTURES = (
    Architecture("LlamaForCausalLM", "llama", ROTARY),
    Architecture("Qwen3ForCausalLM", "qwen3", ROTARY | {"qk_norm": (True,)}),
    Architecture("Qwen2ForCausalLM", "qwen2", ROTARY | {"qkv_bias": (True,)}),
    Architecture("ArceeForCausalLM", "arcee", ROTARY | {"activation": ("relu2",)}, ARCEE, ARCEE_GGUF),
    Architecture(
        "GPT2LMHeadModel",
        "gpt2",
        PLAIN | {"norm": ("layernorm",), "position": ("learned",), "activation": ("gelu", "gelu_tanh"), "bias": EITHER,
                 "qkv_bias": EITHER, "n_kv_head": (USUAL,), "head_width": (USUAL,)},
        GPT2,
        GPT2_GGUF,
        biased=("ln_1", "ln_2", "ln_f", "c_attn", "c_proj", "c_fc"),
    ),
)  # fmt: skip


def features_of(model: GPT) -> dict[str, Any]:
    """The features of a model, as it is: a window that is longer than the context is none."""
    config = model.config
    found = {key: getattr(config, key) for key in Model.model_fields if key not in SIZES}
    found["window"] = max(scheme_of(config, layer).window for layer in range(config.n_layer))
    found["n_kv_head"] = USUAL if config.n_kv_head == config.n_head else config.n_kv_head
    usual_width = config.n_embd % config.n_head == 0 and config.head_width == config.n_embd // config.n_head
    found["head_width"] = USUAL if usual_width else config.head_width
    return found | {f"{PARAMS}{key}": value for key, value in params_of(model).items()}


def missing_in(architecture: Architecture, features: Mapping[str, Any]) -> list[str]:
    """The features that an architecture does not have."""
    takes = architecture.takes
    return [key for key, value in features.items() if key not in takes or (takes[key] and value not in takes[key])]


def architecture_of(model: GPT, what: str, offered: Sequence[Architecture] = ARCHITECTURES) -> Architecture:
    """The architecture of a model. what: the format, for the message. Raises UserError that names the first feature that the
    nearest one does not have."""
    features = features_of(model)
    lacks = {architecture.title: missing_in(architecture, features) for architecture in offered}
    nearest = min(offered, key=lambda architecture: len(lacks[architecture.title]))
    if not lacks[nearest.title]:
        return nearest
    key, *others = lacks[nearest.title]
    value = features[key]
    more = f" (nor {', '.join(each.removeprefix(PARAMS) for each in others)})" if others else ""
    raise UserError(
        f"{what} has no model with {key.removeprefix(PARAMS)} = {value!r}; the nearest architecture is "
        f"{nearest.title}, without it{more}",
        place=f"train.model.{key}",
        remedy='Train with train.model.preset = "portable", "llama" or "gpt2", and leave these keys out.',
    )
