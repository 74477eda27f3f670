"""Check for settings that exclude each other. The first pair found is raised as a Contradiction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

from core.conditions import METRICS, read_condition
from core.config import Config


class Contradiction(ValueError):
    """Settings exclude each other. keys: their dotted names; the first is the one to change."""

    def __init__(self, keys: Sequence[str], message: str, remedy: str) -> None:
        super().__init__(f"{keys[0]}: {message} {remedy}")
        self.keys, self.message, self.remedy = keys, message, remedy


def refuse_paths(config: Config) -> None:
    """Raise Contradiction for an invalid path or name, and for a relative out_dir outside the experiment's folder."""
    prepare = config.prepare
    paths = {f"prepare.{key}": getattr(prepare, key) for key in ("dataset_dir", "raw_dir", "input", "encoder_from")}
    paths["train.runtime.out_dir"] = config.train.runtime.out_dir
    for key, path in paths.items():
        if control := next((letter for letter in path if letter in "\a\b\t\n\v\f\r\x1b"), ""):
            raise Contradiction(
                (key,), f"{key} = {path!r} contains {control!r}: in double quotes, a backslash starts an escape.",
                "Write the path in single quotes, such as 'C:\\new\\text.txt', or with slashes.",
            )  # fmt: skip
        if "\0" in path:
            raise Contradiction(
                (key,), f"{key} contains a zero byte, which no path can have.", "Give the path of a file or folder."
            )
    variant = prepare.variant
    if variant in ("", "..") or PurePath(variant).name != variant or "\0" in variant:
        raise Contradiction(
            ("prepare.variant",), f'"{prepare.variant}" is not a valid dataset name.', "Use letters, digits, - and _."
        )
    if leaves_folder(config.train.runtime.out_dir):
        raise Contradiction(
            ("train.runtime.out_dir",), f'out_dir = "{config.train.runtime.out_dir}" is outside the experiment\'s folder.',
            "Choose a folder inside it, or give an absolute path.",
        )  # fmt: skip


def leaves_folder(path: str) -> bool:
    """Whether a relative path leads out of its folder."""
    return PurePath(os.path.normpath(path)).parts[:1] == ("..",)


def refuse_contradictions(config: Config) -> None:
    """Raise Contradiction for the first pair of settings that exclude each other. Expects defaults to be filled in."""
    model, data, schedule = config.train.model, config.train.data, config.train.schedule
    by_steps = config.train.runtime.max_minutes is None
    assert (
        model.block_size
        and data.block_size
        and schedule.lr_decay_iters is not None
        and schedule.warmup_iters is not None
    )
    if (held_out := config.prepare.val_fraction + (config.prepare.test_fraction or 0)) >= 1:
        raise Contradiction(
            ("prepare.test_fraction", "prepare.val_fraction"), f"val_fraction and test_fraction hold out {held_out:.0%}, so nothing is left to train on.",
            "Lower one of them.",
        )  # fmt: skip
    if config.prepare.columns and config.prepare.format in ("text", "pairs"):
        raise Contradiction(
            ("prepare.columns", "prepare.format"), f'columns name those of a table, and format = "{config.prepare.format}" has none.',
            'Set prepare.format, such as "csv" or "jsonl".',
        )  # fmt: skip
    if model.depth and model.kind != "gpt":
        raise Contradiction(
            ("train.model.depth", "train.model.kind"), f'depth shapes models of kind gpt, and kind = "{model.kind}".',
            "Leave depth out, and give the shape yourself.",
        )  # fmt: skip
    if model.ngram == 1:
        raise Contradiction(
            ("train.model.ngram",), "there is no table of 1-grams.", "Use 2 for a table of pairs of ids, or 0 for none.",
        )  # fmt: skip
    divided = model.head_width == model.n_embd // model.n_head
    if model.kind == "gpt" and divided and model.n_embd % model.n_head:
        raise Contradiction(
            ("train.model.n_embd", "train.model.n_head"), f"n_embd = {model.n_embd} is not divisible by n_head = {model.n_head}.",
            f"Use n_embd = {-(-model.n_embd // model.n_head) * model.n_head}, or an n_head that divides it.",
        )  # fmt: skip
    if model.kind == "gpt" and model.n_kv_head and model.n_head % model.n_kv_head:
        raise Contradiction(
            ("train.model.n_kv_head", "train.model.n_head"), f"n_head = {model.n_head} is not divisible by n_kv_head = {model.n_kv_head}.",
            "Choose an n_kv_head that divides n_head: each key/value head is shared by the same number of query heads.",
        )  # fmt: skip
    if model.kind == "gpt" and model.qk_scale and not model.qk_norm:
        raise Contradiction(
            ("train.model.qk_scale", "train.model.qk_norm"), "qk_scale scales normalised queries and keys, and qk_norm is off.",
            "Set qk_norm = true, or leave qk_scale out.",
        )  # fmt: skip
    if model.kind == "gpt" and model.position == "rope" and (model.head_width or 0) % 2:
        keys = ("train.model.n_embd", "train.model.n_head") if divided else ("train.model.head_width",)
        even = "n_embd and n_head so that n_embd / n_head is even" if divided else "an even head_width"
        raise Contradiction(
            keys, f"rope rotates pairs of channels, but a head has {model.head_width}.",
            f"Choose {even}, or position = \"learned\".",
        )  # fmt: skip
    if stop_when := config.train.runtime.stop_when:
        try:
            read_condition(stop_when)
        except ValueError as error:
            raise Contradiction(
                ("train.runtime.stop_when",), f"train.runtime.stop_when = {error}.",
                f'Write a metric ({", ".join(METRICS)}), a comparison and a number: "val_accuracy >= 0.99".',
            ) from None  # fmt: skip
    if data.block_size > model.block_size:
        raise Contradiction(
            ("train.data.block_size", "train.model.block_size"), f"rows of {data.block_size} tokens do not fit the model's block_size = {model.block_size}.",
            "Lower train.data.block_size, or raise train.model.block_size.",
        )  # fmt: skip
    if by_steps and schedule.warmup_iters and schedule.warmup_iters >= schedule.max_iters:
        raise Contradiction(
            ("train.schedule.warmup_iters", "train.schedule.max_iters"), f"warmup_iters = {schedule.warmup_iters} is not below max_iters = {schedule.max_iters}.",
            f"A tenth of max_iters is common: {schedule.max_iters // 10}.",
        )  # fmt: skip
    if by_steps and schedule.warmup_iters and schedule.lr_decay_iters <= schedule.warmup_iters:
        raise Contradiction(
            ("train.schedule.lr_decay_iters", "train.schedule.warmup_iters"), f"lr_decay_iters = {schedule.lr_decay_iters} is not above warmup_iters = {schedule.warmup_iters}.",
            "Set it to max_iters, or leave it out.",
        )  # fmt: skip
    if config.train.runtime.float8 and (model.kind != "gpt" or config.train.runtime.dtype == "float32"):
        other = "train.runtime.dtype" if model.kind == "gpt" else "train.model.kind"
        raise Contradiction(
            ("train.runtime.float8", other), "float8 is for models of kind gpt with dtype bfloat16.", "Leave float8 out, or change the other.",
        )  # fmt: skip
    refuse_for_jax(config)
    if (optim := config.train.optim).state_dtype != "float32" and optim.name not in ("muon", "adamw"):
        raise Contradiction(
            ("train.optim.state_dtype", "train.optim.name"), f'{optim.name} keeps its state in float32.',
            'Use muon or adamw, or leave state_dtype out.',
        )  # fmt: skip
    if schedule.decay == "step" and schedule.interval is None:
        raise Contradiction(
            ("train.schedule.interval", "train.runtime.max_minutes"), "decay = \"step\" needs an interval where max_minutes ends the run.",
            "Set train.schedule.interval, optimizer steps.",
        )  # fmt: skip
    if schedule.decay == "wsd" and schedule.min_lr == 0:
        raise Contradiction(
            ("train.schedule.min_lr", "train.schedule.decay"), "decay = \"wsd\" falls exponentially, and so never to 0.",
            "Give a min_lr above 0, or leave it out: a tenth of learning_rate.",
        )  # fmt: skip
    if schedule.min_lr is not None and schedule.min_lr > (config.train.optim.learning_rate or 0):
        raise Contradiction(
            ("train.schedule.min_lr", "train.optim.learning_rate"), f"min_lr = {schedule.min_lr:g} is above learning_rate = {config.train.optim.learning_rate:g}.",
            "Lower it, or leave it out.",
        )  # fmt: skip


def refuse_for_jax(config: Config) -> None:
    """Raise Contradiction for what train.runtime.backend = "jax" does not do."""
    train = config.train
    if train.runtime.backend != "jax":
        return
    for key, value, known in (
        ("train.model.kind", train.model.kind, ("gpt",)),
        ("train.objective.kind", train.objective.kind, ("tokens",)),
        ("train.optim.name", train.optim.name, ("muon", "adamw")),
    ):
        if value not in known:
            raise Contradiction(
                ("train.runtime.backend", key), f'JAX does not train with {key} = "{value}".',
                f'Leave backend out, or set {key} = {" or ".join(f"{chr(34)}{each}{chr(34)}" for each in known)}.',
            )  # fmt: skip
    for name in ("compile", "cuda_graphs", "float8", "exact_across"):
        if getattr(train.runtime, name) is True:
            raise Contradiction(
                ("train.runtime.backend", f"train.runtime.{name}"), f'{name} = true is for steps by torch, and backend = "jax".',
                f"Leave {name} out: {'JAX always compiles' if name == 'compile' else 'JAX does not have it'}. Or leave backend out.",
            )  # fmt: skip
