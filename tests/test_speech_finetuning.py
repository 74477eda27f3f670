"""The variants of the experiments with speeches that finetune a pretrained model, with a tiny one that is made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from pretrained import IDS, make_base, needs
from protocols import EXPERIMENTS, write_sessions

from core.corpora.finetuning import content_of_tokenizer_json
from core.corpora.invented import invented_speeches
from core.encoders.bpe import BpeEncoder

needs("transformers", "peft")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 2 layers in a folder, with a tokenizer that is learnt from invented speeches."""
    folder = make_base(tmp_path_factory.mktemp("base") / "tiny", "qwen2")
    encoder = BpeEncoder.fit([each.text for each in invented_speeches(1)][:40], vocab_size=IDS)
    (folder / "tokenizer.json").write_text(str(content_of_tokenizer_json(encoder)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("bundestag_finetuning_mps", "small"),
        pytest.param("bundestag_finetuning_mps", "lora", marks=pytest.mark.slow),
        pytest.param("bundestag_qwen15b_lora_mps", "qwen15b", marks=pytest.mark.slow),
        pytest.param("bundestag_qwen15b_lora_mps", "small", marks=pytest.mark.slow),
        pytest.param("speakger", "gemma", marks=pytest.mark.slow),
    ],
)
def test_a_variant_finetunes_a_base_model(
    lab: Path, terrarium: Callable[..., Result], base: Path, tmp_path: Path, name: str, variant: str
) -> None:
    """From protocols to a report. The tokenizer is that of the base model, and the adapters are there."""
    source = write_sessions(tmp_path / "raw", 8, speeches=20)
    assert terrarium("new", "tiny", "--from", str(EXPERIMENTS / name)).exit_code == 0
    settings = [
        f"prepare.params.source={source}", f"train.model.params.name={base}", "train.model.block_size=32", "max_iters=2", "eval_interval=1",
        "train.data.grad_accum_steps=1", "sample.sample.max_new_tokens=10", 'train.runtime.device="cpu"',
    ]  # fmt: skip
    result = terrarium("loop", "tiny", "--variant", variant, *settings)
    assert result.exit_code == 0, result.output
    run = lab / "tiny" / "out" / variant
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["bits_per_byte"] > 0
    assert {path.name for path in (run / "adapters").iterdir()} == {"best", "last", "final"}
    config = json.loads((run / "adapters" / "best" / "adapter_config.json").read_text())
    assert config["r"] == 8 and config["lora_alpha"] == 16 and config["lora_dropout"] == 0.05
    dataset = lab / "tiny" / "datasets" / variant
    if name != "speakger":
        kept = json.loads((dataset / "tokenizer" / "tokenizer.json").read_text())
        assert kept["model"]["vocab"] == json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
