"""core.huggingface.to_hf: transformers computes the logits that we do, reads the ids that we do, and gets every weight."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_gpt import build
from tokenizer_folders import model_folder

from core.chat.conversation import SPECIAL, Conversation, Message
from core.chat.render import render, render_prompt
from core.config import Model, Sampling
from core.encoders.base import Encoder
from core.encoders.bpe import BpeEncoder
from core.encoders.bytes import BytesEncoder
from core.encoders.char import CharEncoder
from core.encoders.special import WithSpecialTokens
from core.encoders.words import WordsEncoder
from core.errors import UserError
from core.huggingface.architectures import SIZES, architecture_of, features_of
from core.huggingface.encoder import HfEncoder
from core.huggingface.to_hf import write_hf
from core.huggingface.tokenizer import written_tokenizer
from core.models.gpt import GPT

transformers = pytest.importorskip("transformers", reason="transformers is not installed: extra hf")
CHAR = CharEncoder(list("abcdefghij\n"))  # as many ids as the models have
TEXT = 'It was the best of times, it was the worst of times: 12 345 naïve cafés\n\t— "don\'t"! ' * 40


def export(model: GPT, folder: Path, encoder: Encoder = CHAR, begin: int | None = None) -> str:
    folder.mkdir()
    return write_hf(model, encoder, folder, begin=begin, sampling=Sampling(temperature=0.7))


def loaded(folder: Path, **options: Any) -> Any:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info  # no weight is missing, none is left over
    return model.eval()


ROTARY: list[tuple[str, dict[str, Any]]] = [
    ("LlamaForCausalLM", {"preset": "llama"}),
    ("LlamaForCausalLM", {"preset": "llama", "n_kv_head": 1, "rope_base": 50.0, "norm_eps": 0.01, "head_width": 12}),
    ("LlamaForCausalLM", {"preset": "llama", "norm": "rmsnorm", "tie_weights": True, "window": 16}),
    ("LlamaForCausalLM", {"preset": "llama", "norm": "rmsnorm", "n_ff": 40}),
    ("Qwen3ForCausalLM", {"preset": "portable"}),
    ("Qwen3ForCausalLM", {"preset": "portable", "head_width": 12, "n_kv_head": 1, "tie_weights": True}),
    ("Qwen3ForCausalLM", {"preset": "llama", "qk_norm": True}),
    ("Qwen2ForCausalLM", {"preset": "llama", "qkv_bias": True, "tie_weights": True}),
    ("ArceeForCausalLM", {"preset": "llama", "activation": "relu2"}),
    ("GPT2LMHeadModel", {"preset": "gpt2"}),
    ("GPT2LMHeadModel", {"preset": "gpt2", "bias": True, "activation": "gelu_tanh"}),
    ("GPT2LMHeadModel", {"preset": "gpt2", "tie_weights": False, "qkv_bias": True, "norm_eps": 0.01}),
]


@pytest.mark.parametrize(("title", "keys"), ROTARY, ids=str)
def test_transformers_computes_the_same_logits(tmp_path: Path, title: str, keys: dict[str, Any]) -> None:
    model = build(**keys)
    assert export(model, tmp_path / "out") == title
    other = loaded(tmp_path / "out")
    assert type(other).__name__ == title
    tokens = torch.randint(0, 11, (3, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(other(tokens).logits, model(tokens), rtol=0, atol=1e-5)
    saved = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert saved == set(other.state_dict()) - ({"lm_head.weight"} if other.config.tie_word_embeddings else set())


OWN: list[dict[str, Any]] = [
    {"preset": "modern"},
    {"preset": "modern", "ngram": 3, "window": 5, "window_pattern": "SL", "n_kv_head": 1},
    {"preset": "modern", "tie_weights": True, "activation": "swiglu", "norm": "rmsnorm_scale", "qk_scale": True},
    {"preset": "gpt2", "softcap": 5.0, "bias": True, "smear": True, "activation": "gelu_tanh"},
    {"preset": "llama", "position": "none", "head_width": 6, "activation": "gelu", "norm": "layernorm"},
]


@pytest.mark.parametrize("keys", OWN, ids=str)
def test_other_models_bring_their_code(tmp_path: Path, keys: dict[str, Any]) -> None:
    model = build(**keys)
    assert export(model, tmp_path / "out") == "TerrariumForCausalLM"
    other = loaded(tmp_path / "out", trust_remote_code=True)
    tokens = torch.randint(0, 11, (3, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(other(tokens).logits, model(tokens), rtol=0, atol=1e-5)
    # Rows that padding on the left makes equally long are what they are alone.
    padded, mask = tokens.clone(), torch.ones_like(tokens)
    padded[1, :6], mask[1, :6] = 0, 0
    with torch.no_grad():
        found = other(padded, attention_mask=mask).logits[1, 6:]
        torch.testing.assert_close(found, model(tokens[1:2, 6:])[0], rtol=0, atol=1e-5)
    text = other.generate(tokens[:1, :4], attention_mask=torch.ones(1, 4), max_new_tokens=8, do_sample=False)[
        0, 4:
    ].tolist()
    greedy = tokens[:1, :4]
    for _ in range(8):
        greedy = torch.cat((greedy, model(greedy)[:, -1:].argmax(-1)), dim=1)
    assert text == greedy[0, 4:].tolist()


@pytest.mark.parametrize(
    ("keys", "params", "place"),
    [
        ({"position": "alibi"}, {}, "train.model.position"),
        ({}, {"post_norm": True}, "train.model.params.post_norm"),
        ({"preset": "gpt2"}, {"head_bias": True}, "train.model.params.head_bias"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_named(
    tmp_path: Path, keys: dict[str, Any], params: dict[str, Any], place: str
) -> None:
    model = GPT(build(**keys).config, 11, **params)
    with pytest.raises(UserError) as caught:
        export(model, tmp_path / "out")
    assert caught.value.place == place
    key = place.rpartition(".")[2]
    assert f"a model with {key} = " in caught.value.message and "for transformers" in caught.value.message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"preset": "llama", "window": 4}, "window = 4; the nearest architecture is LlamaForCausalLM, without it"),
        ({"preset": "llama", "smear": True}, "smear = True; the nearest architecture is LlamaForCausalLM"),
        ({"preset": "llama", "ngram": 2}, "ngram = 2;"),
        ({"preset": "llama", "softcap": 3.0}, "softcap = 3.0;"),
        ({"preset": "llama", "bias": True}, "bias = True; the nearest architecture is Qwen2ForCausalLM, without it"),
        ({"preset": "llama", "position": "alibi"}, "position = 'alibi';"),
        ({"preset": "llama", "activation": "relu2", "qk_norm": True}, "activation = 'relu2'; the nearest architecture is Qwen3"),
        ({"preset": "gpt2", "n_kv_head": 1}, "n_kv_head = 1; the nearest architecture is GPT2LMHeadModel"),
        ({"preset": "gpt2", "head_width": 12}, "head_width = 12;"),
    ],
    ids=str,
)  # fmt: skip
def test_the_feature_without_a_counterpart_is_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        architecture_of(build(**keys), "llama.cpp")
    assert f"llama.cpp has no model with {message}" in caught.value.message
    assert caught.value.place.startswith("train.model.") and "portable" in caught.value.remedy


@pytest.mark.parametrize("key", ["post_norm", "ff_bias", "head_bias"])
@pytest.mark.parametrize("preset", ["llama", "portable", "gpt2"])
def test_a_layer_that_other_programs_do_not_have_is_named(preset: str, key: str) -> None:
    model = GPT(build(preset=preset, bias=False).config, 11, **{key: True})
    with pytest.raises(UserError) as caught:
        architecture_of(model, "llama.cpp")
    assert (
        f"has no model with {key} = True" in caught.value.message and caught.value.place == f"train.model.params.{key}"
    )


def test_every_key_of_the_model_is_a_size_or_a_feature() -> None:
    """A key that someone adds is refused until an architecture says that it has it."""
    features = {key for key in features_of(build()) if not key.startswith("params.")}
    assert features | set(SIZES) == set(Model.model_fields) and not features & set(SIZES)


ENCODERS: dict[str, Encoder] = {
    "char": CharEncoder.fit([TEXT]),
    "char with an end": CharEncoder.fit([TEXT], end_token=True),
    "bytes": BytesEncoder(),
    "bpe": BpeEncoder.fit([TEXT], vocab_size=300),
    "bpe gpt4": BpeEncoder.fit([TEXT], vocab_size=300, split_pattern="gpt4"),
    "bpe digits": BpeEncoder.fit([TEXT], vocab_size=300, split_pattern="digits"),
    "bpe own": BpeEncoder.fit([TEXT], vocab_size=280, split_pattern=r"\w+|\W"),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each encoder as transformers loads it."""
    return {name: fast(encoder, tmp_path_factory.mktemp("tokenizer")) for name, encoder in ENCODERS.items()}


def fast(encoder: Encoder, folder: Path) -> Any:
    model = build(preset="llama")
    folder.mkdir(exist_ok=True)
    write_hf(model, encoder, folder, begin=None, sampling=Sampling())
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=60)
@given(data=st.data())
def test_ids_are_ours(tokenizers: dict[str, Any], name: str, data: st.DataObject) -> None:
    encoder, other = ENCODERS[name], tokenizers[name]
    alphabet = sorted(set(TEXT)) if name.startswith("char") else None
    text = data.draw(st.text(alphabet) if alphabet else st.text(st.characters(exclude_categories=["Cs"])))
    assume(not any(name in text for name in other.all_special_tokens))  # there it becomes the token, as the page says
    ids = encoder.encode(text).tolist()
    assert other.encode(text, add_special_tokens=False) == ids
    assert other.decode(ids) == encoder.decode(ids) == text
    assert len(other) == encoder.vocab_size


def test_an_unknown_character_is_an_error_there_too(tokenizers: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="WordLevel error: Missing"):
        tokenizers["char"].encode("é ß")


@pytest.mark.parametrize("encoder", [WordsEncoder(["a", "b"]), WithSpecialTokens(WordsEncoder(["a"]), SPECIAL)])
def test_kinds_that_cannot_be_written_are_named(encoder: Encoder) -> None:
    with pytest.raises(UserError, match="a tokenizer of kind words cannot be written for other programs, only bpe, gpt2") as caught:  # fmt: skip
        written_tokenizer(encoder)
    assert caught.value.place == "prepare.encoder" and 'prepare.encoder = "bpe"' in caught.value.remedy


def conversation(rng: random.Random) -> Conversation:
    """One of any shape that is valid: with and without a system message, with calls, with empty results."""

    def text() -> str:
        return "".join(rng.choices(TEXT[:85] + "{%}#<|>\n ", k=rng.randint(1, 30)))

    messages = [Message("system", text())] if rng.random() < 0.4 else []
    for _ in range(rng.randint(1, 3)):
        messages.append(Message("user", text()))
        while rng.random() < 0.4:
            call = " ".join(text().split()) or "calculator 1"
            messages += [Message("assistant", text() if rng.random() < 0.5 else "", call), Message("tool", rng.choice(["", text()]))]  # fmt: skip
        messages.append(Message("assistant", text()))
    return Conversation(messages)


@pytest.mark.parametrize("kind", ["bpe", "bytes", "char with an end"])
def test_the_chat_template_gives_our_ids(kind: str, tmp_path: Path) -> None:
    encoder = WithSpecialTokens(CharEncoder.fit([TEXT, "{%}#<|>calculator"], end_token=True) if kind.startswith("char") else ENCODERS[kind], SPECIAL)  # fmt: skip
    other, rng = fast(encoder, tmp_path), random.Random(5)
    assert (other.eos_token, other.bos_token) == ("<|end|>", None)
    for number in range(1000):
        each = conversation(rng)
        messages = [
            {"role": message.role, "content": message.content, **({"call": message.call} if message.call else {})}
            for message in each.messages
        ]
        ids = other.apply_chat_template(messages, return_dict=False)
        assert ids == render(each, encoder).ids.tolist(), (number, messages)
        asked = Conversation(list(each.messages[:-1]))
        ids = other.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        assert ids == render_prompt(asked, encoder).tolist()
        assert (
            other.apply_chat_template(openai_style(messages), return_dict=False) == render(each, encoder).ids.tolist()
        )


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "no system", "chatml without template", "none"])
def test_the_template_of_a_pretrained_format_gives_our_ids(name: str, tmp_path: Path) -> None:
    """With marks of several tokens, text between turns, a system message that is always there, or one inside the user's turn."""
    encoder = HfEncoder.fit([], tokenizer=str(model_folder(tmp_path / "base", name)), chat=True)
    other, rng = fast(encoder, tmp_path / "out"), random.Random(6)
    for number in range(100):
        turns = [(role, text.strip() or "x") for role, text in turns_of(rng)]
        if name in ("no system", "none"):
            turns = [turn for turn in turns if turn[0] != "system"]
        each = Conversation([Message(role, text) for role, text in turns])
        messages = [{"role": role, "content": text} for role, text in turns]
        assert other.apply_chat_template(messages, return_dict=False) == render(each, encoder).ids.tolist(), number
        asked = render_prompt(Conversation(list(each.messages[:-1])), encoder).tolist()
        assert other.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False) == asked


def turns_of(rng: random.Random) -> list[tuple[str, str]]:
    """Roles and texts of a conversation without calls."""
    turns = [("system", "Be brief.")] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 3)):
        turns += [
            (role, "".join(rng.choices(TEXT[:85] + "{%} ", k=rng.randint(1, 30)))) for role in ("user", "assistant")
        ]
    return turns


def openai_style(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls as OpenAI's API writes them."""
    found = []
    for message in messages:
        message = dict(message)
        if call := message.pop("call", ""):
            name, _, argument = call.partition(" ")
            arguments = {"input": argument} if argument else {}
            message["tool_calls"] = [{"type": "function", "function": {"name": name, "arguments": arguments}}]
        found.append(message)
    return found


def test_a_greedy_run_is_written_as_greedy_and_one_without_cache_says_so(tmp_path: Path) -> None:
    found = {}
    for preset in ("portable", "modern"):
        (tmp_path / preset).mkdir()
        write_hf(build(preset=preset), CHAR, tmp_path / preset, begin=None, sampling=Sampling(temperature=0.0, top_k=5, max_new_tokens=7))  # fmt: skip
        found[preset] = json.loads((tmp_path / preset / "generation_config.json").read_text())
    assert found["portable"] == {"do_sample": False, "max_new_tokens": 7}
    assert found["modern"] == {"do_sample": False, "max_new_tokens": 7, "use_cache": False}
    chosen = loaded(tmp_path / "portable").generation_config
    assert not chosen.do_sample and chosen.max_new_tokens == 7


def test_begin_end_and_sampling_are_written(tmp_path: Path) -> None:
    encoder = WithSpecialTokens(BytesEncoder(), SPECIAL)
    (tmp_path / "out").mkdir()
    chosen = Sampling(temperature=0.7, top_k=5, top_p=0.9, max_new_tokens=33)
    write_hf(build(preset="portable"), encoder, tmp_path / "out", begin=encoder.special["<|bos|>"], sampling=chosen)
    config, sampling = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("config", "generation_config")
    )
    assert (config["bos_token_id"], config["eos_token_id"]) == (257, 263)
    assert sampling == {"bos_token_id": 257, "eos_token_id": 263, "do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "max_new_tokens": 33}  # fmt: skip
    other = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (other.bos_token_id, other.eos_token_id, other.model_max_length) == (257, 263, 16)
