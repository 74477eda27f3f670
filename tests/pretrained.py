"""Tiny pretrained models, made on the spot, and an experiment that finetunes one. Nothing is downloaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import PREPARE, TINY

IDS, CONTEXT = 300, 64
SIZES = "n_layer = 1\nn_head = 2\nn_embd = 16\nblock_size = 16\n"


def needs(*packages: str) -> None:
    """Skip a test file where a package of the extra hf is absent."""
    for package in packages:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(package, reason=f"needs the extra hf: {package}")


def make_base(folder: Path, kind: str = "llama", seed: int = 0, **more: Any) -> Path:
    """A random causal language model of transformers, 2 layers of 32 channels, with large weights so that its texts vary."""
    import torch
    import transformers

    common: dict[str, Any] = {"vocab_size": IDS, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if kind == "gpt2":
        sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": CONTEXT}
    else:
        sizes = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "initializer_range": 0.2, "tie_word_embeddings": True,
        }  # fmt: skip
    classes = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gpt2": "GPT2"}
    config = getattr(transformers, f"{classes[kind]}Config")(**common | sizes | more)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return folder


def make_gguf(folder: Path, encoder: Any, **keys: Any) -> Path:
    """A random GPT as a GGUF file that our own export has written, with its tokenizer."""
    import torch
    from test_gpt import config_of

    from core.huggingface.to_gguf import write_gguf
    from core.models.gpt import GPT

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT(config_of("llama", **{"n_embd": 32, "n_ff": 64, "block_size": 32} | keys), encoder.vocab_size)
        for each in model.parameters():
            torch.nn.init.normal_(each, std=0.2)
    write_gguf(model, encoder, folder, begin=None, title="tiny", kind="f32")
    return folder / "model.gguf"


def make_experiment(lab: Path, base: Path, params: str = "", name: str = "fine") -> Path:
    """The tiny experiment of the tests, with a pretrained model in place of ours. params: more lines of [train.model.params]."""
    folder = lab / name
    folder.mkdir()
    (folder / "prepare.py").write_text(PREPARE)
    model = f'kind = "hf"\nblock_size = 16\nparams.name = {str(base)!r}\n{params}'
    (folder / "config.toml").write_text(TINY.replace(SIZES, model) + "\n[train.optim]\nlearning_rate = 0.01\n")
    return folder


def with_adapter(base: Any, adapter: Path) -> Any:
    """A base with an adapter, loaded by transformers and peft alone. base: a folder, or a model."""
    import peft
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft still calls by an old name in transformers
        model = transformers.AutoModelForCausalLM.from_pretrained(base) if isinstance(base, Path) else base
        return peft.PeftModel.from_pretrained(model, str(adapter)).eval()
