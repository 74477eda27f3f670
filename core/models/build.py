"""A model from the section [train.model]: the experiment's own build_model, else the registered kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.config import Model
from core.data.params import body_of, keywords, wants
from core.errors import UserError
from core.models.attention import scheme_of
from core.models.gpt import GPT
from core.models.returns import return_logits
from core.plugins.manager import Plugins
from core.plugins.manager import plugins as everyone

MODEL_PARAMS, AUTO = "train.model.params", "auto"


def build_model(config: Model, vocab_size: int, plugins: Plugins | None = None) -> torch.nn.Module:
    """A freshly initialised model: by `build_model(config, vocab_size)` of an experiment's prepare.py, else of the kind.

    Its keyword-only parameters are the keys of [train.model.params]; a positional one called `folder` gets the experiment's.
    plugins: with the experiment's; without any experiment
    if not given. Raises UserError for an unknown kind or key, and for a build_model that returns no torch.nn.Module.
    """
    plugins = plugins or everyone()
    build = builder(config, plugins)
    folder = {"folder": plugins.folder} if wants(build, "folder") else {}
    model = build(config, vocab_size, **folder, **keywords(build, config.params, MODEL_PARAMS))
    place = str(getattr(plugins.code, "__file__", config.kind))
    if not isinstance(model, torch.nn.Module):
        raise UserError(
            f"build_model returned {type(model).__name__}, not a torch.nn.Module",
            place=place,
            remedy="Return a module that maps token ids (B, T) to logits (B, T, V).",
        )
    if not hasattr(model, "block_size"):
        model.block_size = config.block_size  # type: ignore[assignment]
    return model if type(model).__module__.startswith("core.") else return_logits(model, place)


def builder(config: Model, plugins: Plugins) -> Callable[..., Any]:
    """The function or class that builds the model. Raises UserError for an unknown kind."""
    own = getattr(plugins.code, "build_model", None)
    found: Callable[..., Any] = own or plugins.get("models", config.kind, "train.model.kind")
    return found


def with_open_params(config: Model, plugins: Plugins) -> Model:
    """The section with "auto" for each parameter that is left open and that the model's `settled` chooses when a run begins."""
    build = builder(config, plugins)
    if not hasattr(build, "settled"):
        return config
    parameters = inspect.signature(body_of(build)).parameters
    left_open = {
        name: AUTO for name, each in parameters.items() if each.default == AUTO and each.kind is each.KEYWORD_ONLY
    }
    return config.model_copy(update={"params": left_open | config.params})


def with_chosen_params(config: Model, plugins: Plugins, precision: str) -> Model:
    """The section with a value for each parameter that is "auto", from the model's `settled(params, folder, precision)`.

    precision: of the machine's matrix products.
    """
    settled = getattr(builder(config, plugins), "settled", None)
    if settled is None:
        return config
    return config.model_copy(update={"params": settled(config.params, plugins.folder, precision)})


def use_attention(model: torch.nn.Module, form: str) -> None:
    """Have a GPT compute attention in one form, as [train.runtime] names it; other models are left alone."""
    if isinstance(model, GPT):
        model.attention = form


def parameter_count(model: torch.nn.Module, *, embeddings: bool = True) -> int:
    """Numbers that are trained; frozen ones do not count. embeddings: count those in embeddings, of which a tied output head
    is one."""
    left_out = set[int]()
    if not embeddings:
        tables = (module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag))
        left_out = {id(parameter) for table in tables for parameter in table.parameters()}
    counted = (each for each in model.parameters() if each.requires_grad and id(each) not in left_out)
    return sum(each.numel() for each in counted)


def flops_per_token(model: nn.Module, block_size: int) -> int:
    """Floating-point operations of forward and backward for one token of rows of block_size tokens, recomputing left out.

    6 N + 12 n_layer n_embd block_size for a GPT, 6 N for other models (PaLM, arXiv:2204.02311, appendix B; the second term
    is attention, its causal half not subtracted; a layer with a window has that in place of block_size). N: the numbers in
    matrices that tokens are multiplied with. So an embedding counts only where it is the output head too; norms and biases
    do not count. A model may have a method of this name that knows better.
    """
    if hasattr(model, "flops_per_token"):
        return int(model.flops_per_token(block_size))  # type: ignore[operator]
    matrices = {
        id(parameter): parameter.numel()  # a tied matrix once
        for module in model.modules()
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
        if parameter.dim() >= 2
    }
    if not isinstance(model, GPT):
        return 6 * sum(matrices.values())
    windows = [scheme_of(model.config, layer).window or block_size for layer in range(model.config.n_layer)]
    attention = 12 * model.config.n_embd * sum(min(window, block_size) for window in windows)
    return 6 * sum(matrices.values()) + attention
