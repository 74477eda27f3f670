"""What the tests of core.data share: write an experiment folder, and prepare it."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.dataset import Dataset
from core.data.pipeline import prepare
from core.errors import UserError
from core.listener import SILENT, Listener, Silent
from core.plugins.code import load_code
from core.plugins.discovery import Experiment
from core.plugins.manager import plugins_with
from core.toml import load_config

SPACES = '''"""Spaces between letters."""
from core import Example


def documents(rng, *, alphabet: str = "abc", max_letters: int = 3):
    while True:
        letters = rng.choices(alphabet, k=rng.randint(1, max_letters))
        yield Example("".join(letters) + ": ", " ".join(letters) + "\\n", group=f"{len(letters)} letters")
'''
SMALL = "[prepare]\nsize = 3000\n"
FROM_FILE = '[prepare]\ninput = "input.txt"\n'
TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n" * 20


class Told(Silent):
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def write(folder: Path, code: str = "", config: str = "") -> Path:
    """An experiment folder with a prepare.py (unless code is empty) and a config.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    if code:
        (folder / "prepare.py").write_text(code, encoding="utf-8")
    (folder / "config.toml").write_text(config, encoding="utf-8")
    return folder


def run(
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    force: bool = False,
    listener: Listener = SILENT,
) -> Dataset:
    """Prepare as the command line does it."""
    experiment = Experiment(folder)
    config, settings = load_config(folder, "", overrides)
    for name in [name for name in sys.modules if name.startswith("terrarium_experiment_")]:
        del sys.modules[name]  # a test edits prepare.py, as a user does between two processes
    return prepare(experiment, config, settings, plugins_with(load_code(experiment)), force=force, listener=listener)


def examples_code(pairs: Sequence[tuple[str, str]]) -> str:
    """A prepare.py that yields these Examples."""
    return f"from core import Example\n\ndef documents():\n    for pair in {list(pairs)!r}:\n        yield Example(*pair)\n"


def texts_code(texts: Sequence[str]) -> str:
    """A prepare.py that yields these strings."""
    return f"def documents():\n    yield from {list(texts)!r}\n"


def nanogpt(text: str) -> dict[str, Any]:
    """What nanoGPT's data/shakespeare_char/prepare.py leaves for a text."""
    characters = sorted(set(text))
    stoi = {character: number for number, character in enumerate(characters)}
    cut = int(len(text) * 0.9)
    return {
        "train.bin": np.array([stoi[c] for c in text[:cut]], dtype=np.uint16).tobytes(),
        "val.bin": np.array([stoi[c] for c in text[cut:]], dtype=np.uint16).tobytes(),
        "meta.pkl": {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": stoi},
    }


def error_of(folder: Path, *overrides: str, **options: Any) -> UserError:
    with pytest.raises(UserError) as error:
        run(folder, overrides, **options)
    assert not list(folder.rglob(".tmp-*"))
    assert not list(folder.rglob(".spool"))
    return error.value


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "dataset.json"}


def prepared(folder: Path, *overrides: str) -> bool:
    """Whether prepare found something to do."""
    told = Told()
    run(folder, overrides, listener=told)
    return any("preparing" in sentence for sentence in told.said)


def nanogpt_folder(folder: Path, text: str = TEXT) -> Path:
    """nanoGPT's three files."""
    folder.mkdir(parents=True)
    made = nanogpt(text)
    (folder / "train.bin").write_bytes(made["train.bin"])
    (folder / "val.bin").write_bytes(made["val.bin"])
    (folder / "meta.pkl").write_bytes(pickle.dumps(made["meta.pkl"]))
    return folder
