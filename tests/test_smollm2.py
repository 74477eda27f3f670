"""A real pretrained model: SmolLM2-135M-Instruct comes in, writes what llama.cpp writes, talks, and is trained further."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tokenizer_folders import smollm2

pytest.importorskip("gguf", reason="gguf is not installed: extra hf")
pytestmark = pytest.mark.slow
Terrarium = Callable[..., Result]
PREPARE = '''"""Sums, for a pretrained chat model."""

from core import Conversation, Message


def documents():
    for a in range(2, 20):
        for b in range(2, 12):
            yield Conversation([Message("user", f"What is {a} plus {b}?"), Message("assistant", f"{a} plus {b} is {a + b}.")])
'''
CONFIG = """[prepare]
special_tokens = "chat"

[train.data]
block_size = 64
batch_size = 4

[train.optim]
learning_rate = 1e-4

[train.schedule]
max_iters = 20

[train.runtime]
device = "cpu"
dtype = "float32"
attention = "sdpa"
threads = 1
eval_interval = 20
trackers = []
"""
PROMPTS = (
    "The capital of France is", "Once upon a time", "def add(a, b):", "Water boils at", "The opposite of hot is",
    "The largest planet is", "import numpy as", "Dear Sir or Madam,", "1, 2, 3, 4,", "In the year 1969,", "She opened the door and",
    "Photosynthesis is", "SELECT name FROM", "Der Himmel ist", "To be, or not to be,", "My favourite recipe is", "The moon", "Q: What is 7 + 5?\nA:",
    "# Introduction\n\n", "Zürich — “quoted”", "for i in range(10):\n    ", "Breaking news:", "A list of fruits:\n- ", "Because", "http://www.",
)  # fmt: skip


@pytest.fixture
def smol(lab: Path, terrarium: Terrarium) -> Path:
    """An experiment with the imported run `smollm2`."""
    folder = lab / "smol"
    folder.mkdir()
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(CONFIG)
    done = terrarium(
        "import", "smol", "--from", "gguf", smollm2(), "--run", "smollm2", "-s", "train.model.block_size=256"
    )
    assert done.exit_code == 0, done.output
    assert "made for 8,192 tokens of context. The run has 256" in done.output
    return folder


def completion(terrarium: Terrarium, prompt: str) -> str:
    done = terrarium("sample", "smol", "--run", "smollm2", "--temperature", "0", "--start", prompt, "--max-new-tokens", "24", "--num-samples", "1", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    sample: dict[str, Any] = json.loads(done.stdout)["samples"][0]
    return str(sample["text"]).removeprefix(prompt)


def test_it_writes_what_llama_cpp_writes_talks_and_learns(smol: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    """llama.cpp reads our file in float32. With the original one, of 4 bits, it also rounds what flows through the model."""
    from llamacpp import Referee

    from core.cli.main import cli
    from core.lab.model import load_model
    from core.lab.opened import open_folder
    from core.lab.stages import trained_as
    from core.sampling.generate import complete

    done = terrarium("export", "smol", "--run", "smollm2", "--to", "gguf", "--type", "f32", str(tmp_path / "f32"))
    assert done.exit_code == 0, done.output
    exported = Referee(tmp_path / "f32" / "model.gguf", 128)
    assert exported.write(PROMPTS[0], 24).text == completion(terrarium, PROMPTS[0])
    model = load_model(*trained_as(open_folder("smol"), "smollm2", ""))
    ours = complete(model.module, model.encoder, PROMPTS, max_new_tokens=16, temperature=0)
    for prompt, text in zip(PROMPTS, ours, strict=True):
        assert exported.write(prompt, 16).text.rstrip("\ufffd") == text.rstrip("\ufffd"), prompt
    lines = "My name is Ada.\nWhat is the capital of France?\nThank you!\n"
    talked = CliRunner().invoke(cli, ["chat", "smol", "--run", "smollm2", "-s", "sample.sample.temperature=0", "-s", "sample.sample.max_new_tokens=30"], input=lines)  # fmt: skip
    assert talked.exit_code == 0 and "Paris" in talked.output, talked.output
    before = json.loads(terrarium("evaluate", "smol", "--run", "smollm2", "--json").stdout)
    trained = terrarium("train", "smol", "--variant", "smollm2", "--run", "tuned")
    assert trained.exit_code == 0, trained.output
    summary = json.loads((smol / "out" / "tuned" / "summary.json").read_text())
    assert summary["steps"] == 20 and summary["best_val_loss"] < 0.8 * before["val_loss"]
