"""What follows from other settings: a Config with fields that are None goes in, and comes out filled by `resolve`."""

from __future__ import annotations

from typing import Any

from core.config import Config, Data, Model, SampleRuntime, Section
from core.contradictions import refuse_contradictions, refuse_paths

# What a preset means. gpt2's numbers are nanoGPT's (its CPU setting); modern's are argued in docs/LOG.md.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "modern": {
        "model": {"bias": False, "norm": "rmsnorm", "position": "rope", "qk_norm": True, "activation": "relu2",
                  "tie_weights": False, "zero_init": True, "softcap": 15.0, "smear": True},
        "optim": {"name": "muon"},
    },
    "gpt2": {
        "model": {"bias": False, "norm": "layernorm", "position": "learned", "qk_norm": False, "activation": "gelu",
                  "tie_weights": True, "zero_init": False, "softcap": 0.0, "smear": False},
        "optim": {"name": "adamw"},
    },
    "llama": {
        "model": {"bias": False, "norm": "rmsnorm_scale", "position": "rope", "qk_norm": False, "activation": "swiglu",
                  "tie_weights": False, "zero_init": False, "softcap": 0.0, "smear": False},
        "optim": {"name": "adamw"},
    },
}  # fmt: skip
OPTIMIZERS: dict[str, dict[str, dict[str, Any]]] = {
    "muon": {
        "optim": {"learning_rate": 0.02, "embedding_lr": 0.3, "head_lr": 0.004, "ngram_lr": 0.05, "weight_decay": 0.0,
                  "beta1": 0.8, "beta2": 0.99, "grad_clip": 0.0},
        "schedule": {"warmup_iters": 0, "decay": "linear"},
    },
    "adamw": {
        "optim": {"learning_rate": 1e-3, "embedding_lr": 1e-3, "head_lr": 1e-3, "ngram_lr": 1e-3, "weight_decay": 0.1,
                  "beta1": 0.9, "beta2": 0.99, "grad_clip": 1.0},
        "schedule": {"decay": "cosine"},  # warm-up: 100 steps, or a tenth of max_iters
    },
}  # fmt: skip


def fill(section: Section, defaults: dict[str, Any]) -> None:
    """Set the fields that are still None."""
    for key, value in defaults.items():
        if getattr(section, key) is None:
            setattr(section, key, value)


def resolve(config: Config) -> Config:
    """Fill in, in place, every field that follows from others; a second call changes nothing.

    Raises Contradiction where settings exclude each other.
    """
    model, data, optim, schedule = config.train.model, config.train.data, config.train.optim, config.train.schedule
    config.prepare.dataset_dir = config.prepare.dataset_dir or f"datasets/{config.prepare.variant}"
    fill(model, PRESETS[model.preset]["model"])
    fill(model, {"block_size": data.block_size or 64, "n_ff": feed_forward_width(model)})
    fill(data, {"block_size": model.block_size})
    fill(optim, PRESETS[model.preset]["optim"])
    defaults = OPTIMIZERS["muon" if optim.name == "muon" else "adamw"]
    scale = batch_scale(data) if optim.name == "muon" else 1.0
    rates = {key: value for key, value in defaults["optim"].items() if key == "learning_rate" or key.endswith("_lr")}
    fill(optim, {key: float(f"{value * scale:.3g}") for key, value in rates.items()})
    fill(optim, defaults["optim"])
    fill(schedule, defaults["schedule"])
    fill(schedule, {"lr_decay_iters": schedule.max_iters, "warmup_iters": min(100, schedule.max_iters // 10)})
    fill(schedule, {"min_lr": (0.02 if schedule.decay == "linear" else 0.1) * (optim.learning_rate or 0)})
    fill(config.sample.runtime, config.train.runtime.model_dump(include=set(SampleRuntime.model_fields)))
    refuse_paths(config)
    refuse_contradictions(config)
    return config


def batch_scale(data: Data) -> float:
    """What rates are multiplied by: larger steps are surer of their direction, and may go farther.

    The cube root of the tokens of a step, from 1,536 to 16,384, for which it was fitted, at widths of 64 to 512: these
    need no scaling of their own (docs/LOG.md), as Muon's steps are as long in matrices of any size.
    """
    return float(max(1.0, min(data.tokens_per_step, 16384) / 1536) ** (1 / 3))


def feed_forward_width(model: Model) -> int:
    """4 n_embd; for swiglu, which has three matrices, 8/3 n_embd up to a multiple of 32 (arXiv:2002.05202)."""
    return -(-8 * model.n_embd // 96) * 32 if model.activation == "swiglu" else 4 * model.n_embd
