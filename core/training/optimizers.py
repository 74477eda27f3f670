"""Build the optimizer that [train.optim] names. Each of its groups has a `peak_lr`.

Before each step the trainer sets group["lr"] = group["peak_lr"] * fraction(step, ...) of core.training.schedules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from core import config
from core.data.params import keywords
from core.models.block import Attention
from core.models.ngrams import NGrams
from core.plugins.manager import Plugins
from core.plugins.manager import plugins as everyone
from core.training.muon import Muon

OPTIM_PARAMS = "train.optim.params"
# Parameters with several matrices stacked in their rows. Muon orthogonalises each of them separately.
FUSED = ("c_attn.weight", "in_proj_weight")  # queries, keys and values
GATES: tuple[tuple[type[nn.Module], int], ...] = ((nn.LSTM, 4), (nn.LSTMCell, 4), (nn.GRU, 3), (nn.GRUCell, 3))
HEADS = ("lm_head.weight", "head.weight")


def build_optimizer(model: nn.Module, optim: config.Optim, plugins: Plugins | None = None) -> torch.optim.Optimizer:
    """Build the optimizer that the settings name and give its groups a `peak_lr`.

    The builder's keyword-only parameters are the keys of [train.optim.params]. Raises UserError for an unknown name or key.
    """
    build = (plugins or everyone()).get("optimizers", str(optim.name), "train.optim.name")
    optimizer: torch.optim.Optimizer = build(model, optim, **keywords(build, optim.params, OPTIM_PARAMS))
    for entry in optimizer.param_groups:
        entry.setdefault("peak_lr", entry["lr"])  # a plugin's optimizer need not know about schedules
    return optimizer


def adamw(model: nn.Module, optim: config.Optim) -> torch.optim.Optimizer:
    """AdamW as in nanoGPT: weight decay for parameters of two or more dimensions, none for the others."""
    assert optim.beta1 is not None and optim.beta2 is not None
    if optim.state_dtype != "float32":
        adam = {"muon": False, "betas": [optim.beta1, optim.beta2], "eps": 1e-8}
        groups = [entry | adam for entry in decayed_groups(model, optim)]
        return Muon(groups, state_dtype_of(optim))  # which has AdamW for what is no matrix, and here for all
    # Fused: one pass over memory instead of ten, 3 times faster on a CPU too (tests/benchmarks/optimizers.py).
    return torch.optim.AdamW(decayed_groups(model, optim), betas=(optim.beta1, optim.beta2), fused=True)


def adam(model: nn.Module, optim: config.Optim) -> torch.optim.Optimizer:
    """Adam (arXiv:1412.6980) as in torch: the weight decay of matrices is a part of their gradient, an L2 penalty."""
    assert optim.beta1 is not None and optim.beta2 is not None
    return torch.optim.Adam(decayed_groups(model, optim), betas=(optim.beta1, optim.beta2), fused=True)


def sgd(model: nn.Module, optim: config.Optim) -> torch.optim.Optimizer:
    """SGD with momentum as in torch: the momentum of plain gradients, with the weight decay of matrices a part of them."""
    assert optim.momentum is not None
    divided = any(hasattr(each, "to_local") for each in model.parameters())  # torch 2.13 has no fused SGD for DTensors
    return torch.optim.SGD(decayed_groups(model, optim), momentum=optim.momentum, fused=not divided)


def decayed_groups(model: nn.Module, optim: config.Optim) -> list[dict[str, Any]]:
    """Parameters of two or more dimensions, with weight decay, and the others, without."""
    assert optim.learning_rate is not None and optim.weight_decay is not None
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name: p for name, p in params.items() if p.dim() >= 2}
    vectors = {name: p for name, p in params.items() if p.dim() < 2}
    groups = [
        group("matrices", optim.learning_rate, matrices, weight_decay=optim.weight_decay),
        group("vectors", optim.learning_rate, vectors, weight_decay=0.0),
    ]
    return [g for g in groups if g["params"]]


def muon(model: nn.Module, optim: config.Optim) -> torch.optim.Optimizer:
    """Muon for the matrices inside the network, Adam for embeddings, the output head and everything else."""
    assert optim.learning_rate is not None and optim.weight_decay is not None
    assert optim.embedding_lr is not None and optim.head_lr is not None and optim.ngram_lr is not None
    assert optim.beta1 is not None and optim.beta2 is not None and optim.momentum is not None
    by_role: dict[str, dict[str, nn.Parameter]] = {"matrix": {}, "ngram": {}, "embedding": {}, "other": {}}
    for name, role in roles_of(model).items():
        by_role[role][name] = model.get_parameter(name)
    adam = {"muon": False, "betas": [optim.beta1, optim.beta2], "eps": 1e-10}
    groups = [
        group(
            "matrices", optim.learning_rate, by_role["matrix"], muon=True, momentum=optim.momentum,
            weight_decay=optim.weight_decay, pieces=[pieces_of(model, name) for name in by_role["matrix"]],
        ),
        group("ngrams", optim.ngram_lr, by_role["ngram"], **adam),
        group("embeddings", optim.embedding_lr, by_role["embedding"], **adam),
        group("others", optim.head_lr, by_role["other"], **adam),
    ]  # fmt: skip
    return Muon([g for g in groups if g["params"]], state_dtype_of(optim))


def state_dtype_of(optim: config.Optim) -> torch.dtype | None:
    """The precision of momentum and mean gradients; None: the parameter's."""
    return torch.bfloat16 if optim.state_dtype == "bfloat16" else None


def group(name: str, peak_lr: float, params: dict[str, nn.Parameter], **settings: Any) -> dict[str, Any]:
    """A parameter group as torch expects it."""
    return {"params": list(params.values()), "name": name, "lr": peak_lr, "peak_lr": peak_lr, **settings}


def roles_of(model: nn.Module) -> dict[str, str]:
    """Name of each trainable parameter -> its role. A shared parameter is listed once, under its first name.

    Roles: "matrix" (Muon), and for Adam "embedding", "ngram" (a table of logits) or "other". An embedding is the weight
    of a torch Embedding. The head is called lm_head or head. If an embedding is also the head, all embeddings, which are
    added to it, train at the head's rate: at their own, 75 times larger by default, the logits would diverge.
    """
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    tables = {id(p) for m in model.modules() if isinstance(m, NGrams) for p in m.parameters()}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    tied = any(len(names[key]) > 1 for key in embeddings)
    roles = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if id(p) in tables:
            roles[name] = "ngram"
        elif id(p) in embeddings:
            roles[name] = "other" if tied else "embedding"
        elif p.dim() == 2 and min(p.shape) > 1 and not name.endswith(HEADS):
            roles[name] = "matrix"
        else:
            roles[name] = "other"
    return roles


def pieces_of(model: nn.Module, name: str) -> int | list[int]:
    """The matrices stacked in the rows of a 2-D parameter: their number, or their heights if these differ.

    3 for fused attention; the heights of queries, keys and values for grouped queries; the gates of an LSTM or GRU.
    """
    path = name.split(".")
    owner, outer = model.get_submodule(".".join(path[:-1])), model.get_submodule(".".join(path[:-2]))
    if isinstance(outer, Attention) and name.endswith(FUSED) and outer.scheme.group > 1:
        return outer.scheme.rows
    for kind, gates in GATES:
        if isinstance(owner, kind):
            return gates
    rows, columns = model.get_parameter(name).shape
    return 3 if name.endswith(FUSED) and rows == 3 * columns else 1
