"""One dial for pretraining: a depth decides width and heads, and with the vocabulary also tokens, batch and steps.

The rules, for a GPT of depth N (docs/how-to/pretrain.md has the sources, and where each was fitted):

    n_layer = N, n_embd = 64 N, n_head = n_embd / 64
    S = n_layer (2 C + 2 K D + a F) C + V C        numbers in matrices that tokens are multiplied with
    tokens = tokens_per_parameter S
    tokens per step = 2^19 (tokens / 1.32e9)^0.383, to the nearest power of two
    max_iters = tokens / tokens per step

Learning rates follow from the tokens per step, as they do without the dial (`batch_scale` of core/defaults.py).
Legend: C channels (n_embd), K heads of keys, D channels of a head, F channels of the feed-forward layer, a of its matrices,
V ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.config import Config, Model, Optim
from core.defaults import RATED, batch_scale, defaults_of

HEAD_WIDTH = 64
FITTED = (12, 26)  # depths between which the rules for tokens and batch were fitted and used (nanochat, 2026)
REFERENCE_TOKENS, REFERENCE_BATCH, EXPONENT = 1.32e9, 2**19, 0.383  # tokens of a run, tokens of a step, at depth 12
MICRO_BATCH = 1 << 14  # tokens at most that are computed at once; a step adds up several

# What a depth decides where it is not given.
DECIDED = (
    "train.model.n_layer", "train.model.n_embd", "train.model.n_head", "train.data.batch_size",
    "train.data.grad_accum_steps", "train.schedule.max_iters",
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """What the dial says about a key: its value, and how it comes about. given: the user's own value, which counts instead."""

    key: str
    value: int | float
    because: str
    given: Any = None


def with_shape(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with the shape that train.model.depth decides, where they do not give it themselves."""
    train = values.get("train")
    model = train.get("model") if isinstance(train, dict) else None
    depth = model.get("depth", 0) if isinstance(model, dict) else 0
    if type(depth) is not int or depth < 1:
        return dict(values)
    assert isinstance(train, dict) and isinstance(model, dict)
    return {**values, "train": {**train, "model": {**shape_of(depth, model.get("n_embd")), **model}}}


def shape_of(depth: int, width: Any = None) -> dict[str, int]:
    """n_layer, n_embd and n_head of a depth. width: another n_embd, if it is given; its type is not yet checked."""
    n_embd = width if type(width) is int and width > 0 else HEAD_WIDTH * depth
    return {
        "n_layer": depth,
        "n_embd": HEAD_WIDTH * depth,
        "n_head": depth if n_embd % HEAD_WIDTH else n_embd // HEAD_WIDTH,
    }


def rules_of(config: Config, given: set[str], vocab_size: int) -> list[Rule]:
    """What the dial of a resolved config says, in the order of its arithmetic. Empty without a depth.

    given: dotted keys that the user has set. train.runtime.max_minutes leaves the steps to the clock.
    """
    model, data, optim, schedule = config.train.model, config.train.data, config.train.optim, config.train.schedule
    depth, size = model.depth, data.block_size
    if not depth:
        return []
    assert size is not None

    def rule(key: str, value: int | float, because: str) -> Rule:
        _, section, name = key.split(".")
        own = getattr(getattr(config.train, section), name)
        return Rule(key, value, because, own if key in given and own != value else None)

    found = [
        rule("train.model.n_layer", depth, "depth"),
        rule("train.model.n_embd", HEAD_WIDTH * depth, f"{HEAD_WIDTH} x {depth}"),
        rule("train.model.n_head", shape_of(depth, model.n_embd)["n_head"], heads_text(model)),
    ]
    if config.train.runtime.max_minutes is not None:
        return found
    parameters = matrix_parameters(model, vocab_size)
    ratio = schedule.tokens_per_parameter
    tokens = ratio * parameters
    exact = REFERENCE_BATCH * (tokens / REFERENCE_TOKENS) ** EXPONENT
    wanted = max(2 ** round(math.log2(exact)), size)
    ruled_rows = max(1, min(wanted, MICRO_BATCH) // size)
    rows = data.batch_size if "train.data.batch_size" in given else ruled_rows
    ruled_times = max(1, round(wanted / (rows * size)))
    times = data.grad_accum_steps if "train.data.grad_accum_steps" in given else ruled_times
    steps = max(1, round(tokens / (rows * times * size)))
    law = f"2^19 x ({tokens:,.0f} tokens / {REFERENCE_TOKENS:,.0f})^{EXPONENT} = {exact:,.0f}, about {wanted:,} tokens in a step"
    return [
        *found,
        rule("train.data.batch_size", ruled_rows, f"{law}, in rows of {size:,}"),
        rule("train.data.grad_accum_steps", ruled_times, f"{wanted:,} / ({rows:,} x {size:,})"),
        rule(
            "train.schedule.max_iters",
            steps,
            f"{ratio:g} x {parameters:,} parameters in matrices = {tokens:,.0f} tokens, in steps of {rows * times * size:,}",
        ),
        rule("train.optim.learning_rate", *rate_of(optim, rows * times * size)),
    ]


def heads_text(model: Model) -> str:
    """Where the number of heads comes from."""
    if model.n_embd % HEAD_WIDTH:
        return f"depth; a width of {model.n_embd} is no multiple of {HEAD_WIDTH}"
    return f"{model.n_embd} / {HEAD_WIDTH} channels of a head"


def rate_of(optim: Optim, tokens: int) -> tuple[float, str]:
    """The peak rate for steps of so many tokens, as the defaults have it, and how it comes about."""
    rate, (least, most) = defaults_of(optim)["optim"]["learning_rate"], RATED
    if optim.name != "muon":
        return rate, f"the default of {optim.name}, for steps of any size"
    if tokens <= least:
        return rate, f"the default of muon, up to {least:,} tokens in a step"
    beyond = f", as for all steps of more than {most:,} tokens" if tokens > most else ""
    return float(f"{rate * batch_scale(tokens):.3g}"), f"{rate:g} x ({min(tokens, most):,} / {least:,})^(1/3){beyond}"


def matrix_parameters(model: Model, vocab_size: int) -> int:
    """S: numbers in matrices that tokens are multiplied with, of a resolved GPT."""
    assert model.n_kv_head and model.n_ff and model.head_width
    C, D = model.n_embd, model.head_width
    feed_forward = (3 if model.activation == "swiglu" else 2) * model.n_ff
    return model.n_layer * (2 * (model.n_head + model.n_kv_head) * D + feed_forward) * C + vocab_size * C


def is_fitted(depth: int) -> bool:
    """Whether the rules for tokens and batch were fitted at such a depth."""
    return FITTED[0] <= depth <= FITTED[1]
