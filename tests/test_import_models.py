"""core.huggingface.from_hf and from_gguf: models that others wrote compute here what they compute there."""

from __future__ import annotations

import json
import random
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
from core.huggingface.gguf_metadata import read_metadata
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
        ("Llama", {"hidden_size": None}, "hidden_size = None is no whole number above 0"),
        ("Llama", {"num_hidden_layers": 1}, "our model has no place for the tensor model.layers.1.input_layernorm.weight and 8 more"),
        ("Llama", {"num_hidden_layers": 3}, "the weights have no tensor model.layers.2.input_layernorm.weight"),
        ("Llama", {"intermediate_size": 50}, "mlp.up_proj.weight have the shapes (48, 32), (48, 32), and the configuration asks for (100, 32) as transformer.h.0.mlp.c_fc.weight"),
        ("Llama", {"num_attention_heads": 0}, "num_attention_heads = 0 is no whole number above 0"),
        ("Llama", {"num_attention_heads": True}, "num_attention_heads = True is no whole number above 0"),
        ("Llama", {"max_position_embeddings": 1.5}, "max_position_embeddings = 1.5 is no whole number above 0"),
        ("Llama", {"num_hidden_layers": 10**9}, "1,000,000,000 layers are asked for, and there are 21 tensors in all"),
        ("Llama", {"rms_norm_eps": 0}, "rms_norm_eps = 0 is no number above 0"),
        ("Llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps = nan is no number above 0"),
        ("Llama", {"rope_parameters": [1]}, "rope_parameters = [1] is no table of keys"),
        ("Llama", {"rope_parameters": {}, "rope_theta": "x"}, "rope_theta = 'x' is no number above 0"),
        ("Llama", {"layer_types": 5}, "our GPT has no layer_types = 5"),
        ("Llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no' is neither true nor false"),
        ("Llama", {"head_dim": 7}, "heads are 7 channels wide, and positions need an even number"),
        ("Llama", {"num_key_value_heads": 3}, "4 heads of queries cannot share 3 heads of keys and values evenly"),
        ("Llama", {"rope_scaling": "x" * 500}, "our GPT has no rope_scaling = 'xxxxx"),
        ("GPT2", {"n_head": 5}, "32 channels are not divided evenly by 5 heads"),
        ("GPT2", {"layer_norm_epsilon": []}, "layer_norm_epsilon = [] is no number above 0"),
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


ODD: list[Any] = [None, True, False, 0, -1, 1, 2, 3, 5, 1.5, 1e300, float("nan"), float("inf"), 2**31, 2**63, 10**400, "", "x",
                  "12", [], [1], [[]], {}, {"rope_type": "default"}, {"rope_theta": []}, "full_attention", ["full_attention"]]  # fmt: skip
SIZED: dict[str, dict[str, Any]] = {
    "llama": {"preset": "llama", "n_kv_head": 2, "n_head": 4}, "qwen3": {"preset": "portable"},
    "gpt2": {"preset": "gpt2", "bias": True, "activation": "gelu_tanh"},
}  # fmt: skip


@pytest.mark.parametrize("kind", SIZED)
def test_an_odd_configuration_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    """Whatever config.json holds, only UserError is raised."""
    write_hf(build(**WIDTH | SIZED[kind]), CHAR, tmp_path, begin=None, sampling=Sampling())
    whole, rng, refused = json.loads((tmp_path / "config.json").read_text()), random.Random(3), 0
    more = ["rope_scaling", "layer_types", "use_sliding_window", "partial_rotary_factor", "quantization_config", "pretraining_tp",
            "scale_attn_weights", "add_cross_attention"]  # fmt: skip
    for _ in range(250):
        config = dict(whole)
        for key in rng.sample([*whole, *more], rng.randint(1, 2)):
            config[key] = rng.choice(ODD)
        (tmp_path / "config.json").write_text(json.dumps(config))
        try:
            read_hf(tmp_path)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 500 and error.remedy, config
    assert 100 < refused < 250


@pytest.mark.parametrize("kind", SIZED)
def test_odd_metadata_of_gguf_is_read_or_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(build(**WIDTH | SIZED[kind]), CHAR, tmp_path, begin=None, title="tiny", kind="f32")
    path, rng, refused = tmp_path / "model.gguf", random.Random(4), 0
    whole = read_metadata(path)
    keys = [key for key in whole if not key.startswith("tokenizer.")] + [
        f"{kind}.rope.scaling.type",
        f"{kind}.vocab_size",
    ]
    for _ in range(150):
        changed = {key: rng.choice(ODD) for key in rng.sample(keys, rng.randint(1, 2))}
        monkeypatch.setattr("core.huggingface.from_gguf.read_metadata", lambda _, changed=changed: whole | changed)
        try:
            read_gguf(path)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 500 and error.remedy, changed
    assert 50 < refused < 150


def test_a_damaged_gguf_is_read_or_refused(tmp_path: Path) -> None:
    """Bits of its head are flipped, or its end is cut off."""
    write_gguf(build(**WIDTH, preset="llama"), CHAR, tmp_path, begin=None, title="tiny", kind="f32")
    path, rng, refused = tmp_path / "model.gguf", random.Random(5), 0
    whole = path.read_bytes()
    head = whole.index(b"output_norm") + 40
    for number in range(200):
        data = bytearray(whole)
        if number % 10:
            data[rng.randrange(head)] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            read_gguf(path)
        except UserError as error:
            refused += 1
            assert error.remedy
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.embed_tokens.weight", torch.tensor(1.0), "tensor model.embed_tokens.weight has the shape (), and the configuration"),
        ("model.layers.0.self_attn.k_proj.weight", torch.ones(32), "have the shapes (32, 32), (32,), (32, 32), and the config"),
        ("model.layers.0.self_attn.k_proj.weight", torch.ones(32, 31), "have the shapes (32, 32), (32, 31), (32, 32), and the"),
        ("model.norm.weight", torch.ones(32, 1), "tensor model.norm.weight has the shape (32, 1), and the configuration asks for (32,)"),
        ("model.norm.weight", torch.ones(32, dtype=torch.int8), "tensor model.norm.weight holds int8, no weights"),
    ],
    ids=str,
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, name: str, tensor: torch.Tensor, message: str) -> None:
    folder = folder_with(tmp_path)
    save_file(load_file(folder / "model.safetensors") | {name: tensor}, folder / "model.safetensors")
    with pytest.raises(UserError) as caught:
        read_hf(folder)
    assert message in caught.value.message, caught.value.message


def test_a_matrix_of_gpt2_that_is_not_turned_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "GPT2")
    tensors = load_file(folder / "model.safetensors")
    name = "transformer.h.0.attn.c_attn.weight"
    save_file(tensors | {name: tensors[name].t().contiguous()}, folder / "model.safetensors")
    with pytest.raises(
        UserError, match=r"has the shape \(96, 32\), and the configuration asks for \(96, 32\), turned, as"
    ):
        read_hf(folder)


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
    with pytest.raises(UserError, match=r"no GGUF file that can be read: |no GGUF file: "):
        read_gguf(tmp_path / "model.gguf")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_gguf(tmp_path / "none.gguf")
