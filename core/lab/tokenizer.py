"""Measure encoders on texts of several kinds: how many bytes a token holds, what is never used, how fast they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.data.dataset import BLOCK, Dataset, Split, load_dataset
from core.encoders.base import Encoder
from core.errors import UserError, did_you_mean
from core.lab.opened import Opened, open_folder
from core.lab.pipeline import prepare_all
from core.lab.stages import at_stage
from core.plugins.discovery import discover, is_experiment
from core.plugins.manager import Plugins, plugins

TEXTS = Path(__file__).parent / "tokenizer_texts"
CATEGORIES = ("news", "code", "digits", "german", "korean")
SIDES = ("train", "val")
PARTS, PART = 16, 8192  # of a side: so many parts, evenly spread, of so many tokens
FIXED = ("bytes", "gpt2")  # kinds of encoders that need not learn anything
FILE, FILES = "tokenizer.json", (".json", ".gguf")  # of pretrained tokenizers
TIMED = 0.2  # seconds that the speed is measured for, at least


@dataclass(frozen=True)
class Measured:
    """What was found about an encoder. All texts are counted in UTF-8.

    bytes_per_token, tokens_per_word: by category of text. cannot: category -> why the encoder cannot encode it. exact:
    whether every text that it can encode comes back as it was. unused: share of the vocabulary that the training side of its
    own dataset never uses; None without one. megabytes_per_second: of encoding the training text; None if it cannot.
    """

    name: str
    kind: str
    vocab_size: int
    bytes_per_token: dict[str, float] = field(default_factory=dict)
    tokens_per_word: dict[str, float] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)
    exact: bool = True
    unused: float | None = None
    megabytes_per_second: float | None = None


def measure_tokenizers(opened: Opened, against: Sequence[str] = ()) -> list[Measured]:
    """Measure the experiment's encoder, then others: the folder of a dataset or an experiment, the name of an experiment,
    a kind that learns nothing ("bytes", "gpt2"), or a pretrained tokenizer: its folder, its tokenizer.json, a GGUF file.

    Makes the experiment's dataset, of the first stage if there are stages, if that is missing or old. Raises UserError for
    an unknown name, for a folder without an encoder, and for one that has no dataset yet.
    """
    first = opened.stages[0].name if opened.stages else ""
    dataset = prepare_all(opened, first)[first]
    found: list[tuple[str, Encoder, Dataset | None]] = [(opened.experiment.name, dataset.encoder, dataset)]
    found += [named_encoder(name, opened.plugins) for name in against]
    texts = {name: (TEXTS / f"{name}.txt").read_text(encoding="utf-8") for name in CATEGORIES}
    texts |= {side: text_of(dataset.side(side), dataset.encoder) for side in SIDES}  # type: ignore[arg-type]
    return [measured(name, encoder, own, texts) for name, encoder, own in found]


def named_encoder(name: str, known: Plugins) -> tuple[str, Encoder, Dataset | None]:
    """An encoder to compare with, and its dataset if it has one. Raises UserError."""
    if name in FIXED:
        return name, known.get("encoders", name, "against").fit([], vocab_size=0), None
    folder = Path(name).expanduser()
    if folder.suffix in FILES or (folder / FILE).is_file():
        return name.rstrip("/"), known.get("encoders", "hf", "against").fit([], tokenizer=name), None
    if folder.is_dir() and not (is_experiment(folder.resolve()) and not (folder / "train.bin").is_file()):
        dataset = load_dataset(folder, plugins())
        return name.rstrip("/"), dataset.encoder, dataset
    names = [experiment.name for experiment in discover()]
    if not folder.is_dir() and name not in names:
        raise UserError(
            f"{name!r} is neither a folder, nor a tokenizer's file, nor an experiment, nor one of {', '.join(FIXED)}",
            place="against",
            remedy=did_you_mean(name, [*names, *FIXED]),
        )
    other = open_folder(name)
    first = at_stage(other, other.stages[0]) if other.stages else other
    place = other.experiment.path(first.config.prepare.dataset_dir)
    if not (place / "train.bin").is_file():
        remedy = f"Prepare it first: {other.experiment.command.format('prepare')}"
        raise UserError(f"{name} has no dataset yet, and so no encoder", place=str(place), remedy=remedy)
    dataset = load_dataset(place, other.plugins)
    return name, dataset.encoder, dataset


def text_of(split: Split, encoder: Encoder) -> str:
    """Text of a side: all of it, or parts that are evenly spread over it."""
    if split.tokens <= PARTS * PART:
        return encoder.decode(split.ids.tolist())
    begins = np.linspace(0, split.tokens - PART, PARTS).astype(int)
    return "".join(encoder.decode(split.ids[begin : begin + PART].tolist()) for begin in begins)


def measured(name: str, encoder: Encoder, dataset: Dataset | None, texts: Mapping[str, str]) -> Measured:
    """What texts by category say about an encoder."""
    found: dict[str, Any] = {"bytes_per_token": {}, "tokens_per_word": {}, "cannot": {}}
    exact = True
    for category, text in texts.items():
        try:
            ids = encoder.encode(text)
        except UserError as error:
            found["cannot"][category] = error.message
            continue
        if len(ids):
            found["bytes_per_token"][category] = len(text.encode()) / len(ids)
            found["tokens_per_word"][category] = len(ids) / max(len(text.split()), 1)
        exact = exact and encoder.decode(ids.tolist()) == text
    speed = None if "train" in found["cannot"] else megabytes_per_second(encoder, texts["train"])
    unused = None if dataset is None else unused_share(dataset)
    return Measured(
        name, encoder.kind, encoder.vocab_size, **found, exact=exact, unused=unused, megabytes_per_second=speed
    )


def unused_share(dataset: Dataset) -> float:
    """The share of the ids that the training side never has."""
    used = np.zeros(dataset.encoder.vocab_size, bool)
    for begin in range(0, dataset.train.tokens, BLOCK):
        used[dataset.train.ids[begin : begin + BLOCK]] = True
    return float(1 - used.mean())


def megabytes_per_second(encoder: Encoder, text: str) -> float:
    """How fast a text is encoded, the fastest of several times."""
    size, fastest, begin = len(text.encode()) / 1e6, float("inf"), time.perf_counter()
    while time.perf_counter() - begin < TIMED:
        before = time.perf_counter()
        encoder.encode(text)
        fastest = min(fastest, time.perf_counter() - before)
    return size / fastest if size else 0.0
