"""Estimate what an experiment costs on a GPU that is not there, from its settings alone: no data is made, nothing is timed.

    seconds = FLOPs of all steps / (share x published peak x number of GPUs)

It is for the steps only: evaluations, saves and making the data come on top.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from core.chat.conversation import SPECIAL
from core.config import Config
from core.data.dataset import load_dataset
from core.dial import rules_of
from core.encoders import gpt2
from core.encoders.bytes import BytesEncoder
from core.errors import UserError
from core.lab.opened import Opened, dialled
from core.lab.stages import at_stage, named
from core.models.build import build_model, flops_per_token, parameter_count
from core.roles import flat
from core.training.gpus import gpus_named
from core.training.optimizers import roles_of

# The share of the published peak that the preset modern reached on an H100 at the size of GPT-2 (docs/LOG.md, 2026-11-27: 74.1
# ms for 32 x 1,024 tokens). Larger matrices may reach more: nanochat reports .46 for its depth 18 on eight H100s.
SHARE = 0.38
FLOAT = 4  # bytes: weights, gradients and the optimizer's state are float32
STATE = {"muon": 2, "adamw": 2, "adam": 2, "sgd": 1}  # numbers that an optimizer keeps for each parameter at most


@dataclass(frozen=True)
class Cost:
    """What a run costs. flops: of all steps. state_bytes: of weights, gradients and the optimizer's state; None: not known."""

    parameters: int
    vocab_size: int
    tokens_per_step: int
    micro_batch: int  # tokens
    steps: int
    tokens: int
    flops: float
    seconds: float
    state_bytes: int | None
    dial: list[dict[str, Any]]


def estimate(opened: Opened, gpu: str, share: float = SHARE, stage: str = "") -> dict[str, Any]:
    """The cost of an experiment, of each of its stages or of one, on GPUs such as h100 or 8xh100, as JSON values.

    share: of the published peak that training is assumed to reach, 0 to 1. A stage that is trained by reward is left out: most of
    its time goes into writing answers, whose length nobody knows before. "" names the only part of an experiment without
    stages. Raises UserError for an unknown GPU or an impossible share, and where the size of the vocabulary depends on data that
    is not there.
    """
    if not 0 < share <= 1:
        raise UserError(
            f"a share of {share:g} is impossible", place="share", remedy="Give a number above 0, up to 1, such as 0.38."
        )
    found, count = gpus_named(gpu)
    if stage:
        named(opened, stage)
    parts = {each.name: at_stage(opened, each) for each in opened.stages if stage in ("", each.name)} or {"": opened}
    vocab_size = ids_of(at_stage(opened, opened.stages[0]) if opened.stages else opened)
    speed = share * count * found.peak
    left_out = [name for name, part in parts.items() if part.config.train.objective.kind == "reward"]
    costs = {name: cost_of(part, vocab_size, speed) for name, part in parts.items() if name not in left_out}
    return {
        "experiment": opened.experiment.name,
        "gpu": found.name,
        "count": count,
        "peak_flops": found.peak,
        "memory_bytes": found.memory,
        "share": share,
        "left_out": left_out,
        "stages": {name: dataclasses.asdict(cost) for name, cost in costs.items()},
        "tokens": sum(cost.tokens for cost in costs.values()),
        "flops": sum(cost.flops for cost in costs.values()),
        "seconds": sum(cost.seconds for cost in costs.values()),
    }


def cost_of(opened: Opened, vocab_size: int, speed: float) -> Cost:
    """The cost of one run. speed: FLOP/s."""
    given = set(flat(opened.settings.values))
    rules = rules_of(opened.config, given, vocab_size)
    train = dialled(opened, vocab_size).config.train
    model = weightless(opened, vocab_size)
    assert train.data.block_size is not None
    each, minutes = flops_per_token(model, train.data.block_size), train.runtime.max_minutes
    steps = train.schedule.max_iters
    if minutes is not None:
        steps = max(1, int(60 * minutes * speed / (each * train.data.tokens_per_step)))
    tokens = steps * train.data.tokens_per_step
    return Cost(
        parameters=parameter_count(model),
        vocab_size=vocab_size,
        tokens_per_step=train.data.tokens_per_step,
        micro_batch=train.data.batch_size * train.data.block_size,
        steps=steps,
        tokens=tokens,
        flops=float(tokens * each),
        seconds=tokens * each / speed,
        state_bytes=state_bytes(model, str(train.optim.name)),
        dial=[dataclasses.asdict(rule) for rule in rules],
    )


def weightless(opened: Opened, vocab_size: int) -> nn.Module:
    """The model without memory for its weights. A model of the experiment's own gets weights: it may compute with them."""
    own = hasattr(opened.code, "build_model")
    with torch.device("cpu" if own else "meta"):
        return build_model(opened.config.train.model, vocab_size, opened.plugins)


def state_bytes(model: nn.Module, optimizer: str) -> int | None:
    """Bytes of weights, gradients and the optimizer's state. None for an optimizer of a plugin. Muon keeps one number for
    each of its matrices, and two for all else. Frozen weights are only kept."""
    if optimizer not in STATE:
        return None
    kept = 0
    for name, role in roles_of(model).items():
        one = optimizer == "muon" and role == "matrix"
        kept += (1 if one else STATE[optimizer]) * model.get_parameter(name).numel()
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    return FLOAT * (2 * parameter_count(model) + kept) + frozen


def ids_of(opened: Opened) -> int:
    """The size of the vocabulary: what the settings say of it, at most; else that of the dataset that is there.

    Raises UserError where it is not known.
    """
    config: Config = opened.config
    special = len(SPECIAL) if config.prepare.special_tokens == "chat" else 0
    fixed = {
        "bpe": config.prepare.vocab_size,
        "gpt2": gpt2.VOCAB_SIZE + special,
        "bytes": BytesEncoder.vocab_size + special,
    }
    if not config.prepare.encoder_from and config.prepare.encoder in fixed:
        return fixed[config.prepare.encoder]
    folder = opened.experiment.path(config.prepare.dataset_dir)
    if (folder / "dataset.json").is_file():
        return load_dataset(folder, opened.plugins).encoder.vocab_size
    raise UserError(
        f"how many ids the encoder {config.prepare.encoder} has depends on the data, which is not there",
        place=str(folder),
        remedy=f"Make it first: {opened.experiment.command.format('prepare')}",
    )
