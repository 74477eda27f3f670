"""core.huggingface.to_gguf: llama.cpp computes what we do, and writes the same greedy text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llamacpp import Referee
from test_gpt import build

from core.chat.conversation import SPECIAL
from core.config import Config
from core.defaults import resolve
from core.encoders.base import Encoder
from core.encoders.bpe import BpeEncoder
from core.encoders.bytes import BytesEncoder
from core.encoders.char import CharEncoder
from core.encoders.special import WithSpecialTokens
from core.errors import UserError
from core.huggingface.to_gguf import TYPES, write_gguf
from core.models.gpt import GPT
from core.models.loss import token_loss
from core.sampling.generate import complete

gguf = pytest.importorskip("gguf", reason="gguf is not installed: extra hf")
CHAR = CharEncoder(list("abcdefghij\n"))
WIDTH: dict[str, Any] = {"n_embd": 64, "n_ff": 96}
ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"preset": "llama"}),
    ("llama", {"preset": "llama", "n_kv_head": 1, "rope_base": 50.0, "norm_eps": 0.01, "head_width": 16}),
    ("llama", {"preset": "llama", "norm": "rmsnorm", "tie_weights": True}),
    ("qwen3", {"preset": "portable"}),
    ("qwen3", {"preset": "portable", "head_width": 16, "n_kv_head": 1, "tie_weights": True}),
    ("qwen3", {"preset": "llama", "qk_norm": True}),
    ("qwen2", {"preset": "llama", "qkv_bias": True}),
    ("arcee", {"preset": "llama", "activation": "relu2"}),
    ("gpt2", {"preset": "gpt2", "bias": True, "activation": "gelu_tanh"}),
    ("gpt2", {"preset": "gpt2", "activation": "gelu_tanh", "tie_weights": False, "norm_eps": 0.01}),
]


def export(model: GPT, folder: Path, encoder: Encoder = CHAR, kind: str = "f32", begin: int | None = None) -> list[str]:
    folder.mkdir(exist_ok=True)
    return write_gguf(model, encoder, folder, begin=begin, title="tiny", kind=kind)


def assert_same_odds(model: GPT, found: Any, prompt: list[int], atol: float) -> None:
    """llama.cpp's likeliest tokens, in the place after each one that it wrote, are as likely for us."""
    ids = torch.tensor([prompt + found.ids])
    with torch.no_grad():
        ours = torch.log_softmax(model(ids)[0, len(prompt) - 1 : -1], dim=-1)
    for step, likely in enumerate(found.likely):
        assert step < len(ours)
        for token, theirs in likely.items():
            assert theirs == pytest.approx(ours[step, token].item(), abs=atol), (step, token)


@pytest.mark.parametrize(("name", "keys"), ARCHITECTURES, ids=str)
def test_llama_cpp_computes_the_same_odds(tmp_path: Path, name: str, keys: dict[str, Any]) -> None:
    model = build(noise=0.3, **WIDTH | keys)
    assert export(model, tmp_path) == []
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.fields["general.architecture"].contents() == name
    # llama.cpp's gelu is a table of 16-bit numbers.
    found = Referee(tmp_path / "model.gguf").write("abcj\nef", 9)
    assert found.prompt == 7 and len(found.ids) == 9
    assert_same_odds(model, found, [0, 1, 2, 9, 10, 4, 5], 5e-3 if name == "gpt2" else 1e-4)


def trained(encoder: Encoder, text: str, steps: int, **keys: Any) -> GPT:
    """A small model that has learnt enough of a text not to repeat one token."""
    model = {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_ff": 128, "block_size": 64, **keys}
    config = resolve(Config.model_validate({"train": {"model": model}})).train.model
    torch.manual_seed(1)
    made = GPT(config, encoder.vocab_size)
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    ids = torch.tensor(encoder.encode(text).astype(np.int64))
    for _ in range(steps):
        starts = torch.randint(0, len(ids) - 33, (16,))
        rows = torch.stack([ids[start : start + 33] for start in starts.tolist()])
        nats, count = token_loss(made(rows[:, :-1]), rows[:, 1:])
        optimizer.zero_grad()
        (nats / count).backward()
        optimizer.step()
    return made.eval()


TEXT = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("preset", "encoder"),
    [
        ("portable", BpeEncoder.fit([TEXT], vocab_size=320)),
        ("llama", BpeEncoder.fit([TEXT], vocab_size=320, split_pattern="gpt4")),
        ("portable", BytesEncoder()),
        ("llama", CharEncoder.fit([TEXT])),
        ("gpt2", BpeEncoder.fit([TEXT], vocab_size=320)),
    ],
    ids=["portable bpe", "llama gpt4", "portable bytes", "llama char", "gpt2 bpe"],
)
def test_greedy_text_is_equal_for_fifty_prompts(tmp_path: Path, preset: str, encoder: Encoder) -> None:
    # llama.cpp's gelu is the approximation, from a table of 16-bit numbers.
    keys, atol = ({"activation": "gelu_tanh"}, 5e-3) if preset == "gpt2" else ({}, 1e-4)
    model = trained(encoder, TEXT, 120, preset=preset, **keys)
    export(model, tmp_path, encoder)
    referee, words = Referee(tmp_path / "model.gguf"), TEXT.split(" ")
    prompts = [" ".join(words[start : start + 3]) for start in range(0, 50 * 11, 11)]
    for prompt in prompts:
        ids = encoder.encode(prompt).tolist()
        found = referee.write(prompt, 16)
        assert found.prompt == len(ids), prompt  # they count the same tokens
        (ours,) = complete(model, encoder, [prompt], max_new_tokens=16, temperature=0)
        assert found.text.rstrip("\ufffd") == ours.rstrip("\ufffd")
        assert_same_odds(model, found, ids, atol)
    assert len({referee.write(prompt, 16).text for prompt in prompts[:10]}) > 3


@pytest.mark.parametrize(("kind", "atol"), list(zip(TYPES, (1e-5, 2e-3, 2e-2, 5e-2), strict=True)))
def test_precisions(tmp_path: Path, kind: str, atol: float) -> None:
    model = build(preset="portable", **WIDTH)
    assert export(model, tmp_path, kind=kind) == []
    stored = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert stored == {"F32", kind.upper()}
    assert_same_odds(model, Referee(tmp_path / "model.gguf").write("abcde", 6), [0, 1, 2, 3, 4], atol)


def test_rows_that_do_not_fit_blocks_stay_whole(tmp_path: Path) -> None:
    model = build(preset="portable", n_embd=64, n_ff=80)
    assert export(model, tmp_path, kind="q8_0") == [
        "2 matrices are f32: their rows are no multiple of 32, as q8_0 needs."
    ]


def test_numbers_that_f16_cannot_hold_are_refused(tmp_path: Path) -> None:
    model = build(preset="portable", **WIDTH)
    with torch.no_grad():
        model.lm_head.weight[3, 4] = 1e5
    with pytest.raises(
        UserError, match=r"output\.weight has a number of 1e\+05, and f16 ends at 65,504\n  Write bf16 or f32."
    ):
        export(model, tmp_path, kind="f16")
    assert not list(tmp_path.iterdir())


def test_the_exact_gelu_is_remarked_on(tmp_path: Path) -> None:
    model = build(preset="gpt2", **WIDTH)
    (remark,) = export(model, tmp_path)
    assert "approximation (tanh)" in remark and 'train.model.activation = "gelu_tanh"' in remark
    assert_same_odds(model, Referee(tmp_path / "model.gguf").write("abcde", 6), [0, 1, 2, 3, 4], 1e-2)


@pytest.mark.parametrize("keys", [{"preset": "modern"}, {"preset": "llama", "window": 3}, {"preset": "gpt2", "position": "alibi"}], ids=str)  # fmt: skip
def test_a_feature_without_a_counterpart_is_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"llama\.cpp has no model with"):
        export(build(**keys), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_pattern_of_ones_own_is_refused(tmp_path: Path) -> None:
    encoder = BpeEncoder.fit([TEXT], vocab_size=260, split_pattern=r"\w+|\W")
    with pytest.raises(UserError, match=r"llama\.cpp has no name for the pattern that cuts text") as caught:
        export(build(preset="llama"), tmp_path, encoder)
    assert caught.value.place == "prepare.split_pattern" and "one of gpt2, gpt4" in caught.value.remedy


def test_special_tokens_and_the_template_are_in_the_file(tmp_path: Path) -> None:
    encoder = WithSpecialTokens(CharEncoder(list("abc")), SPECIAL)
    model = GPT(build(preset="llama").config, encoder.vocab_size)
    export(model, tmp_path, encoder, begin=encoder.special["<|bos|>"])
    fields = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "model.gguf").fields.items()}
    assert fields["tokenizer.ggml.tokens"] == ["a", "b", "c", *SPECIAL]
    assert fields["tokenizer.ggml.token_type"] == [1] * 3 + [3] * 7
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (3, 9)
    assert fields["tokenizer.ggml.add_bos_token"] is True and "<|assistant|>" in fields["tokenizer.chat_template"]


def test_without_the_package_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match="Export to GGUF needs the package gguf") as caught:
        export(build(preset="llama"), tmp_path)
    assert "pip install -c constraints.txt -e '.[hf]'" in caught.value.remedy
