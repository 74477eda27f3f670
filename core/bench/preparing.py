"""Measure the speed of `prepare` on generated text, in megabytes per second."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.data.dataset import Dataset
from core.data.pipeline import prepare
from core.plugins.discovery import Experiment
from core.plugins.manager import plugins
from core.toml import load_config

MB = 1_000_000


def write_text(path: Path, megabytes: int) -> None:
    """Write generated text of this size, always the same: lines of Zipf-distributed words, some of them not ASCII."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    odds = np.arange(30, 4, -1) / np.arange(30, 4, -1).sum()
    words = ["".join(random.choice(letters, size=length, p=odds)) for length in random.integers(1, 12, size=50_000)]
    words += [word.capitalize() for word in words[:5_000]] + ["naïve", "“So”", "—", "1999,", "it's", "end."] * 20
    table = np.array(words, dtype=object)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * MB:
            drawn = table[(random.zipf(1.3, size=120_000) * 7919) % len(table)]
            file.write("".join(" ".join(line) + "\n" for line in drawn.reshape(-1, 12)))
        file.truncate(megabytes * MB)


def write_experiment(folder: Path, megabytes: int) -> None:
    """Write an experiment with generated text."""
    write_text(folder / "input.txt", megabytes)
    (folder / "config.toml").write_text('[prepare]\ninput = "input.txt"\n')


def warm_up(encoder: str) -> None:
    """Use an encoder once, so that it loads what it needs."""
    plugins().get("encoders", encoder, "").fit(["warm up"], vocab_size=1024).encode_batch(["warm", "up"])


def prepare_timed(folder: Path, encoder: str, *, force: bool) -> tuple[Dataset, float]:
    """Prepare the dataset. Returns it and the seconds it took. force: even if it is current."""
    config, settings = load_config(folder, "", [f"prepare.encoder={encoder}"])
    begin = time.perf_counter()
    dataset = prepare(Experiment(folder), config, settings, plugins(), force=force)
    return dataset, time.perf_counter() - begin


def preparing_speed(encoder: str, megabytes: int) -> dict[str, Any]:
    """megabytes_per_second of UTF-8 text, from a file to a dataset, learning the encoder included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_experiment(folder, megabytes)
        warm_up(encoder)
        _, seconds = prepare_timed(folder, encoder, force=True)
    return {"megabytes_per_second": megabytes / seconds, "megabytes": megabytes, "seconds": seconds}
