"""Find settings that look like a mistake and would cost hours."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from typing import NamedTuple

from core.conditions import read_condition
from core.config import Config
from core.defaults import PRETRAINED_KIND, RATED
from core.dial import FITTED, is_fitted
from core.evaluation.facts import Facts

SMALL_MODEL = 10_000_000  # parameters
MANY_MICRO_BATCHES = 8
FEW_TOKENS, FEW_PROMPTS = 1_000, 20  # of a validation side
MANY_EPOCHS = 50
USEFUL_EPOCHS = 16  # of a large model's text (arXiv:2305.16264)
LONG_STEPS, LONG_SECONDS = 2_000, 600  # of a run that is long enough to save on the way
READ_BY_PRETRAINED = ("kind", "params", "block_size", "init_from", "init_checkpoint")  # keys of [train.model]
ROOMY = 8  # times the longest document


class Trap(NamedTuple):
    """key: of the config. message: what is wrong. remedy: what to do."""

    key: str
    message: str
    remedy: str


def traps(config: Config, given: Collection[str], facts: Facts) -> list[Trap]:
    """Every setting that looks like a mistake. given: dotted keys that the user set; defaults give no warning."""
    found = (
        of_data(config, given, facts),
        of_depth(config, given, facts),
        of_pretrained(config, given),
        of_rows(config, facts),
        of_end(config, facts),
        of_steps(config, given, facts),
    )
    return [*chain.from_iterable(found)]


def of_data(config: Config, given: Collection[str], facts: Facts) -> Iterator[Trap]:
    """Warnings about the two sides, the vocabulary and the prompts."""
    if facts.same:
        yield Trap(
            "prepare.val_fraction",
            "validation and training are the same text, so the validation loss says nothing about new text",
            "Hold out other text: let prepare make the split, or write another val.bin.",
        )
    for side, share in (("validation", facts.val_in_train), ("the test side", facts.test_in_train)):
        if share is not None and share > 0.5 and not facts.same:
            yield Trap(
                "prepare.split",
                f"{share:.0%} of {side} also occurs in training, so its loss rewards memorising",
                "Remove what is repeated from one of the sides."
                if facts.sides_given
                else 'Use prepare.split = "hash" with Examples, or remove repeated text.',
            )
    if facts.has_accuracy and facts.val_prompts is not None and facts.val_prompts < FEW_PROMPTS:
        yield Trap(
            "prepare.val_fraction",
            f"{facts.val_prompts} validation prompt{'s' * (facts.val_prompts != 1)}: one answer moves the accuracy by "
            f"{1 / max(facts.val_prompts, 1):.0%}",
            "Raise prepare.val_fraction, or make more different prompts.",
        )
    elif facts.val_tokens < FEW_TOKENS:
        yield Trap(
            "prepare.val_fraction",
            f"{facts.val_tokens:,} validation tokens: the loss over so few is noisy",
            "Raise prepare.val_fraction, or give it more text.",
        )
    if facts.encoder in ("bpe", "gpt2") and 10 * facts.vocab_size > facts.train_tokens:
        yield Trap(
            "prepare.vocab_size" if facts.encoder == "bpe" else "prepare.encoder",
            f"a vocabulary of {facts.vocab_size:,} for {facts.train_tokens:,} training tokens: most ids occur too rarely to be learnt",
            "Lower prepare.vocab_size, or give it more text."
            if facts.encoder == "bpe"
            else 'Use prepare.encoder = "bpe" with a small prepare.vocab_size, or give it more text.',
        )
    if facts.changed_text:
        yield Trap(
            "prepare.tokenizer" if "prepare.tokenizer" in given else "prepare.encoder",
            f"this tokenizer does not give every text back as it was: {', '.join(facts.changed_text)}",
            "The model never sees what is lost, and bits per byte count it as learnt. Choose a byte-level one if it matters.",
        )
    if facts.doubled_begin:
        yield Trap(
            "prepare.tokenizer" if "prepare.tokenizer" in given else "prepare.encoder",
            f"documents begin with {facts.begin or 'the begin token'} twice: it is put before each of them, and they have one already",
            "Leave it out of what documents() yields: the model was trained with one.",
        )
    if facts.begin and config.sample.sample.start.startswith(facts.begin):
        yield Trap(
            "sample.sample.start",
            f"the prompt begins with {facts.begin} twice: it is put before each prompt, and this one spells it",
            "Leave it out.",
        )
    if facts.kind == "text" and "train.data.mask_prompt" in given and config.train.data.mask_prompt:
        yield Trap(
            "train.data.mask_prompt",
            "mask_prompt is set, but running text has no prompts: the loss is over every token",
            "Leave it out, or yield Examples in documents().",
        )
    if facts.kind == "examples" and (config.sample.sample.temperature or 0) > 0:
        yield Trap(
            "sample.sample.temperature",
            f"temperature = {config.sample.sample.temperature:g} draws answers at random, but exact match expects one answer",
            "Leave it out, or set it to 0, for greedy answers.",
        )


def of_depth(config: Config, given: Collection[str], facts: Facts) -> Iterator[Trap]:
    """Warnings about what train.model.depth decides."""
    depth, tokens = config.train.model.depth, config.train.data.tokens_per_step
    if not depth or config.train.runtime.max_minutes is not None:
        return
    if not is_fitted(depth):
        yield Trap(
            "train.model.depth",
            f"depth = {depth} is outside the depths of {FITTED[0]} to {FITTED[1]} for which the rules for tokens and batch were fitted",
            "Compare a few values of train.schedule.tokens_per_parameter and train.data.batch_size before you trust them.",
        )
    if config.train.optim.name == "muon" and "train.optim.learning_rate" not in given and tokens > RATED[1]:
        yield Trap(
            "train.optim.learning_rate",
            f"a step has {tokens:,} tokens, and the default rates were fitted for {RATED[0]:,} to {RATED[1]:,}; they stay constant "
            "above",
            "Compare a few values, in a short run.",
        )
    times = facts.times(config)
    if times > USEFUL_EPOCHS and "train.schedule.max_iters" not in given:
        yield Trap(
            "train.model.depth",
            f"depth = {depth}: the run reads the training data {times:,.0f} times, and after about {USEFUL_EPOCHS} times it learns "
            "little more from it (arXiv:2305.16264)",
            "Lower depth or train.schedule.tokens_per_parameter, or prepare more text.",
        )


def of_pretrained(config: Config, given: Collection[str]) -> Iterator[Trap]:
    """Warnings about keys that a pretrained model does not read."""
    if config.train.model.kind != PRETRAINED_KIND:
        return
    names = {key: key.split(".")[2] for key in given if key.startswith("train.model.")}
    if unread := sorted(key for key, name in names.items() if name not in READ_BY_PRETRAINED):
        yield Trap(
            unread[0],
            f"{', '.join(names[key] for key in unread)}: not used, because a pretrained model brings its own",
            "Leave it out." if len(unread) == 1 else "Leave them out.",
        )


def of_rows(config: Config, facts: Facts) -> Iterator[Trap]:
    """Warnings about block_size and the length of documents."""
    size, context = config.train.data.block_size or 0, config.train.model.block_size or 0
    if facts.longest_prompt > context:
        yield Trap(
            "train.model.block_size",
            f"block_size = {context}: the longest prompt has {facts.longest_prompt:,} tokens, and the model sees only the end of "
            "such prompts",
            f"Raise it to {facts.longest_prompt:,} or more.",
        )
    if facts.longest is None or not facts.train_documents:
        return
    packed = config.train.data.packing == "documents"
    if facts.longer and facts.rows and config.train.data.order == "epochs" and not packed:
        yield Trap(
            "train.data.block_size",
            f"block_size = {size}: {facts.longer:,} of {facts.train_documents:,} training documents are longer (up to {facts.longest:,} "
            "tokens); they are read in parts, and a part does not see the one before it",
            f"Raise it to {facts.longest - 1:,}.",
        )
    elif facts.longer and facts.rows:
        yield Trap(
            "train.data.block_size",
            f"block_size = {size}: {facts.longer:,} of {facts.train_documents:,} training documents are longer (up to {facts.longest:,} "
            "tokens), and rows start where documents start, so the rest of these is never read",
            f"Raise it to {facts.longest - 1:,}" + ("." if packed else ', or set train.data.layout = "stream".'),
        )
    elif size > ROOMY * facts.longest:
        yield Trap(
            "train.data.block_size",
            f"block_size = {size} is {size / facts.longest:.0f} times the longest document ({facts.longest:,} tokens): each row holds "
            "many unrelated documents, and attention between them takes time",
            f"Lower it towards {facts.longest:,}, and raise train.data.batch_size instead.",
        )


def of_end(config: Config, facts: Facts) -> Iterator[Trap]:
    """Warnings about a condition that ends the run."""
    if not (written := config.train.runtime.stop_when):
        return
    condition = read_condition(written)
    measure, _, group = condition.metric.partition("/")
    reason = ""
    if "accuracy" in measure and not facts.has_accuracy:
        reason = f"there is no accuracy with {facts.kind}"
    elif group and group not in facts.groups:
        reason = f"there is no group '{group}'. Groups: {', '.join(facts.groups) or 'none'}"
    elif not condition.can_hold:
        reason = "an accuracy is from 0 to 1" if "accuracy" in measure else f"{measure} is never negative"
    if reason:
        yield Trap(
            "train.runtime.stop_when",
            f'stop_when = "{written}" never holds: {reason}',
            "Change it, or leave it out; the run ends after train.schedule.max_iters steps.",
        )


def of_steps(config: Config, given: Collection[str], facts: Facts) -> Iterator[Trap]:
    """Warnings about the number of steps, and about what is counted in steps."""
    data, schedule, runtime = config.train.data, config.train.schedule, config.train.runtime
    if data.grad_accum_steps >= MANY_MICRO_BATCHES and facts.parameters is not None and facts.parameters < SMALL_MODEL:
        yield Trap(
            "train.data.grad_accum_steps",
            f"grad_accum_steps = {data.grad_accum_steps} for a model of {facts.parameters:,} parameters: one step takes the time of "
            f"{data.grad_accum_steps}, and so small a model learns more from more steps",
            "Set it to 1, and raise train.data.batch_size if memory allows.",
        )
    if runtime.max_minutes is not None:  # the number of steps is not known
        return
    steps, decay = schedule.max_iters, schedule.lr_decay_iters or schedule.max_iters
    explicit = "train.schedule.lr_decay_iters" in given and schedule.decay != "constant"
    if explicit and not runtime.stop_when and abs(decay - steps) > 0.2 * steps:  # else max_iters is only a limit
        yield Trap(
            "train.schedule.lr_decay_iters",
            f"lr_decay_iters = {decay:,}, but max_iters = {steps:,}: "
            + ("the learning rate never reaches its minimum" if decay > steps else f"the last {steps - decay:,} steps are at the minimum learning rate"),
            "Leave it out. It then equals train.schedule.max_iters.",
        )  # fmt: skip
    if runtime.eval_interval > steps:
        yield Trap(
            "train.runtime.eval_interval",
            f"eval_interval = {runtime.eval_interval:,} is more than max_iters = {steps:,}: validation loss is measured only at the end",
            f"Lower it to {max(steps // 10, 1):,} or so.",
        )
    is_long = steps >= LONG_STEPS or (facts.seconds or 0) > LONG_SECONDS
    if is_long and runtime.checkpoint_interval > steps:
        yield Trap(
            "train.runtime.checkpoint_interval",
            f"checkpoint_interval = {runtime.checkpoint_interval:,} is more than max_iters = {steps:,}: a crash would lose the whole run",
            f"Lower it to {max(steps // 10, 1):,} or so.",
        )
    epochs = facts.times(config)
    by_reward = config.train.objective.kind == "reward"  # its rows are what the model writes
    is_dialled = config.train.model.depth and "train.schedule.max_iters" not in given  # `of_depth` tells it then
    if epochs > MANY_EPOCHS and not is_dialled and not by_reward:
        yield Trap(
            "train.schedule.max_iters",
            f"max_iters = {steps:,} reads the training side {epochs:,.0f} times: the model will probably memorise it",
            "Give it more data (prepare.size), take fewer steps, or watch the validation loss.",
        )
    if config.train.model.dropout and epochs < 1:
        yield Trap(
            "train.model.dropout",
            f"dropout = {config.train.model.dropout:g} helps against memorising, but this run reads only {epochs:.0%} of the "
            "training side once: dropout only slows down learning",
            "Set it to 0.",
        )
