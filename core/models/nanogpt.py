"""Read and write nanoGPT's ckpt.pt.

The names and shapes of preset "gpt2" are those of nanoGPT, so no weight is transposed or renamed.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import files
from core.config import Data, Model
from core.defaults import PRESETS, resolved_model
from core.errors import UserError
from core.models.foreign import ForeignModel
from core.models.gpt import GPT

ARGUMENTS = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size")
COMPILED = "_orig_mod."  # torch.compile puts it before every name
REMEDY = "Give the ckpt.pt that nanoGPT's train.py wrote to its out_dir."
# What torch.load raises for a damaged or foreign file
NOT_READABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)


def import_checkpoint(path: Path) -> ForeignModel:
    """Read a ckpt.pt; no code in it is run. Raises UserError for a file that is none, or whose tensors do not fit."""
    content = read(path)
    arguments, state = content.get("model_args"), content.get("model")
    if not isinstance(arguments, dict) or not isinstance(state, dict):
        raise UserError("no nanoGPT checkpoint: it has no 'model' and 'model_args'", place=str(path), remedy=REMEDY)
    # Without flash attention nanoGPT keeps the causal mask as a buffer called attn.bias; it is no weight.
    state = {name.removeprefix(COMPILED): tensor for name, tensor in state.items() if not name.endswith(".attn.bias")}
    # Checkpoints from before nanoGPT had the key `bias`: their layers have biases, as GPT-2's.
    arguments = {"bias": "transformer.ln_f.bias" in state, **arguments}
    missing = [name for name in ARGUMENTS if name not in arguments]
    if missing:
        raise UserError(f"no nanoGPT checkpoint: model_args lacks {', '.join(missing)}", place=str(path), remedy=REMEDY)
    vocab_size = arguments["vocab_size"]
    model = {"kind": "gpt", "preset": "gpt2", **{name: arguments[name] for name in ARGUMENTS if name != "vocab_size"}}
    model["dropout"] = number_in(arguments, "dropout", 0.0, path)
    check_fit(state, model, vocab_size, path)
    step = int(number_in(content, "iter_num", 0, path))
    return ForeignModel(model, state, vocab_size, step, number_in(content, "best_val_loss", math.inf, path))


def number_in(values: dict[str, Any], name: str, default: float, path: Path) -> float:
    """A number of a checkpoint, which may be a tensor of one. Raises UserError for anything else and below 0."""
    value = values.get(name, default)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if type(value) not in (int, float) or not value >= 0 or (name == "iter_num" and math.isinf(value)):
        raise UserError(f"no nanoGPT checkpoint: {name} is {value!r:.40}", place=str(path), remedy=REMEDY)
    return float(value)


def is_padding(rows: int, ids: int) -> bool:
    """Whether an embedding of so many rows is nanoGPT's for a vocabulary of `ids`: padded to a multiple of 64 or 128."""
    return ids < rows < ids + 128 and rows % 64 == 0


def without_padding(state: dict[str, Tensor], ids: int) -> dict[str, Tensor]:
    """The weights with the rows of the first `ids` tokens only."""
    return {
        key: tensor[:ids] if key in ("transformer.wte.weight", "lm_head.weight") else tensor
        for key, tensor in state.items()
    }


def read(path: Path) -> dict[str, Any]:
    """The pickled dict, plain containers and tensors only."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", place=str(path), remedy=REMEDY) from None
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks on pickles it did not write; they are refused below, or fine
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except NOT_READABLE as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"no nanoGPT checkpoint: {reason}", place=str(path), remedy=REMEDY) from None
    if not isinstance(content, dict):
        raise UserError(f"no nanoGPT checkpoint: it holds a {type(content).__name__}", place=str(path), remedy=REMEDY)
    return content


def check_fit(state: dict[str, Any], model: dict[str, Any], vocab_size: int, path: Path) -> None:
    """Raises UserError unless the tensors are those of the model that model_args describes."""
    try:
        config = resolved_model(Model(**model), Data())
        with torch.device("meta"):
            expected = GPT(config, vocab_size).state_dict()
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"model_args describe no GPT: {str(error).splitlines()[0]}", place=str(path), remedy=REMEDY
        ) from None
    for name in sorted(expected.keys() | state.keys()):
        wanted, found = expected.get(name), state.get(name)
        if wanted is None or not isinstance(found, Tensor) or wanted.shape != found.shape:
            have = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else "missing"
            want = "none" if wanted is None else f"one of shape {tuple(wanted.shape)}"
            raise UserError(f"tensor {name} is {have}, but model_args ask for {want}", place=str(path), remedy=REMEDY)


def export_checkpoint(
    model: GPT, path: Path, *, step: int = 0, best_val_loss: float = math.inf, settings: dict[str, Any] | None = None
) -> None:
    """Write a ckpt.pt for nanoGPT's sample.py and for its train.py with init_from = "resume" (Adam's memory starts anew).

    settings: nanoGPT's own config, of which sample.py reads `dataset`. Raises UserError for a model that nanoGPT cannot build.
    """
    config = model.config
    gpt2 = resolved_model(Model(preset="gpt2", n_head=config.n_head, n_embd=config.n_embd), Data())
    keys = [*PRESETS["gpt2"]["model"], "n_ff", "ngram", "n_kv_head", "head_width", "norm_eps", "window"]
    wanted = {key: getattr(gpt2, key) for key in keys if key not in ("zero_init", "bias")}  # nanoGPT takes either
    wanted["qkv_bias"] = config.bias
    for key, value in wanted.items():
        if getattr(config, key) != value:
            raise UserError(
                f"nanoGPT has no model with {key} = {getattr(config, key)!r}, only {value!r}",
                place=f"train.model.{key}",
                remedy='Train with train.model.preset = "gpt2" and leave that key out.',
            )
    for key, differs in params_of(model).items():
        if differs:
            raise UserError(
                f"nanoGPT has no model with {key}",
                place=f"train.model.params.{key}",
                remedy="Train without that key.",
            )
    arguments = {name: getattr(config, name) for name in ARGUMENTS if name != "vocab_size"}
    content = {
        "model": {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()},
        "model_args": {**arguments, "vocab_size": model.vocab_size, "dropout": config.dropout},
        "optimizer": fresh_adamw(model),
        "iter_num": step,
        "best_val_loss": best_val_loss,
        "config": settings or {},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    files.write_bytes(path, buffer.getvalue())


def params_of(model: GPT) -> dict[str, bool]:
    """Keys of [train.model.params] -> whether the model has what they ask for, and other programs have not."""
    names = set(model.state_dict())
    return {
        "post_norm": any(block.post_norm for block in model.blocks),
        "ff_bias": ("transformer.h.0.mlp.c_fc.bias" in names) != bool(model.config.bias),
        "head_bias": "lm_head.bias" in names,
    }


def fresh_adamw(model: GPT) -> dict[str, Any]:
    """State of an AdamW that has not stepped, with nanoGPT's two groups: matrices decay, vectors do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99)).state_dict()
