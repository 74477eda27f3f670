"""core.models.nanogpt: weights travel to nanoGPT and back unchanged, and what is no checkpoint is named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config import Config
from core.defaults import resolve
from core.errors import UserError
from core.models.gpt import GPT
from core.models.nanogpt import export_checkpoint, import_checkpoint

SHAPE: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 6}


def build(vocab_size: int = 7, **keys: Any) -> GPT:
    config = resolve(Config.model_validate({"train": {"model": {"preset": "gpt2", **SHAPE, **keys}}}))
    torch.manual_seed(0)
    return GPT(config.train.model, vocab_size)


def checkpoint(**changes: Any) -> dict[str, Any]:
    """What nanoGPT's train.py saves, with its names."""
    model = build()
    content = {
        "model": dict(model.state_dict()),
        "model_args": {**SHAPE, "bias": False, "vocab_size": 7, "dropout": 0.0},
        "optimizer": {},
        "iter_num": 250,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare_char"},
    }
    return {**content, **changes}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        import_checkpoint(path)
    assert caught.value.place == str(path)
    assert "ckpt.pt" in caught.value.remedy
    return caught.value.message


@pytest.mark.parametrize("bias", [False, True])
def test_there_and_back(tmp_path: Path, bias: bool) -> None:
    model = build(bias=bias, dropout=0.1)
    export_checkpoint(model, tmp_path / "ckpt.pt", step=40, best_val_loss=2.5)
    read = import_checkpoint(tmp_path / "ckpt.pt")
    assert read.model == {"kind": "gpt", "preset": "gpt2", **SHAPE, "bias": bias, "dropout": 0.1}
    assert (read.vocab_size, read.step, read.best_val_loss) == (7, 40, 2.5)
    copy = build(bias=bias)
    copy.load_state_dict(read.state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, copy.state_dict()[name]), name


def test_names_of_a_compiled_model_and_its_mask_buffer(tmp_path: Path) -> None:
    content = checkpoint()
    state = {f"_orig_mod.{name}": tensor for name, tensor in content["model"].items()}
    state["_orig_mod.transformer.h.0.attn.bias"] = torch.ones(1, 1, 6, 6)
    torch.save({**content, "model": state}, tmp_path / "ckpt.pt")
    read = import_checkpoint(tmp_path / "ckpt.pt")
    assert read.best_val_loss == 1.5
    build().load_state_dict(read.state)


def test_export_has_what_nanogpt_resumes_from(tmp_path: Path) -> None:
    model = build(bias=True)
    export_checkpoint(model, tmp_path / "ckpt.pt", settings={"dataset": "basic"})
    content = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    assert content.keys() == checkpoint().keys()
    assert content["config"] == {"dataset": "basic"}
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": plain}])
    optimizer.load_state_dict(content["optimizer"])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize("key", ["post_norm", "ff_bias", "head_bias"])
def test_what_only_params_ask_for_is_not_exported(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"nanoGPT has no model with {key}") as error:
        export_checkpoint(GPT(build().config, 7, **{key: True}), tmp_path / "ckpt.pt")
    assert error.value.place == f"train.model.params.{key}"
    assert error.value.remedy == "Train without that key."
    assert not (tmp_path / "ckpt.pt").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm": "rmsnorm"}, "nanoGPT has no model with norm = 'rmsnorm', only 'layernorm'"),
        ({"tie_weights": False}, "nanoGPT has no model with tie_weights = False, only True"),
        ({"ngram": 2}, "nanoGPT has no model with ngram = 2, only 0"),
        ({"n_ff": 12}, "nanoGPT has no model with n_ff = 12, only 32"),
        ({"n_kv_head": 1}, "nanoGPT has no model with n_kv_head = 1, only 2"),
        ({"norm_eps": 1e-6}, "nanoGPT has no model with norm_eps = 1e-06, only 1e-05"),
        ({"position": "alibi"}, "nanoGPT has no model with position = 'alibi', only 'learned'"),
        ({"position": "none"}, "nanoGPT has no model with position = 'none', only 'learned'"),
        ({"window": 4}, "nanoGPT has no model with window = 4, only 0"),
    ],
)
def test_export_of_another_architecture(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        export_checkpoint(build(**keys), tmp_path / "ckpt.pt")
    assert caught.value.message == message
    assert caught.value.place == f"train.model.{next(iter(keys))}"
    assert caught.value.remedy == 'Train with train.model.preset = "gpt2" and leave that key out.'
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt") == "cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x03\x04 not a zip", pickle.dumps({"model": 1}), pickle.dumps([1])]
)
def test_file_that_is_no_checkpoint(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ckpt.pt").write_bytes(data)
    assert refusal(tmp_path / "ckpt.pt").startswith("no nanoGPT checkpoint: ")


def test_truncated_file(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "ckpt.pt")
    whole = (tmp_path / "ckpt.pt").read_bytes()
    (tmp_path / "ckpt.pt").write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path / "ckpt.pt").startswith("no nanoGPT checkpoint: ")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint(config=Harmful()), "ckpt.pt")
    assert refusal(Path("ckpt.pt")).startswith("no nanoGPT checkpoint: ")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "no nanoGPT checkpoint: it has no 'model' and 'model_args'"),
        (
            {"model_args": {"n_layer": 2}},
            "no nanoGPT checkpoint: model_args lacks n_head, n_embd, block_size, vocab_size",
        ),
        (
            {"model_args": {**SHAPE, "bias": False, "vocab_size": 8}},
            "tensor lm_head.weight is of shape (7, 8), but model_args ask for one of shape (8, 8)",
        ),
        (
            {"model_args": {**SHAPE, "bias": True, "vocab_size": 7}},
            "tensor transformer.h.0.attn.c_attn.bias is missing, but model_args ask for one of shape (24,)",
        ),
        ({"model_args": {**SHAPE, "n_layer": 1, "bias": False, "vocab_size": 7}}, "but model_args ask for none"),
        ({"model_args": {**SHAPE, "n_head": 0, "bias": False, "vocab_size": 7}}, "model_args describe no GPT: "),
        ({"model_args": {**SHAPE, "bias": False, "vocab_size": -1}}, "model_args describe no GPT: "),
    ],
    ids=str,
)
def test_checkpoint_that_contradicts_itself(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    torch.save(checkpoint(**changes), tmp_path / "ckpt.pt")
    assert message in refusal(tmp_path / "ckpt.pt")
