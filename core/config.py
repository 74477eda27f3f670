"""Every setting of an experiment, typed: in goes a nested dict (config.toml), out comes a checked Config.

A field that is None follows something else (the preset, another field) until `resolve` fills it in;
what depends on the machine or the data stays "auto" until the run starts, and the run records the choice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, lt=2**63)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # as torch takes them
Fraction = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["auto", "float32", "bfloat16"]
Attention = Literal["auto", "explicit", "sdpa", "sdpa32"]


class Section(BaseModel):
    """A table of config.toml: unknown keys and silent conversions (true for 1, "3" for 3) are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class Prepare(Section):
    """From documents to a dataset folder."""

    variant: str = Field("basic", description="name of the dataset; `--variant NAME` sets it")
    dataset_dir: str = Field("", description="folder of the dataset; empty: datasets/<variant>")
    raw_dir: str = Field("datasets/raw", description="folder for downloads and other raw input")
    input: str = Field("", description="file or https URL to read instead of documents() of prepare.py")
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$", description="checksum of `input`, hexadecimal")
    format: Literal["text", "pairs"] = Field(
        "text", description="what `input` holds: running text, or one prompt and completion per line"
    )
    separator: str = Field(
        "=", min_length=1, description="ends the prompt in a line of `pairs`; it stays part of the prompt"
    )
    encoder: str = Field("char", description="char, words, bytes, bpe, gpt2, or one that a plugin registers")
    encoder_from: str = Field(
        "", description="dataset folder whose encoder to take instead, so that models of both agree"
    )
    vocab_size: Annotated[int, Field(ge=257)] = Field(1024, description="ids that `bpe` learns at most")
    size: Count = Field(1_000_000, description="characters to draw from documents()")
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="fraction of the characters or prompts held out"
    )
    split: Literal["auto", "hash", "tail", "shuffle"] = Field(
        "auto", description="how documents are held out; auto: hash for Example and Conversation, tail for text"
    )
    seed: Seed = Field(1337, description="seeds `rng` of documents() and the shuffle")
    params: dict[str, Any] = Field(default_factory=dict, description="keyword-only parameters of documents()")


class Model(Section):
    """The network. Keys from `norm` on are set by the preset unless given."""

    kind: str = Field("gpt", description="gpt, lstm, or one that a plugin registers")
    preset: Literal["modern", "gpt2", "llama"] = Field(
        "modern", description="a set of choices for model, optimizer and schedule"
    )
    init_from: str = Field(
        "", description="run whose best weights to start from: RUN, or EXPERIMENT/RUN; empty: fresh weights"
    )
    n_layer: Count = Field(4, description="blocks")
    n_head: Count = Field(4, description="attention heads per block; must divide n_embd")
    n_embd: Count = Field(128, description="width of the residual stream, channels")
    n_ff: Count | None = Field(
        None, description="width of the feed-forward layer; None: 4 n_embd, 8/3 n_embd for swiglu"
    )
    block_size: Count | None = Field(
        None, description="longest context, tokens; None: that of train.data, 64 if neither is given"
    )
    dropout: Fraction = Field(0.0, description="probability of dropping an activation while training")
    bias: bool | None = Field(None, description="biases in linear layers and layer norms")
    norm: Literal["rmsnorm", "rmsnorm_scale", "layernorm"] | None = Field(
        None, description="normalisation; rmsnorm has no parameters"
    )
    position: Literal["rope", "learned"] | None = Field(None, description="how a token knows its place")
    qk_norm: bool | None = Field(None, description="normalise queries and keys (arXiv:2010.04245)")
    activation: Literal["relu2", "gelu", "swiglu"] | None = Field(
        None, description="non-linearity of the feed-forward layer"
    )
    tie_weights: bool | None = Field(None, description="one matrix for token embedding and output head")
    zero_init: bool | None = Field(None, description="output projections of blocks start at zero")
    softcap: NotNegative | None = Field(None, description="logits become c tanh(z / c); 0: off")
    smear: bool | None = Field(None, description="add to each embedding a learnt share of the one before it")
    ngram: Annotated[int, Field(ge=0, le=8)] = Field(
        0, description="longest n-grams whose tables of logits are learnt beside the blocks; 2: bigrams; 0: none"
    )


class Data(Section):
    """Batches."""

    @property
    def tokens_per_step(self) -> int:
        """Input tokens of an optimizer step. Expects a block_size, as a resolved config has one."""
        assert self.block_size is not None
        return self.grad_accum_steps * self.batch_size * self.block_size

    batch_size: Count = Field(24, description="rows of a micro-batch")
    block_size: Count | None = Field(None, description="tokens of a row; None: the model's block_size")
    grad_accum_steps: Count = Field(1, description="micro-batches per optimizer step")
    mask_prompt: bool = Field(True, description="loss on completions only, where documents have them")
    layout: Literal["auto", "stream", "rows"] = Field(
        "auto",
        description="stream: random windows; rows: a row starts where a document starts; auto: rows where documents are Examples",
    )


class Optim(Section):
    """The optimizer. None: by the preset (see `PRESETS`)."""

    name: str | None = Field(
        None, description="muon (Muon for matrices, AdamW for the rest), adamw, or one that a plugin registers"
    )
    learning_rate: Positive | None = Field(
        None,
        description="peak rate; with muon that of the matrices; with muon the defaults of all rates grow with the batch",
    )
    embedding_lr: Positive | None = Field(None, description="peak rate of embeddings, muon only")
    head_lr: Positive | None = Field(None, description="peak rate of the output head and of vectors, muon only")
    ngram_lr: Positive | None = Field(None, description="peak rate of n-gram tables, muon only")
    weight_decay: NotNegative | None = Field(None, description="decoupled decay of matrices, per step times the rate")
    beta1: Fraction | None = Field(None, description="AdamW's decay of the mean gradient")
    beta2: Fraction | None = Field(None, description="AdamW's decay of the squared gradient")
    momentum: Fraction = Field(0.85, description="Nesterov momentum of Muon")
    grad_clip: NotNegative | None = Field(None, description="largest norm of the whole gradient; 0: off")


class Schedule(Section):
    """The learning rate by step."""

    max_iters: Count = Field(1000, description="optimizer steps; train.runtime.max_minutes takes their place")
    warmup_iters: CountOrZero | None = Field(None, description="optimizer steps of linear rise")
    lr_decay_iters: Count | None = Field(
        None,
        description="optimizer step at which min_lr is reached; None: max_iters; train.runtime.max_minutes takes its place",
    )
    min_lr: NotNegative | None = Field(
        None, description="final rate; None: 0.02 (linear) or 0.1 (cosine) of learning_rate"
    )
    decay: Literal["linear", "cosine", "constant"] | None = Field(None, description="shape of the fall")
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="linear: last part of lr_decay_iters, or of max_minutes, that falls"
    )


class Runtime(Section):
    """Where, how long and how often."""

    max_minutes: Positive | None = Field(
        None,
        description="wall time of training, minutes, evaluations, saves and all tries included. The run then ends by the "
        "clock and the rate falls by it, whatever max_iters and lr_decay_iters say; warm-up stays in steps. Rates then "
        "depend on the machine's speed: a resume gets the time that is left, but neither it nor a repetition is exact. "
        "None: max_iters steps",
    )
    eval_interval: Count = Field(250, description="optimizer steps between evaluations")
    eval_iters: CountOrZero = Field(0, description="validation batches, evenly spaced, at most; 0: the whole file")
    log_interval: Count = Field(10, description="optimizer steps between rows of metrics")
    checkpoint_interval: Count = Field(250, description="optimizer steps between checkpoints")
    seed: Seed = Field(1337, description="weights, dropout and data order")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Dtype = Field("auto", description="of matrix products; weights stay float32; auto: the fastest by timing")
    attention: Attention = Field(
        "auto",
        description="explicit: written out, sdpa: torch's, sdpa32: torch's in float32; auto: the fastest by timing",
    )
    compile: Literal["auto"] | bool = Field("auto", description="torch.compile; auto: on a GPU, where the run is long")
    threads: Literal["auto"] | Count = Field("auto", description="CPU threads; auto: the fastest number by timing")
    on_nan: Literal["stop", "rollback"] = Field(
        "stop",
        description="when a loss or gradient is not finite; rollback: to the last checkpoint, without that batch, at half the rates",
    )
    out_dir: str = Field("out", min_length=1, description="folder of runs")
    trackers: list[str] = Field(["tensorboard"], description="where metrics go besides metrics.csv")


class SampleRuntime(Section):
    """What sampling uses instead of [train.runtime]; None: the same."""

    seed: Seed | None = Field(None, description="of the random draws")
    device: str | None = Field(None, description="see train.runtime.device")
    dtype: Dtype | None = Field(
        None, description="see train.runtime.dtype; sampling from a cache is in float32 all the same"
    )
    compile: Literal["auto"] | bool | None = Field(None, description="see train.runtime.compile")
    attention: Attention | None = Field(None, description="see train.runtime.attention")
    threads: Literal["auto"] | Count | None = Field(None, description="see train.runtime.threads")


class Sampling(Section):
    """What to generate."""

    start: str = Field(
        "", description="text to continue, or FILE:path; empty: held-out prompts, or a line break for text"
    )
    num_samples: Count = Field(5, description="texts to draw")
    max_new_tokens: Count = Field(500, description="tokens per text at most")
    temperature: NotNegative | None = Field(None, description="0: greedy; None: 0 for Examples, else 0.8")
    top_k: CountOrZero = Field(0, description="draw from the k likeliest tokens; 0: all")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="draw from the likeliest tokens of this total probability"
    )
    stop: str = Field("", description="text that ends a sample; empty: the dataset's own end, if it has one")


class Evaluate(Section):
    """Exact match of greedy answers, where documents are Examples; and what is known of the data."""

    max_prompts: CountOrZero = Field(
        500, description="prompts of each side for exact match at most, evenly spaced; 0: all"
    )
    training_prompts: CountOrZero = Field(100, description="the same at each evaluation while training; 0: all")
    optimal_loss: NotNegative | None = Field(
        None,
        description="lowest val loss that any model can reach, nats per target, where it is known; `check` shows it",
    )


class Train(Section):
    """Everything `train` reads."""

    model: Model = Field(default_factory=Model)
    data: Data = Field(default_factory=Data)
    optim: Optim = Field(default_factory=Optim)
    schedule: Schedule = Field(default_factory=Schedule)
    runtime: Runtime = Field(default_factory=Runtime)


class Sample(Section):
    """Everything `sample` reads."""

    runtime: SampleRuntime = Field(default_factory=SampleRuntime)
    sample: Sampling = Field(default_factory=Sampling)


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


class Config(Section):
    """A whole config.toml."""

    prepare: Prepare = Field(default_factory=Prepare)
    train: Train = Field(default_factory=Train)
    sample: Sample = Field(default_factory=Sample)
    evaluate: Evaluate = Field(default_factory=Evaluate)


class Contradiction(ValueError):
    """Settings exclude each other. keys: their dotted names, the one to change first."""

    def __init__(self, keys: Sequence[str], message: str, remedy: str) -> None:
        super().__init__(f"{keys[0]}: {message} {remedy}")
        self.keys, self.message, self.remedy = keys, message, remedy


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


def refuse_paths(config: Config) -> None:
    """Raise Contradiction for a path that is none, or that leaves the experiment's folder where only runs are written."""
    prepare = config.prepare
    paths = {f"prepare.{key}": getattr(prepare, key) for key in ("dataset_dir", "raw_dir", "input", "encoder_from")}
    paths["train.runtime.out_dir"] = config.train.runtime.out_dir
    for key, path in paths.items():
        if "\0" in path:
            raise Contradiction(
                (key,), f"{key} has a zero byte in it, which no path can have.", "Name a file or folder."
            )
    variant = prepare.variant
    if variant in ("", "..") or PurePath(variant).name != variant or "\0" in variant:
        raise Contradiction(
            ("prepare.variant",), f'"{prepare.variant}" is no name of a dataset.', "Use letters, digits, - and _."
        )
    if leaves_folder(config.train.runtime.out_dir):
        raise Contradiction(
            ("train.runtime.out_dir",), f'out_dir = "{config.train.runtime.out_dir}" lies outside the experiment\'s folder.',
            "Choose a folder inside it, or give the whole path if you mean another place.",
        )  # fmt: skip


def leaves_folder(path: str) -> bool:
    """Whether a relative path leads out of the folder that it starts in."""
    return PurePath(os.path.normpath(path)).parts[:1] == ("..",)


def refuse_contradictions(config: Config) -> None:
    """Raise Contradiction for the first pair of settings that cannot both hold. Expects a filled config."""
    model, data, schedule = config.train.model, config.train.data, config.train.schedule
    by_steps = config.train.runtime.max_minutes is None
    assert (
        model.block_size
        and data.block_size
        and schedule.lr_decay_iters is not None
        and schedule.warmup_iters is not None
    )
    if model.ngram == 1:
        raise Contradiction(
            ("train.model.ngram",), "there is no table of 1-grams.", "2 is a table of pairs of ids; 0 is none.",
        )  # fmt: skip
    if model.kind == "gpt" and model.n_embd % model.n_head:
        raise Contradiction(
            ("train.model.n_embd", "train.model.n_head"), f"n_embd = {model.n_embd} is not divisible by n_head = {model.n_head}.",
            f"Take n_embd = {-(-model.n_embd // model.n_head) * model.n_head}, or an n_head that divides it.",
        )  # fmt: skip
    if model.kind == "gpt" and model.position == "rope" and (model.n_embd // model.n_head) % 2:
        raise Contradiction(
            ("train.model.n_embd", "train.model.n_head"), f"rope turns pairs of channels, but a head has {model.n_embd // model.n_head}.",
            "Choose n_embd and n_head so that n_embd / n_head is even, or position = \"learned\".",
        )  # fmt: skip
    if data.block_size > model.block_size:
        raise Contradiction(
            ("train.data.block_size", "train.model.block_size"), f"rows of {data.block_size} tokens do not fit the model's block_size = {model.block_size}.",
            "Lower train.data.block_size, or raise train.model.block_size.",
        )  # fmt: skip
    if by_steps and schedule.warmup_iters and schedule.warmup_iters >= schedule.max_iters:
        raise Contradiction(
            ("train.schedule.warmup_iters", "train.schedule.max_iters"), f"warmup_iters = {schedule.warmup_iters} leaves nothing of max_iters = {schedule.max_iters}.",
            f"A tenth of max_iters is usual: {schedule.max_iters // 10}.",
        )  # fmt: skip
    if by_steps and schedule.warmup_iters and schedule.lr_decay_iters <= schedule.warmup_iters:
        raise Contradiction(
            ("train.schedule.lr_decay_iters", "train.schedule.warmup_iters"), f"lr_decay_iters = {schedule.lr_decay_iters} ends before warmup_iters = {schedule.warmup_iters}.",
            "Set it to max_iters, or leave it out.",
        )  # fmt: skip
    if schedule.min_lr is not None and schedule.min_lr > (config.train.optim.learning_rate or 0):
        raise Contradiction(
            ("train.schedule.min_lr", "train.optim.learning_rate"), f"min_lr = {schedule.min_lr:g} is above learning_rate = {config.train.optim.learning_rate:g}.",
            "Lower it, or leave it out.",
        )  # fmt: skip
