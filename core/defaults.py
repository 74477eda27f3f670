"""Defaults that depend on other settings: presets, rates, widths. `resolve` fills them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.config import AnySection, Config, Data, Model, ObjectiveConfig, Optim, SampleRuntime, Schedule, replaced
from core.contradictions import refuse_contradictions, refuse_paths

# The presets. gpt2's numbers are nanoGPT's (its CPU setting); docs/LOG.md explains modern's.
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
    # Their weight decay is part of the gradient, where a tenth of the weights would outweigh it: none by default, as in torch.
    "adam": {
        "optim": {"learning_rate": 1e-3, "embedding_lr": 1e-3, "head_lr": 1e-3, "ngram_lr": 1e-3, "weight_decay": 0.0,
                  "beta1": 0.9, "beta2": 0.999, "grad_clip": 1.0},
        "schedule": {"decay": "cosine"},
    },
    "sgd": {
        "optim": {"learning_rate": 0.1, "embedding_lr": 0.1, "head_lr": 0.1, "ngram_lr": 0.1, "weight_decay": 0.0,
                  "beta1": 0.9, "beta2": 0.999, "grad_clip": 1.0},
        "schedule": {"decay": "cosine"},
    },
}  # fmt: skip

# AdamW for a pretrained model, with adapters (True) and as a whole (False). 2e-4: QLoRA's for models up to 13B (arXiv:2305.14314); LoRA's
# best rate is about ten times that of full finetuning (arXiv:2405.09673). No decay, which would draw the weights away from what
# pretraining found. Not Muon, whose rates are fitted for matrices that begin at random.
PRETRAINED_KIND, PRETRAINED_OPTIMIZER = "hf", "adamw"
PRETRAINED: dict[bool, dict[str, Any]] = {
    True: {"learning_rate": 2e-4, "weight_decay": 0.0, "beta2": 0.999},
    False: {"learning_rate": 2e-5, "weight_decay": 0.0, "beta2": 0.999},
}

REWARD_SCALE = 0.05  # of the rates, for a model that is trained already and a gradient that is noisy (nanochat, 2026)
RATED = (1536, 16384)  # tokens of a step between which batch_scale was fitted (docs/LOG.md)


def filled(section: AnySection, defaults: Mapping[str, Any]) -> AnySection:
    """A copy with defaults for the fields that are None."""
    missing = {key: value for key, value in defaults.items() if getattr(section, key) is None}
    return section.model_copy(update=missing)


def resolve(config: Config) -> Config:
    """A copy with all defaults filled in. Resolving twice changes nothing.

    Raises Contradiction if settings exclude each other.
    """
    prepare, train = config.prepare, config.train
    model = resolved_model(train.model, train.data)
    data = filled(train.data, {"block_size": model.block_size})
    optim = resolved_optim(train.optim, model, data, train.objective)
    schedule = resolved_schedule(train.schedule, optim, by_steps=train.runtime.max_minutes is None)
    runtime = filled(config.sample.runtime, train.runtime.model_dump(include=set(SampleRuntime.model_fields)))
    result = replaced(
        config,
        {
            "prepare.dataset_dir": prepare.dataset_dir or f"datasets/{prepare.variant}",
            "train.model": model,
            "train.data": data,
            "train.optim": optim,
            "train.schedule": schedule,
            "sample.runtime": runtime,
        },
    )
    refuse_paths(result)
    refuse_contradictions(result)
    return result


def resolved_model(model: Model, data: Data) -> Model:
    """Fill in what the preset and train.data.block_size decide."""
    model = filled(model, PRESETS[model.preset]["model"])
    return filled(
        model,
        {
            "block_size": data.block_size or 64,
            "n_kv_head": model.n_head,
            "n_ff": feed_forward_width(model),
            "norm_eps": 1e-5 if model.norm == "layernorm" else 1e-6,
        },
    )


def resolved_optim(optim: Optim, model: Model, data: Data, objective: ObjectiveConfig) -> Optim:
    """Fill in what the preset, the optimizer and the batch size decide."""
    pretrained = model.kind == PRETRAINED_KIND
    optim = filled(optim, {"name": PRETRAINED_OPTIMIZER} if pretrained else PRESETS[model.preset]["optim"])
    defaults = defaults_of(optim)["optim"]
    if pretrained and optim.name == PRETRAINED_OPTIMIZER:
        defaults = defaults | PRETRAINED[bool(model.params.get("lora", True))]
    scale = batch_scale(data.tokens_per_step) if optim.name == "muon" else 1.0
    scale *= REWARD_SCALE if objective.kind == "reward" else 1.0
    rates = {key: value for key, value in defaults.items() if key == "learning_rate" or key.endswith("_lr")}
    optim = filled(optim, {"momentum": 0.9 if optim.name == "sgd" else 0.85})
    return filled(optim, defaults | {key: float(f"{value * scale:.3g}") for key, value in rates.items()})


def resolved_schedule(schedule: Schedule, optim: Optim, *, by_steps: bool) -> Schedule:
    """Fill in what the optimizer and the number of steps decide. by_steps: the run has no time budget."""
    schedule = filled(schedule, defaults_of(optim)["schedule"])
    lowest = {"linear": 0.02, "step": 0.0, "plateau": 0.0}.get(str(schedule.decay), 0.1)
    schedule = filled(
        schedule,
        {
            "lr_decay_iters": schedule.max_iters,
            "warmup_iters": min(100, schedule.max_iters // 10),
            "min_lr": lowest * (optim.learning_rate or 0),
            "decay_fraction": 0.1 if schedule.decay == "wsd" else 0.6,
        },
    )
    if schedule.decay != "step" or not by_steps:
        return schedule
    return filled(schedule, {"interval": max(1, (schedule.lr_decay_iters or 0) // 3)})


def defaults_of(optim: Optim) -> dict[str, dict[str, Any]]:
    """The defaults for an optimizer; a plugin's has those of adamw."""
    return OPTIMIZERS.get(str(optim.name), OPTIMIZERS["adamw"])


def batch_scale(tokens: int) -> float:
    """Factor for Muon's default rates: larger batches give a more reliable direction and allow longer steps.

    The cube root of the tokens per step, where that was fitted; constant below and above. Widths of 64 to 512 need no scaling
    (docs/LOG.md), because Muon's steps are equally long in matrices of any size.
    """
    least, most = RATED
    return float(max(1.0, min(tokens, most) / least) ** (1 / 3))


def feed_forward_width(model: Model) -> int:
    """4 n_embd. For swiglu, which has three matrices, 8/3 n_embd rounded up to a multiple of 32 (arXiv:2002.05202)."""
    return -(-8 * model.n_embd // 96) * 32 if model.activation == "swiglu" else 4 * model.n_embd
