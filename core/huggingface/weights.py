"""Our names of weights and theirs: split, join and transpose; and what another architecture has as weights that ours computes.

Legend: V ids, C channels, H heads of queries, K heads of keys and values, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.errors import UserError
from core.models.attention import QK_NORM_SCALE
from core.models.gpt import GPT
from core.models.layers import rms_norm

Tensors = dict[str, Tensor]
EMBEDDING, HEAD, PLACES = "transformer.wte.weight", "lm_head.weight", "transformer.wpe.weight"


@dataclass(frozen=True)
class Names:
    """modules: our module -> theirs, * being the number of the block. Ours holds the rows of several one below the other.

    transposed: our modules whose weights lie as (inputs, outputs) there.
    """

    modules: Mapping[str, tuple[str, ...]]
    transposed: tuple[str, ...] = field(default=())

    def theirs(self, name: str) -> list[str]:
        """Their names for the rows of one of our weights."""
        module, _, kind = name.rpartition(".")
        number = next((part for part in module.split(".") if part.isdigit()), "")
        pattern = module.replace(f".{number}.", ".*.") if number else module
        return [f"{each.replace('*', number)}.{kind}" for each in self.modules[pattern]]

    def is_transposed(self, name: str) -> bool:
        return name.endswith(".weight") and name.split(".")[-2] in self.transposed


BLOCK = "transformer.h.*"
LLAMA = Names(
    {
        "transformer.wte": ("model.embed_tokens",),
        f"{BLOCK}.ln_1": ("model.layers.*.input_layernorm",),
        f"{BLOCK}.attn.c_attn": tuple(f"model.layers.*.self_attn.{each}_proj" for each in "qkv"),
        f"{BLOCK}.attn.q_norm": ("model.layers.*.self_attn.q_norm",),
        f"{BLOCK}.attn.k_norm": ("model.layers.*.self_attn.k_norm",),
        f"{BLOCK}.attn.c_proj": ("model.layers.*.self_attn.o_proj",),
        f"{BLOCK}.ln_2": ("model.layers.*.post_attention_layernorm",),
        f"{BLOCK}.mlp.c_fc": ("model.layers.*.mlp.gate_proj", "model.layers.*.mlp.up_proj"),
        f"{BLOCK}.mlp.c_proj": ("model.layers.*.mlp.down_proj",),
        "transformer.ln_f": ("model.norm",),
        "lm_head": ("lm_head",),
    }
)
ARCEE = Names({**LLAMA.modules, f"{BLOCK}.mlp.c_fc": ("model.layers.*.mlp.up_proj",)})
OWN = tuple(f"{BLOCK}.{each}" for each in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"))
GPT2 = Names(
    {each: (each,) for each in ("transformer.wte", "transformer.wpe", *OWN, "transformer.ln_f", "lm_head")},
    transposed=("c_attn", "c_proj", "c_fc"),
)
LLAMA_GGUF = Names(
    {
        "transformer.wte": ("token_embd",),
        f"{BLOCK}.ln_1": ("blk.*.attn_norm",),
        f"{BLOCK}.attn.c_attn": ("blk.*.attn_q", "blk.*.attn_k", "blk.*.attn_v"),
        f"{BLOCK}.attn.q_norm": ("blk.*.attn_q_norm",),
        f"{BLOCK}.attn.k_norm": ("blk.*.attn_k_norm",),
        f"{BLOCK}.attn.c_proj": ("blk.*.attn_output",),
        f"{BLOCK}.ln_2": ("blk.*.ffn_norm",),
        f"{BLOCK}.mlp.c_fc": ("blk.*.ffn_gate", "blk.*.ffn_up"),
        f"{BLOCK}.mlp.c_proj": ("blk.*.ffn_down",),
        "transformer.ln_f": ("output_norm",),
        "lm_head": ("output",),
    }
)
ARCEE_GGUF = Names({**LLAMA_GGUF.modules, f"{BLOCK}.mlp.c_fc": ("blk.*.ffn_up",)})
GPT2_GGUF = Names(
    {
        **ARCEE_GGUF.modules,
        "transformer.wpe": ("position_embd",),
        f"{BLOCK}.attn.c_attn": ("blk.*.attn_qkv",),
    }
)


def to_theirs(state: Mapping[str, Tensor], names: Names, rows: Sequence[int]) -> Tensors:
    """Our weights under their names. rows: of queries, keys and values in c_attn; other joined matrices are cut evenly."""
    found: Tensors = {}
    for name, tensor in state.items():
        theirs = names.theirs(name)
        sizes = rows if ".c_attn." in name and len(theirs) > 1 else [len(tensor) // len(theirs)] * len(theirs)
        for each, part in zip(theirs, tensor.split_with_sizes(list(sizes)), strict=True):
            found[each] = (part.t() if names.is_transposed(name) else part).contiguous()
    return found


def to_ours(
    theirs: Mapping[str, Tensor],
    wanted: Mapping[str, Sequence[int]],
    names: Names,
    place: str,
    ignored: Iterable[str] = (),
) -> Tensors:
    """Their weights under our names, float32. wanted: our names, each with its shape. ignored: theirs that are no weights.

    Raises UserError where one is missing or of another shape, and for one that our model has no place for: nothing is dropped
    silently.
    """
    found: Tensors = {}
    used = set(ignored)
    for name, shape in wanted.items():
        parts = names.theirs(name)
        if missing := [part for part in parts if part not in theirs]:
            raise UserError(
                f"the weights have no tensor {missing[0]}", place=place, remedy="Download the model again, whole."
            )
        used.update(parts)
        tensors = [theirs[part] for part in parts]
        for part, tensor in zip(parts, tensors, strict=True):
            if not tensor.is_floating_point():
                raise UserError(
                    f"tensor {part} holds {str(tensor.dtype).removeprefix('torch.')}, no weights",
                    place=place,
                    remedy="Take the model in another precision, such as bfloat16 or float32.",
                )
        fit = all(tensor.dim() == len(shape) for tensor in tensors)
        turned = [tensor.t() if fit and names.is_transposed(name) else tensor for tensor in tensors]
        if not fit or any(list(tensor.shape[1:]) != list(shape[1:]) for tensor in turned) or sum(map(len, turned)) != shape[0]:  # fmt: skip
            is_one = len(parts) == 1
            raise UserError(
                f"tensor{'s' * (not is_one)} {', '.join(parts)} {'has' if is_one else 'have'} the shape{'s' * (not is_one)} "
                f"{', '.join(str(tuple(tensor.shape)) for tensor in tensors)}, and the configuration asks for {tuple(shape)}"
                f"{', turned,' if names.is_transposed(name) else ''} as {name}",
                place=place,
                remedy="Download the model again, whole.",
            )
        found[name] = torch.cat([tensor.float() for tensor in turned]).contiguous()
    if unknown := sorted(theirs.keys() - used):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(
            f"our model has no place for the tensor {unknown[0]}{more}",
            place=place,
            remedy='The architecture differs from ours. Use train.model.kind = "hf", which runs it as it is.',
        )
    return found


def completed_weights(model: GPT, *, norms: bool, biased: Iterable[str]) -> Tensors:
    """A model's weights, float32, with those that another architecture has where ours computes without.

    norms: norms have scales there: of 1, and the norm of embeddings is computed beforehand; so have queries and keys. biased:
    modules that always have a bias there: of 0. Without `lm_head.weight` the head is tied to the embedding.
    """
    config = model.config
    state = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    if config.tie_weights:
        del state[HEAD]
    C = config.n_embd
    if norms and config.norm == "rmsnorm":
        if config.tie_weights:
            state[HEAD] = state[EMBEDDING]  # which the norm does not change
        state[EMBEDDING] = rms_norm(state[EMBEDDING], model.norm_eps)
        norms_of_blocks = [
            f"transformer.h.{number}.{ln}" for number in range(config.n_layer) for ln in ("ln_1", "ln_2")
        ]
        state |= {f"{name}.weight": torch.ones(C) for name in ("transformer.ln_f", *norms_of_blocks)}
    for number, block in enumerate(model.blocks):
        at = f"transformer.h.{number}"
        if norms and config.qk_norm and not config.qk_scale:
            scale = torch.full((block.attn.scheme.head_width,), QK_NORM_SCALE**0.5)
            state |= {f"{at}.attn.q_norm.weight": scale, f"{at}.attn.k_norm.weight": scale.clone()}
    for name in [name for name in state if name.endswith(".weight") and name.split(".")[-2] in set(biased)]:
        outputs = C if state[name].dim() == 1 else len(state[name])
        state.setdefault(f"{name.removesuffix('weight')}bias", torch.zeros(outputs))
    return state


def permuted(tensor: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys (heads D, ...) in the order of llama.cpp's `llama`, which rotates neighbours: 0, D/2, 1, ..."""
    return tensor.view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def unpermuted(tensor: Tensor, heads: int) -> Tensor:
    """Undo `permuted`."""
    return tensor.view(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
