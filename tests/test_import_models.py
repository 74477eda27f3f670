"""core.huggingface.from_hf and from_gguf: models that others wrote compute here what they compute there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_export_hf import CHAR
from test_gpt import build

from core.config import Data, Model, Sampling
from core.defaults import resolved_model
from core.errors import UserError
from core.huggingface.from_gguf import read_gguf
from core.huggingface.from_hf import read_hf
from core.huggingface.to_gguf import write_gguf
from core.huggingface.to_hf import write_hf
from core.models.foreign import ForeignModel
from core.models.gpt import GPT

transformers = pytest.importorskip("transformers", reason="transformers is not installed: extra hf")
gguf = pytest.importorskip("gguf", reason="gguf is not installed: extra hf")
WIDTH: dict[str, Any] = {"n_embd": 64, "n_ff": 96}


def made(read: ForeignModel) -> GPT:
    """The model that was read, with every weight from the file."""
    model = GPT(resolved_model(Model(**read.model), Data()), read.vocab_size)
    lacks, more = model.load_state_dict(read.state, strict=False)
    assert (set(lacks) <= {"lm_head.weight"} if read.model["tie_weights"] else not lacks) and not more
    return model.eval()


def tokens() -> torch.Tensor:
    return torch.randint(0, 11, (2, 16), generator=torch.Generator().manual_seed(2))


def theirs(name: str, **keys: Any) -> Any:
    """A model of transformers, with weights off their start."""
    sizes = {"vocab_size": 11, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 24}  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**({} if name == "GPT2" else sizes) | keys)
    torch.manual_seed(4)
    model = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


TINY_GPT2 = {"vocab_size": 11, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
THEIRS: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {"num_key_value_heads": 2, "rope_theta": 500.0, "rms_norm_eps": 1e-3}),
    ("Llama", {"tie_word_embeddings": True, "head_dim": 16}),
    ("Qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    ("Qwen3", {"num_key_value_heads": 1, "head_dim": 16}),
    ("Arcee", {"num_key_value_heads": 2}),
    ("GPT2", TINY_GPT2),
    ("GPT2", TINY_GPT2 | {"activation_function": "gelu", "n_inner": 40, "layer_norm_epsilon": 1e-3}),
]


@pytest.mark.parametrize(("name", "keys"), THEIRS, ids=str)
def test_models_of_transformers_compute_the_same(tmp_path: Path, name: str, keys: dict[str, Any]) -> None:
    model = theirs(name, **keys)
    model.save_pretrained(tmp_path)
    ours = made(read_hf(tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens()), model(tokens()).logits, rtol=0, atol=1e-5)


def test_weights_in_several_files_and_old_names(tmp_path: Path) -> None:
    """GPT-2 itself was saved without "transformer." before its names, and with its masks."""
    model = theirs("GPT2", **TINY_GPT2)
    model.save_pretrained(tmp_path)
    state = {
        name.removeprefix("transformer."): tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    state |= {"h.0.attn.bias": torch.ones(1, 1, 24, 24), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    (tmp_path / "model.safetensors").unlink()
    names = sorted(state)
    save_file({name: state[name] for name in names[:9]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({name: state[name] for name in names[9:]}, tmp_path / "model-00002-of-00002.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(made(read_hf(tmp_path))(tokens()), model(tokens()).logits, rtol=0, atol=1e-5)


OURS: list[dict[str, Any]] = [
    {"preset": "llama", "n_kv_head": 1, "rope_base": 50.0, "norm_eps": 0.01, "head_width": 16},
    {"preset": "portable", "tie_weights": True},
    {"preset": "llama", "qkv_bias": True},
    {"preset": "llama", "activation": "relu2"},
    {"preset": "gpt2", "bias": True, "activation": "gelu_tanh", "norm_eps": 0.01},
]


@pytest.mark.parametrize("keys", OURS, ids=str)
@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_what_we_write_comes_back_bit_for_bit(tmp_path: Path, to: str, keys: dict[str, Any]) -> None:
    model = build(**WIDTH | keys)
    if to == "hf":
        write_hf(model, CHAR, tmp_path, begin=None, sampling=Sampling())
    else:
        write_gguf(model, CHAR, tmp_path, begin=None, title="tiny", kind="f32")
    read = read_hf(tmp_path) if to == "hf" else read_gguf(tmp_path / "model.gguf")
    again = made(read)
    assert again.config.model_copy(update={"preset": ""}) == model.config.model_copy(
        update={"preset": "", "zero_init": again.config.zero_init, "qk_scale": again.config.qk_scale}
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "Q4_0", "BF16", "F16"])
def test_every_precision_is_dequantised(tmp_path: Path, kind: str) -> None:
    """The numbers are those that the package gives for the blocks in the file."""
    model = build(**WIDTH, preset="portable")
    write_gguf(model, CHAR, tmp_path, begin=None, title="tiny", kind="f32")
    stored = gguf.GGMLQuantizationType[kind]
    reader, writer = gguf.GGUFReader(tmp_path / "model.gguf"), gguf.GGUFWriter(None, "qwen3")
    for key, field in reader.fields.items():
        if key.startswith("qwen3."):
            value = field.contents()
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    expected = {}
    for tensor in reader.tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, np.array(tensor.data))
            continue
        blocks = gguf.quants.quantize(np.array(tensor.data), stored)
        writer.add_tensor(tensor.name, blocks, raw_dtype=stored)
        expected[tensor.name] = gguf.quants.dequantize(blocks, stored)
    writer.write_header_to_file(tmp_path / "small.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = read_gguf(tmp_path / "small.gguf")
    np.testing.assert_array_equal(read.state["lm_head.weight"].numpy(), expected["output.weight"])
    joined = np.concatenate([expected[f"blk.1.attn_{each}.weight"] for each in "qkv"])
    np.testing.assert_array_equal(read.state["transformer.h.1.attn.c_attn.weight"].numpy(), joined)


def folder_with(tmp_path: Path, name: str = "Llama", drop: str = "", **changes: Any) -> Path:
    """A model of transformers whose config.json or weights have been changed."""
    keys = TINY_GPT2 if name == "GPT2" else {}
    theirs(name, **keys).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Llama", {"model_type": "mamba"}, "model_type = 'mamba' is none of our architectures (llama, qwen3"),
        ("Llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "our GPT has no rope_scaling = {'rope_type': 'llama3'"),
        ("Llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "our GPT has no rope_type = 'yarn'"),
        ("Llama", {"attention_bias": True}, "our GPT has no attention_bias = True"),
        ("Llama", {"mlp_bias": True}, "our GPT has no mlp_bias = True"),
        ("Llama", {"hidden_act": "gelu"}, "our GPT has no hidden_act = 'gelu' here"),
        ("Llama", {"quantization_config": {"bits": 4}}, "our GPT has no quantization_config = {'bits': 4}"),
        ("Qwen2", {"use_sliding_window": True}, "our GPT has no use_sliding_window = True"),
        ("Qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "our GPT has no layer_types = ['full_attention', 'sliding_attention']"),
        ("GPT2", {"scale_attn_by_inverse_layer_idx": True}, "our GPT has no scale_attn_by_inverse_layer_idx = True"),
        ("Llama", {"hidden_size": None}, "hidden_size = None is no number"),
        ("Llama", {"num_hidden_layers": 1}, "our model has no place for the tensor model.layers.1.input_layernorm.weight and 8 more"),
        ("Llama", {"num_hidden_layers": 3}, "the weights have no tensor model.layers.2.input_layernorm.weight"),
        ("Llama", {"intermediate_size": 50}, "gives transformer.h.0.mlp.c_fc.weight of shape (96, 32), and the configuration asks for (100, 32)"),
    ],
    ids=str,
)  # fmt: skip
def test_what_our_gpt_is_not_is_refused_by_name(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_hf(folder_with(tmp_path, name, **changes))
    assert message in caught.value.message
    assert str(tmp_path) in caught.value.place and caught.value.remedy


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file or directory"):
        read_hf(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="damaged: "):
        read_hf(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="damaged: not an object"):
        read_hf(tmp_path)
    folder_with(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged: "):
        read_hf(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"there is no \.safetensors file\n.*they could run code"):
        read_hf(tmp_path)


def gguf_with(tmp_path: Path, changes: dict[str, Any], architecture: str = "llama", tensor: str = "") -> Path:
    """A file of an exported model with other metadata, and perhaps with one more tensor."""
    write_gguf(build(**WIDTH, preset="llama"), CHAR, tmp_path, begin=None, title="tiny", kind="f32")
    reader, writer = gguf.GGUFReader(tmp_path / "model.gguf"), gguf.GGUFWriter(None, architecture)
    values = {key: field.contents() for key, field in reader.fields.items() if key.startswith("llama.")} | changes
    for key, value in values.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    for each in reader.tensors:
        writer.add_tensor(each.name, np.array(each.data))
    if tensor:
        writer.add_tensor(tensor, np.ones(4, np.float32))
    writer.write_header_to_file(tmp_path / "changed.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "changed.gguf"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": {}, "architecture": "mamba"}, "the architecture 'mamba' is none of ours (llama, qwen3"),
        ({"changes": {"llama.rope.scaling.type": "yarn"}}, "our GPT has no llama.rope.scaling.type = 'yarn'"),
        ({"changes": {"llama.attention.sliding_window": 8}}, "our GPT has no llama.attention.sliding_window = 8"),
        ({"changes": {"llama.expert_count": 4}}, "our GPT has no llama.expert_count = 4"),
        ({"changes": {"llama.rope.dimension_count": 8}}, "our GPT has no llama.rope.dimension_count = 8"),
        ({"changes": {"llama.block_count": None}}, "it has no llama.block_count"),
        ({"changes": {}, "tensor": "rope_freqs.weight"}, "our model has no place for the tensor rope_freqs.weight"),
    ],
    ids=str,
)  # fmt: skip
def test_what_our_gpt_is_not_is_refused_in_gguf_too(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_gguf(gguf_with(tmp_path, **options))
    assert message in caught.value.message
    assert caught.value.place == str(tmp_path / "changed.gguf") and caught.value.remedy


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40, b"hello world" * 9])
def test_files_that_are_no_gguf(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(UserError, match=r"no GGUF file: |cannot be read: "):
        read_gguf(tmp_path / "model.gguf")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_gguf(tmp_path / "none.gguf")
