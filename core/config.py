"""Every setting of an experiment, typed. A Config is frozen; `replaced` returns a new one.

A field that is None follows something else (the preset, another field) until `core.defaults.resolve` fills it in.
What depends on the machine or the data stays "auto" until the run starts, and the run records the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict

Count = Annotated[int, pydantic.Field(ge=1, lt=2**63)]
CountOrZero = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
Positive = Annotated[float, pydantic.Field(gt=0)]
NotNegative = Annotated[float, pydantic.Field(ge=0)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**63)]  # as torch takes them
Fraction = Annotated[float, pydantic.Field(ge=0, lt=1)]
Dtype = Literal["auto", "float32", "bfloat16"]
Attention = Literal["auto", "explicit", "sdpa", "sdpa32"]


# What a key is for. Whoever treats keys differently asks for their role (core.roles) and keeps no list of names.
Role = Literal["model", "data", "learning", "steering", "seed", "machine", "place", "shown"]
ROLES: dict[Role, str] = {
    "model": "shapes the model: a checkpoint fits only a model with the same value",
    "data": "shapes the dataset: part of its fingerprint",
    "learning": "decides what is learnt: fixed for the whole run",
    "steering": "decides how long a run trains and what is measured: a resume may change it",
    "seed": "seeds a run: runs that differ in it alone are repetitions of one setting",
    "machine": "decides how the machine carries out a run, not what is learnt",
    "place": "a path or a name of a place",
    "shown": "used after training, or only shown",
}


def Field(default: Any = ..., *, role: Role, default_factory: Any = None, **options: Any) -> Any:  # noqa: N802 - as pydantic's
    """pydantic's Field, with the role of the key."""
    given = {"default": default} if default_factory is None else {"default_factory": default_factory}
    return pydantic.Field(**given, json_schema_extra={"role": role}, **options)


class Section(BaseModel):
    """A table of config.toml: unknown keys and silent conversions (true for 1, "3" for 3) are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, frozen=True)


AnySection = TypeVar("AnySection", bound=Section)


def replaced(section: AnySection, changes: Mapping[str, Any]) -> AnySection:
    """A copy with other values for some dotted keys. The values are not checked again."""
    inner: dict[str, dict[str, Any]] = {}
    update: dict[str, Any] = {}
    for key, value in changes.items():
        head, dot, rest = key.partition(".")
        if dot:
            inner.setdefault(head, {})[rest] = value
        else:
            update[head] = value
    for head, values in inner.items():
        update[head] = replaced(getattr(section, head), values)
    return section.model_copy(update=update)


class Prepare(Section):
    """From documents to a dataset folder."""

    variant: str = Field("basic", role="place", description="name of the dataset; choosing a variant sets it")
    dataset_dir: str = Field("", role="place", description="folder of the dataset; empty: datasets/<variant>")
    raw_dir: str = Field("datasets/raw", role="place", description="folder for downloads and other raw input")
    input: str = Field("", role="place", description="file or https URL to read instead of documents() of prepare.py")
    sha256: str = Field("", role="place", pattern="^([0-9a-f]{64})?$", description="checksum of `input`, hexadecimal")
    format: Literal["text", "pairs"] = Field(
        "text", role="data", description="what `input` holds: running text, or one prompt and completion per line"
    )
    separator: str = Field(
        "=", role="data", min_length=1, description="ends the prompt in a line of `pairs`; it stays part of the prompt"
    )
    encoder: str = Field(
        "char", role="data", description="char, words, bytes, bpe, gpt2, or one that a plugin registers"
    )
    encoder_from: str = Field(
        "", role="place", description="dataset folder whose encoder to take instead, so that models of both agree"
    )
    vocab_size: Annotated[int, pydantic.Field(ge=257)] = Field(
        1024, role="data", description="ids that `bpe` learns at most"
    )
    size: Count = Field(1_000_000, role="data", description="characters to draw from documents()")
    val_fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = Field(
        0.1, role="data", description="fraction of the characters or prompts held out"
    )
    split: Literal["auto", "hash", "tail", "shuffle"] = Field(
        "auto",
        role="data",
        description="how documents are held out; auto: hash for Example and Conversation, tail for text",
    )
    seed: Seed = Field(1337, role="data", description="seeds `rng` of documents() and the shuffle")
    params: dict[str, Any] = Field(
        role="data", default_factory=dict, description="keyword-only parameters of documents()"
    )


class Model(Section):
    """The network. Keys from `norm` on are set by the preset unless given."""

    kind: str = Field("gpt", role="model", description="gpt, lstm, or one that a plugin registers")
    preset: Literal["modern", "gpt2", "llama"] = Field(
        "modern", role="model", description="a set of choices for model, optimizer and schedule"
    )
    init_from: str = Field(
        "",
        role="learning",
        description="run whose best weights to start from: RUN, or EXPERIMENT/RUN; empty: fresh weights",
    )
    n_layer: Count = Field(4, role="model", description="blocks")
    n_head: Count = Field(4, role="model", description="attention heads per block; must divide n_embd")
    n_kv_head: Count | None = Field(
        None,
        role="model",
        description="heads of keys and values, each shared by n_head / n_kv_head query heads (arXiv:2305.13245); None: n_head",
    )
    n_embd: Count = Field(128, role="model", description="width of the residual stream, channels")
    n_ff: Count | None = Field(
        None, role="model", description="width of the feed-forward layer; None: 4 n_embd, 8/3 n_embd for swiglu"
    )
    block_size: Count | None = Field(
        None, role="model", description="longest context, tokens; None: that of train.data, 64 if neither is given"
    )
    dropout: Fraction = Field(0.0, role="learning", description="probability of dropping an activation while training")
    bias: bool | None = Field(None, role="model", description="biases in linear layers and layer norms")
    norm: Literal["rmsnorm", "rmsnorm_scale", "layernorm"] | None = Field(
        None, role="model", description="normalisation; rmsnorm has no parameters"
    )
    norm_eps: Positive | None = Field(
        None,
        role="model",
        description="added to the mean square before the root; None: 1e-5 for layernorm, else 1e-6",
    )
    position: Literal["rope", "learned", "alibi", "none"] | None = Field(
        None, role="model", description="how a token knows its place; alibi: arXiv:2108.12409"
    )
    rope_base: Positive = Field(10_000.0, role="model", description="base of rope's wavelengths (arXiv:2104.09864)")
    window: CountOrZero = Field(
        0, role="model", description="tokens that a token sees, itself included, in layers with a window; 0: all"
    )
    window_pattern: Annotated[str, pydantic.Field(pattern="^[SL]+$")] = Field(
        "S", role="model", description="which layers have the window, repeated: S: the window, L: the whole context"
    )
    qk_norm: bool | None = Field(None, role="model", description="normalise queries and keys (arXiv:2010.04245)")
    activation: Literal["relu2", "gelu", "swiglu"] | None = Field(
        None, role="model", description="non-linearity of the feed-forward layer"
    )
    tie_weights: bool | None = Field(None, role="model", description="one matrix for token embedding and output head")
    zero_init: bool | None = Field(None, role="model", description="output projections of blocks start at zero")
    softcap: NotNegative | None = Field(None, role="model", description="logits become c tanh(z / c); 0: off")
    smear: bool | None = Field(
        None, role="model", description="add to each embedding a learnt share of the one before it"
    )
    ngram: Annotated[int, pydantic.Field(ge=0, le=8)] = Field(
        0,
        role="model",
        description="longest n-grams whose tables of logits are learnt beside the blocks; 2: bigrams; 0: none",
    )


class Data(Section):
    """Batches."""

    @property
    def tokens_per_step(self) -> int:
        """Input tokens of an optimizer step. Expects a block_size, as a resolved config has one."""
        assert self.block_size is not None
        return self.grad_accum_steps * self.batch_size * self.block_size

    batch_size: Count = Field(24, role="learning", description="rows of a micro-batch")
    block_size: Count | None = Field(None, role="learning", description="tokens of a row; None: the model's block_size")
    grad_accum_steps: Count = Field(1, role="learning", description="micro-batches per optimizer step")
    mask_prompt: bool = Field(True, role="learning", description="loss on completions only, where documents have them")
    layout: Literal["auto", "stream", "rows"] = Field(
        "auto",
        role="learning",
        description="stream: random windows; rows: a row starts where a document starts; auto: rows where documents are Examples",
    )


class Optim(Section):
    """The optimizer. None: by the preset (see `PRESETS`)."""

    name: str | None = Field(
        None,
        role="learning",
        description="muon (Muon for matrices, AdamW for the rest), adamw, or one that a plugin registers",
    )
    learning_rate: Positive | None = Field(
        None,
        role="learning",
        description="peak rate; with muon that of the matrices; with muon the defaults of all rates grow with the batch",
    )
    embedding_lr: Positive | None = Field(None, role="learning", description="peak rate of embeddings, muon only")
    head_lr: Positive | None = Field(
        None, role="learning", description="peak rate of the output head and of vectors, muon only"
    )
    ngram_lr: Positive | None = Field(None, role="learning", description="peak rate of n-gram tables, muon only")
    weight_decay: NotNegative | None = Field(
        None, role="learning", description="decoupled decay of matrices, per step times the rate"
    )
    beta1: Fraction | None = Field(None, role="learning", description="AdamW's decay of the mean gradient")
    beta2: Fraction | None = Field(None, role="learning", description="AdamW's decay of the squared gradient")
    momentum: Fraction = Field(0.85, role="learning", description="Nesterov momentum of Muon")
    grad_clip: NotNegative | None = Field(
        None, role="learning", description="largest norm of the whole gradient; 0: off"
    )


class Schedule(Section):
    """The learning rate by step."""

    max_iters: Count = Field(
        1000, role="steering", description="optimizer steps; train.runtime.max_minutes takes their place"
    )
    warmup_iters: CountOrZero | None = Field(None, role="steering", description="optimizer steps of linear rise")
    lr_decay_iters: Count | None = Field(
        None,
        role="steering",
        description="optimizer step at which min_lr is reached; None: max_iters; train.runtime.max_minutes takes its place",
    )
    min_lr: NotNegative | None = Field(
        None, role="steering", description="final rate; None: 0.02 (linear) or 0.1 (cosine) of learning_rate"
    )
    decay: Literal["linear", "cosine", "constant"] | None = Field(
        None, role="steering", description="shape of the fall"
    )
    decay_fraction: Annotated[float, pydantic.Field(gt=0, le=1)] = Field(
        0.6, role="steering", description="linear: last part of lr_decay_iters, or of max_minutes, that falls"
    )


class Runtime(Section):
    """Where, how long and how often."""

    max_minutes: Positive | None = Field(
        None,
        role="steering",
        description="wall time of training, minutes, evaluations, saves and all tries included. The run then ends by the "
        "clock and the rate falls by it, whatever max_iters and lr_decay_iters say; warm-up stays in steps. Rates then "
        "depend on the machine's speed: a resume gets the time that is left, but neither it nor a repetition is exact. "
        "None: max_iters steps",
    )
    stop_when: str = Field(
        "",
        role="steering",
        description='ends the run at the first evaluation where this holds, such as "val_accuracy >= 0.99"; empty: never',
    )
    eval_interval: Count = Field(250, role="steering", description="optimizer steps between evaluations")
    eval_iters: CountOrZero = Field(
        0, role="steering", description="validation batches, evenly spaced, at most; 0: the whole file"
    )
    log_interval: Count = Field(10, role="machine", description="optimizer steps between rows of metrics")
    checkpoint_interval: Count = Field(250, role="machine", description="optimizer steps between checkpoints")
    seed: Seed = Field(1337, role="seed", description="weights, dropout and data order")
    device: str = Field("auto", role="machine", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Dtype = Field(
        "auto", role="machine", description="of matrix products; weights stay float32; auto: the fastest by timing"
    )
    attention: Attention = Field(
        "auto",
        role="machine",
        description="explicit: written out, sdpa: torch's, sdpa32: torch's in float32; auto: the fastest by timing",
    )
    compile: Literal["auto"] | bool = Field(
        "auto",
        role="machine",
        description="torch.compile; auto: on a GPU in runs of 1,000 steps or more, or of a minute or more; never on a CPU",
    )
    threads: Literal["auto"] | Count = Field(
        "auto", role="machine", description="CPU threads; auto: the fastest number by timing"
    )
    on_nan: Literal["stop", "rollback"] = Field(
        "stop",
        role="machine",
        description="when a loss or gradient is not finite; rollback: to the last checkpoint, without that batch, at half the rates",
    )
    out_dir: str = Field("out", role="place", min_length=1, description="folder of runs")
    trackers: list[str] = Field(["tensorboard"], role="shown", description="where metrics go besides metrics.csv")


class SampleRuntime(Section):
    """What sampling uses instead of [train.runtime]; None: the same."""

    seed: Seed | None = Field(None, role="shown", description="of the random draws")
    device: str | None = Field(None, role="shown", description="see train.runtime.device")
    dtype: Dtype | None = Field(
        None, role="shown", description="see train.runtime.dtype; sampling from a cache is in float32 all the same"
    )
    compile: Literal["auto"] | bool | None = Field(
        None, role="shown", description="accepted as in nanoGPT; what samples is never compiled"
    )
    attention: Attention | None = Field(None, role="shown", description="see train.runtime.attention")
    threads: Literal["auto"] | Count | None = Field(None, role="shown", description="see train.runtime.threads")


class Sampling(Section):
    """What to generate."""

    start: str = Field(
        "",
        role="shown",
        description="text to continue, or FILE:path; empty: held-out prompts, or a line break for text",
    )
    num_samples: Count = Field(5, role="shown", description="texts to draw")
    max_new_tokens: Count = Field(500, role="shown", description="tokens per text at most")
    temperature: NotNegative | None = Field(None, role="shown", description="0: greedy; None: 0 for Examples, else 0.8")
    top_k: CountOrZero = Field(0, role="shown", description="draw from the k likeliest tokens; 0: all")
    top_p: Annotated[float, pydantic.Field(gt=0, le=1)] = Field(
        1.0, role="shown", description="draw from the likeliest tokens of this total probability"
    )
    stop: str = Field(
        "", role="shown", description="text that ends a sample; empty: the dataset's own end, if it has one"
    )


class Evaluate(Section):
    """Exact match of greedy answers, where documents are Examples; and what is known of the data."""

    max_prompts: CountOrZero = Field(
        500, role="steering", description="prompts of each side for exact match at most, evenly spaced; 0: all"
    )
    training_prompts: CountOrZero = Field(
        100, role="steering", description="the same at each evaluation while training; 0: all"
    )
    optimal_loss: NotNegative | None = Field(
        None,
        role="shown",
        description="lowest val loss that any model can reach, nats per target, where it is known; `check` shows it",
    )


class Train(Section):
    """Everything `train` reads."""

    model: Model = pydantic.Field(default_factory=Model)
    data: Data = pydantic.Field(default_factory=Data)
    optim: Optim = pydantic.Field(default_factory=Optim)
    schedule: Schedule = pydantic.Field(default_factory=Schedule)
    runtime: Runtime = pydantic.Field(default_factory=Runtime)


class SampleConfig(Section):
    """Everything `sample` reads."""

    runtime: SampleRuntime = pydantic.Field(default_factory=SampleRuntime)
    sample: Sampling = pydantic.Field(default_factory=Sampling)


class Config(Section):
    """A whole config.toml."""

    prepare: Prepare = pydantic.Field(default_factory=Prepare)
    train: Train = pydantic.Field(default_factory=Train)
    sample: SampleConfig = pydantic.Field(default_factory=SampleConfig)
    evaluate: Evaluate = pydantic.Field(default_factory=Evaluate)
