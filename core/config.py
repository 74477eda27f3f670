"""Every setting of an experiment, typed. A Config is frozen; `replaced` returns a changed copy.

A field that is None gets its default from the preset or another field in `core.defaults.resolve`.
A setting that depends on the machine or the data stays "auto" until the run starts. The run records its choice.
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


# What a key is for. Code that treats keys differently asks for their role (core.roles) instead of listing names.
Role = Literal["model", "data", "learning", "steering", "seed", "machine", "place", "shown"]
ROLES: dict[Role, str] = {
    "model": "shapes the model: a checkpoint fits only a model with the same value",
    "data": "shapes the dataset: part of its fingerprint",
    "learning": "decides what is learnt: fixed for the whole run",
    "steering": "decides how long a run trains and what is measured: a resume may change it",
    "seed": "seeds a run: runs that differ only in it repeat the same setting",
    "machine": "decides how the machine computes, not what is learnt",
    "place": "a path, or the name of a folder",
    "shown": "used after training, or only for display",
}


def Field(default: Any = ..., *, role: Role, default_factory: Any = None, **options: Any) -> Any:  # noqa: N802 - as pydantic's
    """pydantic's Field, with the key's role."""
    given = {"default": default} if default_factory is None else {"default_factory": default_factory}
    return pydantic.Field(**given, json_schema_extra={"role": role}, **options)


class Section(BaseModel):
    """A table of config.toml. Unknown keys and silent conversions (true for 1, "3" for 3) are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, frozen=True)


AnySection = TypeVar("AnySection", bound=Section)


def replaced(section: AnySection, changes: Mapping[str, Any]) -> AnySection:
    """A copy with new values for some dotted keys. The values are not checked."""
    inner: dict[str, dict[str, Any]] = {}
    update: dict[str, Any] = {}
    for key, value in changes.items():
        head, dot, rest = key.partition(".")
        if dot:
            inner.setdefault(head, {})[rest] = value
        else:
            update[head] = value
    for head, values in inner.items():
        table = getattr(section, head)
        update[head] = {**table, **values} if isinstance(table, dict) else replaced(table, values)
    return section.model_copy(update=update)


class Prepare(Section):
    """How documents become a dataset folder."""

    variant: str = Field("basic", role="place", description="name of the dataset; choosing a variant sets it")
    dataset_dir: str = Field("", role="place", description="dataset folder; empty: datasets/<variant>")
    raw_dir: str = Field("datasets/raw", role="place", description="folder for downloads and other raw input")
    input: str = Field("", role="place", description="file or https URL to read instead of prepare.py's documents()")
    sha256: str = Field(
        "", role="place", pattern="^([0-9a-f]{64})?$", description="SHA-256 checksum of `input`, hexadecimal"
    )
    format: Literal["text", "pairs", "jsonl", "csv", "tsv", "parquet", "datasets"] = Field(
        "text",
        role="data",
        description="content of `input`: running text; `pairs`, a prompt and completion per line (also of a dataset that "
        "another program made); a table; or a folder or address of Hugging Face's datasets (extra hf)",
    )
    columns: dict[str, str] = Field(
        role="data",
        default_factory=dict,
        description="columns of a table: prompt, completion, group, text, messages, split; each is called so if not given",
    )
    separator: str = Field(
        "=",
        role="data",
        min_length=1,
        description="text that ends the prompt in a line of `pairs`; it is part of the prompt. Given for a dataset that "
        "another program made, it makes it `pairs`",
    )
    encoder: str = Field(
        "char",
        role="data",
        description="char, words, bytes, bpe, gpt2, hf (a pretrained model's), or an encoder of a plugin",
    )
    tokenizer: str = Field(
        "",
        role="data",
        description="where `hf` finds a tokenizer: a folder with tokenizer.json, such a file, a .gguf file, or the name of a "
        "model on the hub, OWNER/NAME or OWNER/NAME@REVISION; empty: train.model.params.name",
    )
    encoder_from: str = Field(
        "", role="place", description="dataset folder whose encoder to use instead, so that a model fits both datasets"
    )
    vocab_size: Annotated[int, pydantic.Field(ge=257)] = Field(
        1024, role="data", description="maximum vocabulary of `bpe`, ids"
    )
    split_pattern: Annotated[str, pydantic.Field(min_length=1)] = Field(
        "gpt2",
        role="data",
        description="where `bpe` cuts text before it merges pairs: gpt2; gpt4 (numbers in up to three digits); digits (each digit "
        "alone); or a regular expression, whose matches are the pieces",
    )
    special_tokens: Literal["none", "chat"] = Field(
        "none",
        role="data",
        description="chat: ids behind those of text for <|bos|>, <|system|>, <|user|>, <|assistant|>, <|tool|>, <|result|> and "
        "<|end|>; conversations are then written with them. The encoder `hf` writes conversations in its model's own format "
        "instead, without new ids. In a pipeline set it for all stages",
    )
    max_tokens: CountOrZero = Field(
        0,
        role="data",
        description="longest conversation with special tokens, tokens; of longer ones the oldest turns are left out, whole, and "
        "those whose last turns alone are longer; 0: no limit",
    )
    size: Count | None = Field(
        None,
        role="data",
        description="size of the dataset, characters drawn from documents(); None: 1,000,000 if documents() asks for `rng`, "
        "else all that it yields, at most 1,000,000,000",
    )
    val_fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = Field(
        0.1,
        role="data",
        description="fraction of the characters or prompts held out for validation, which chooses checkpoints",
    )
    test_fraction: Fraction | None = Field(
        None,
        role="data",
        description="fraction of the characters or prompts held out for the test side, which is measured once, at the end; "
        "0: no test side; None: 0.1 if the split is by hash, else 0",
    )
    split: Literal["auto", "hash", "tail", "shuffle"] = Field(
        "auto",
        role="data",
        description="how to choose held-out documents; auto: hash for Example and Conversation, tail for text",
    )
    seed: Seed = Field(1337, role="data", description="seed of documents()'s `rng` and of the shuffle")
    documents: str = Field(
        "documents",
        role="data",
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="function of prepare.py that yields the documents, such as another one for each stage",
    )
    params: dict[str, Any] = Field(
        role="data", default_factory=dict, description="keyword-only parameters of documents()"
    )


class Model(Section):
    """The network. The preset sets the keys that are None, unless they say otherwise."""

    kind: str = Field(
        "gpt", role="model", description="gpt, lstm, hf (a pretrained model, see `params`), or a model of a plugin"
    )
    preset: Literal["modern", "gpt2", "llama", "portable"] = Field(
        "modern", role="model", description="set of defaults for model, optimizer and schedule"
    )
    init_from: str = Field(
        "",
        role="learning",
        description="run whose weights to start from: RUN, EXPERIMENT/RUN, either with /STAGE, or ./STAGE of the same "
        "run; empty: fresh weights",
    )
    init_checkpoint: Literal["best", "last"] = Field(
        "best", role="learning", description="checkpoint of `init_from` to start from"
    )
    depth: CountOrZero = Field(
        0,
        role="model",
        description="one dial: sets n_layer, n_embd, n_head, batch_size, grad_accum_steps and max_iters by rules, where they "
        "are not given; `check` shows the arithmetic; 0: off",
    )
    n_layer: Count = Field(4, role="model", description="transformer blocks, or layers of an lstm")
    n_head: Count = Field(
        4, role="model", description="attention heads per block; must divide n_embd, unless head_width is given"
    )
    n_kv_head: Count | None = Field(
        None,
        role="model",
        description="key/value heads, each shared by n_head / n_kv_head query heads (arXiv:2305.13245); None: n_head",
    )
    n_embd: Count = Field(128, role="model", description="width of the residual stream, channels")
    head_width: Count | None = Field(
        None, role="model", description="width of an attention head, channels; None: n_embd / n_head"
    )
    n_ff: Count | None = Field(
        None,
        role="model",
        description="width of the feed-forward layer, channels; None: 4 n_embd, for swiglu 8/3 n_embd",
    )
    block_size: Count | None = Field(
        None, role="model", description="longest context, tokens; None: train.data.block_size, or 64"
    )
    dropout: Fraction = Field(0.0, role="learning", description="probability of dropping an activation in training")
    bias: bool | None = Field(None, role="model", description="biases in linear layers and layer norms")
    qkv_bias: bool | None = Field(
        None, role="model", description="biases of queries, keys and values; None: as `bias` says"
    )
    norm: Literal["rmsnorm", "rmsnorm_scale", "layernorm"] | None = Field(
        None, role="model", description="normalisation layer; rmsnorm has no parameters"
    )
    norm_eps: Positive | None = Field(
        None,
        role="model",
        description="epsilon of the normalisation; None: 1e-5 for layernorm, else 1e-6",
    )
    position: Literal["rope", "learned", "alibi", "none"] | None = Field(
        None, role="model", description="position encoding; alibi: arXiv:2108.12409"
    )
    rope_base: Positive = Field(10_000.0, role="model", description="base of rope's wavelengths (arXiv:2104.09864)")
    window: CountOrZero = Field(
        0,
        role="model",
        description="attention window of layers S, tokens, the current one included; 0: the whole context",
    )
    window_pattern: Annotated[str, pydantic.Field(pattern="^[SL]+$")] = Field(
        "S",
        role="model",
        description="layers that use the window, repeated over the blocks; S: the window, L: the whole context",
    )
    qk_norm: bool | None = Field(None, role="model", description="normalise queries and keys (arXiv:2010.04245)")
    qk_scale: bool | None = Field(
        None,
        role="model",
        description="with qk_norm: a learnt factor for each channel of normalised queries and keys, as in Qwen3; without it the "
        "factor is 1.2",
    )
    activation: Literal["relu2", "gelu", "gelu_tanh", "swiglu"] | None = Field(
        None,
        role="model",
        description="non-linearity of the feed-forward layer; gelu_tanh: GPT-2's approximation of gelu",
    )
    tie_weights: bool | None = Field(
        None, role="model", description="use one matrix for token embedding and output head"
    )
    zero_init: bool | None = Field(
        None, role="model", description="initialise the output projections of blocks to zero"
    )
    softcap: NotNegative | None = Field(
        None, role="model", description="limit c of the logits, which become c tanh(z / c); 0: off"
    )
    smear: bool | None = Field(
        None, role="model", description="add a learnt share of the previous token's embedding to each embedding"
    )
    ngram: Annotated[int, pydantic.Field(ge=0, le=8)] = Field(
        0,
        role="model",
        description="longest n-gram with a learnt table of logits, tokens; 2: bigrams; 0: no tables",
    )
    params: dict[str, Any] = Field(
        role="model",
        default_factory=dict,
        description="keyword-only parameters of build_model() in prepare.py, or of a plugin's model. Of hf: name, revision, lora, r, "
        "alpha, dropout, target_modules, quantize, weights, gradient_checkpointing",
    )


class Data(Section):
    """The batches."""

    @property
    def tokens_per_step(self) -> int:
        """Input tokens per optimizer step. Expects a resolved config."""
        assert self.block_size is not None
        return self.grad_accum_steps * self.batch_size * self.block_size

    batch_size: Count = Field(24, role="learning", description="rows of a micro-batch")
    block_size: Count | None = Field(None, role="learning", description="tokens per row; None: train.model.block_size")
    grad_accum_steps: Count = Field(1, role="learning", description="micro-batches per optimizer step")
    mask_prompt: bool = Field(
        True, role="learning", description="compute the loss on completions only, if documents have them"
    )
    layout: Literal["auto", "stream", "rows"] = Field(
        "auto",
        role="learning",
        description="stream: windows of text; rows: every row starts at a document; auto: rows if there are documents",
    )
    order: Literal["random", "epochs"] = Field(
        "random",
        role="learning",
        description="random: every row is drawn anew; epochs: each document, or window of a stream, is read once per epoch, in "
        "an order that seed and epoch decide. A row then holds as many whole documents as always fit",
    )
    packing: Literal["none", "documents"] = Field(
        "none",
        role="learning",
        description="documents: rows hold whole documents, packed by best fit; one that is longer than a row is cropped. none: "
        "rows of random order start at a document and cut the last one",
    )


class Optim(Section):
    """The optimizer. The preset sets the keys that are None."""

    name: str | None = Field(
        None,
        role="learning",
        description="muon (Muon for matrices, Adam for the rest), adamw, adam, sgd, or an optimizer of a plugin",
    )
    learning_rate: Positive | None = Field(
        None,
        role="learning",
        description="peak rate, with muon that of the matrices; muon's default rates grow with the batch",
    )
    embedding_lr: Positive | None = Field(None, role="learning", description="peak rate of embeddings, muon only")
    head_lr: Positive | None = Field(
        None, role="learning", description="peak rate of the output head and of all other parameters, muon only"
    )
    ngram_lr: Positive | None = Field(None, role="learning", description="peak rate of n-gram tables, muon only")
    weight_decay: NotNegative | None = Field(
        None,
        role="learning",
        description="weight decay of matrices, per step and multiplied by the rate; decoupled from the gradient with muon and "
        "adamw; with adam and sgd it is added to the gradient, as in torch.optim",
    )
    beta1: Fraction | None = Field(None, role="learning", description="Adam's decay of the mean gradient")
    beta2: Fraction | None = Field(None, role="learning", description="Adam's decay of the squared gradient")
    momentum: Fraction | None = Field(
        None, role="learning", description="Nesterov momentum of muon, or momentum of sgd; None: 0.9 for sgd, else 0.85"
    )
    grad_clip: NotNegative | None = Field(None, role="learning", description="maximum norm of the gradient; 0: off")
    state_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        role="learning",
        description="precision of momentum and mean gradients, muon and adamw only; the mean of squares stays float32. bfloat16 saves "
        "two bytes for each of the model's numbers",
    )
    params: dict[str, Any] = Field(
        role="learning",
        default_factory=dict,
        description="keyword-only parameters of a plugin's or prepare.py's optimizer",
    )


class Schedule(Section):
    """The learning rate over the run."""

    max_iters: Count = Field(
        1000, role="steering", description="length of the run, optimizer steps; ignored with train.runtime.max_minutes"
    )
    tokens_per_parameter: Positive = Field(
        12.0,
        role="steering",
        description="length of the run with train.model.depth, tokens for each number in the model's matrices",
    )
    warmup_iters: CountOrZero | None = Field(
        None, role="steering", description="length of the linear warm-up, optimizer steps"
    )
    lr_decay_iters: Count | None = Field(
        None,
        role="steering",
        description="optimizer step at which min_lr is reached; None: max_iters; ignored with train.runtime.max_minutes",
    )
    min_lr: NotNegative | None = Field(
        None,
        role="steering",
        description="lowest rate; None: 0.02 (linear), 0.1 (cosine, wsd) or 0 (step, plateau) times learning_rate",
    )
    decay: Literal["linear", "cosine", "constant", "wsd", "step", "plateau"] | None = Field(
        None,
        role="steering",
        description="shape of the decay. linear: flat, then a straight line; cosine: half a wave; wsd: warm-up, stable, then an "
        "exponential fall (arXiv:2404.06395); step: times `factor` at every `interval`; plateau: times `factor` when val_loss "
        "has stopped falling",
    )
    decay_fraction: Annotated[float, pydantic.Field(gt=0, le=1)] | None = Field(
        None,
        role="steering",
        description="linear, wsd: fraction of lr_decay_iters, or of max_minutes, in which the rate falls; None: 0.1 for wsd, "
        "else 0.6",
    )
    factor: Annotated[float, pydantic.Field(gt=0, lt=1)] = Field(
        0.1, role="steering", description="step, plateau: what the rate is multiplied by when it falls"
    )
    interval: Count | None = Field(
        None,
        role="steering",
        description="step: optimizer steps between falls, counted from the first; None: a third of lr_decay_iters. Needed with "
        "train.runtime.max_minutes",
    )
    patience: CountOrZero = Field(
        2,
        role="steering",
        description="plateau: evaluations in a row without a lower val_loss that are waited for; the next such one lowers the rate",
    )


class Runtime(Section):
    """Where, how long and how often: devices, duration, intervals."""

    max_minutes: Positive | None = Field(
        None,
        role="steering",
        description="length of the run, minutes, with evaluations, saves and all tries. Training stops after this time, "
        "and the learning rate reaches its minimum then; max_iters and lr_decay_iters are ignored, and warm-up is still "
        "in steps. A resumed run gets the time that is left. Rates then depend on the machine's speed, so a resume or "
        "repetition is not exact. None: max_iters steps",
    )
    stop_when: str = Field(
        "",
        role="steering",
        description='stop at the first evaluation where this holds, such as "val_accuracy >= 0.99"; empty: never',
    )
    eval_interval: Count = Field(250, role="steering", description="optimizer steps between evaluations")
    eval_iters: CountOrZero = Field(
        0,
        role="steering",
        description="maximum number of validation batches, evenly spaced; 0: the whole validation side",
    )
    log_interval: Count = Field(10, role="machine", description="optimizer steps between rows of metrics")
    checkpoint_interval: Count = Field(250, role="machine", description="optimizer steps between checkpoints")
    keep_checkpoints: CountOrZero = Field(
        0,
        role="shown",
        description="how many steps on the way keep their weights, besides the checkpoints `best` and `last`: the first before any "
        "step, the last one at the end, the others from a hundredth of max_iters (or max_minutes) on, each later by the same factor. "
        "`look` then shows how the model has learnt. 0: none",
    )
    seed: Seed = Field(1337, role="seed", description="seed of weights, dropout and data order")
    backend: Literal["torch", "jax"] = Field(
        "torch",
        role="machine",
        description="what takes the steps. jax: JAX, on all devices that it has, such as TPUs; for models of kind gpt with muon or adamw. "
        "All else is torch's (docs/how-to/tpu.md)",
    )
    device: str = Field(
        "auto", role="machine", description="device: cpu, cuda, cuda:N or mps; auto: the best one available"
    )
    dtype: Dtype = Field(
        "auto",
        role="machine",
        description="precision of matrix products; weights stay float32; auto: the fastest, by timing",
    )
    float8: bool = Field(
        False,
        role="machine",
        description="multiply in float8 in the blocks of a GPT in training; needs an NVIDIA GPU from Ada or Hopper on, dtype bfloat16 "
        "and widths that are multiples of 16",
    )
    attention: Attention = Field(
        "auto",
        role="machine",
        description="explicit: written out; sdpa: torch's; sdpa32: torch's in float32; auto: the fastest, by timing",
    )
    compile: Literal["auto"] | bool = Field(
        "auto",
        role="machine",
        description="use torch.compile; auto: on a GPU in runs that take a minute or more by estimate or by max_minutes, without "
        "stop_when; never on a CPU",
    )
    cuda_graphs: Literal["auto"] | bool = Field(
        "auto",
        role="machine",
        description="record the step once and replay it, so that a small model does not wait for Python; GPUs only, not with several "
        "processes. auto: not yet, because it was not tried on a GPU",
    )
    threads: Literal["auto"] | Count = Field(
        "auto", role="machine", description="number of CPU threads; auto: the fastest, by timing"
    )
    on_nan: Literal["stop", "rollback"] = Field(
        "stop",
        role="machine",
        description="what to do if a loss or gradient is not finite; rollback: go back to the last checkpoint, skip the "
        "batch and halve the rates. It saves a checkpoint at each best evaluation, too: set eval_interval so that this takes little time",
    )
    parallel: Literal["auto", "ddp", "fsdp"] = Field(
        "auto",
        role="machine",
        description="how several processes, as torchrun starts them, share a run. Each takes its share of every step's rows. ddp: each "
        "holds the whole model; fsdp: weights, gradients and the optimizer's state are divided among them; auto: fsdp where these do "
        "not fit into the memory of one process, else ddp",
    )
    exact_across: bool = Field(
        False,
        role="machine",
        description="give the same bits for any number of processes: each takes whole micro-batches, whose gradients are added up "
        "one by one in their order. train.data.grad_accum_steps is then the highest number of processes. Nothing is timed, and auto "
        "threads are 1",
    )
    team_timeout: Positive = Field(
        30.0,
        role="machine",
        description="seconds without a sign of life, after which a process of a run counts as lost and the others end. Each gives one "
        "twice a second, also while it computes or waits",
    )
    out_dir: str = Field("out", role="place", min_length=1, description="folder of runs")
    trackers: list[str] = Field(["tensorboard"], role="shown", description="where to log metrics besides metrics.csv")


class SampleRuntime(Section):
    """What sampling uses instead of [train.runtime]; None: the same."""

    seed: Seed | None = Field(None, role="shown", description="seed of the random draws")
    device: str | None = Field(None, role="shown", description="see train.runtime.device")
    dtype: Dtype | None = Field(
        None, role="shown", description="see train.runtime.dtype; sampling with a cache always uses float32"
    )
    compile: Literal["auto"] | bool | None = Field(
        None, role="shown", description="accepted as in nanoGPT, but sampling is never compiled"
    )
    attention: Attention | None = Field(None, role="shown", description="see train.runtime.attention")
    threads: Literal["auto"] | Count | None = Field(None, role="shown", description="see train.runtime.threads")


class Sampling(Section):
    """What to sample."""

    start: str = Field(
        "",
        role="shown",
        description="text to continue, or FILE:path; empty: held-out prompts, for running text a line break",
    )
    num_samples: Count = Field(5, role="shown", description="number of texts to draw")
    max_new_tokens: Count = Field(500, role="shown", description="maximum length of a text, tokens")
    temperature: NotNegative | None = Field(
        None, role="shown", description="temperature; 0: greedy; None: 0 for Examples, else 0.8"
    )
    top_k: CountOrZero = Field(0, role="shown", description="draw from the k likeliest tokens; 0: all")
    top_p: Annotated[float, pydantic.Field(gt=0, le=1)] = Field(
        1.0, role="shown", description="draw from the likeliest tokens with this total probability"
    )
    stop: str = Field(
        "", role="shown", description="text that ends a sample; empty: what ends the dataset's completions, if anything"
    )


class Evaluate(Section):
    """Exact match of greedy answers, if documents are Examples; and the optimal loss, if it is known."""

    max_prompts: CountOrZero = Field(
        500, role="steering", description="maximum number of prompts per side for exact match, evenly spaced; 0: all"
    )
    training_prompts: CountOrZero = Field(
        100, role="steering", description="the same for evaluations in training; 0: all"
    )
    every: CountOrZero = Field(
        1,
        role="steering",
        description="evaluations in training between two calls of prepare.py's evaluate(); 0: only after training",
    )
    group_loss: bool = Field(
        False,
        role="steering",
        description="also measure the loss of each group's completions in training: val_loss/GROUP and train_loss/GROUP",
    )
    suite_prompts: CountOrZero = Field(
        500, role="shown", description="maximum number of items per task of a suite, a fixed random sample; 0: all"
    )
    suite_form: Literal["continuation", "letters", "written"] = Field(
        "continuation",
        role="shown",
        description="how a suite is asked. continuation: by the loss of each answer. For chat models and multiple choice also: "
        "letters, by the logits of A, B, ...; written, by the answer that the model writes",
    )
    optimal_loss: NotNegative | None = Field(
        None,
        role="shown",
        description="lowest val loss that any model can reach, nats per target, if it is known; `check` shows it",
    )


class ObjectiveConfig(Section):
    """What a step minimises. The keys after `kind` are read by kind = "reward"."""

    kind: str = Field(
        "tokens",
        role="learning",
        description="tokens: cross-entropy of next tokens, or prepare.py's loss(); reward: policy gradient from prepare.py's "
        "reward(), without one from exact match; or an objective of a plugin",
    )
    group_size: Annotated[int, pydantic.Field(ge=2, le=4096)] = Field(
        8, role="learning", description="reward: answers to each prompt; each is compared with the mean of the others"
    )
    prompts_per_step: Annotated[int, pydantic.Field(ge=1, le=65536)] = Field(
        8, role="learning", description="reward: prompts of an optimizer step whose answers differ in reward"
    )
    max_new_tokens: Count = Field(
        64, role="learning", description="reward: longest answer, tokens; a longer one is cut and gets reward 0"
    )
    temperature: Positive = Field(1.0, role="learning", description="reward: temperature at which answers are drawn")


class Train(Section):
    """Everything `train` reads."""

    model: Model = pydantic.Field(default_factory=Model)
    data: Data = pydantic.Field(default_factory=Data)
    optim: Optim = pydantic.Field(default_factory=Optim)
    schedule: Schedule = pydantic.Field(default_factory=Schedule)
    objective: ObjectiveConfig = pydantic.Field(default_factory=ObjectiveConfig)
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
