"""Base models from elsewhere: damaged, quantised, of another kind, or in a GGUF file."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from pretrained import IDS, make_base, make_experiment, make_gguf, needs, with_adapter
from tokenizer_folders import model_folder

from core import open_experiment
from core.config import Model
from core.encoders.bytes import BytesEncoder
from core.errors import UserError

needs("transformers", "peft")

Terrarium = Callable[..., Result]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "llama")


def built(base: Path | str, **params: Any) -> Any:
    from core.huggingface.pretrained import Pretrained

    return Pretrained(Model(kind="hf", block_size=16), 257, name=str(base), **params)


def with_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut header": (lambda f: cut(f / "model.safetensors", 1000), "is damaged: model.safetensors: Error while deserializing"),
    "cut weights": (lambda f: cut(f / "model.safetensors", -100), "is damaged: model.safetensors: Error while deserializing"),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), "is damaged: model.safetensors: Error while deserializing"),
    "a text as size": (lambda f: with_config(f, hidden_size="big"), "is damaged: config.json: Validation error for field 'hidden_size'"),
    "heads that do not divide": (lambda f: with_config(f, num_attention_heads=5), "The hidden size (32) is not a multiple of the number of attention heads (5)"),
    "other shapes": (lambda f: with_config(f, hidden_size=64), "do not have the shapes that config.json says, 20 in all: model.embed_tokens.weight is 300 x 32, where it says 300 x 64"),
    "no heads": (lambda f: with_config(f, num_attention_heads=0), "transformers cannot load"),
    "no layers": (lambda f: with_config(f, num_hidden_layers=0), "has no linear layers beside its output head"),
    "more layers": (lambda f: with_config(f, num_hidden_layers=3), "lacks 9 of the weights"),
    "no JSON": (lambda f: cut(f / "config.json", 9), "is damaged: config.json: "),
    "another JSON": (lambda f: (f / "config.json").write_text("[]"), "is damaged: config.json: it is no JSON object"),
    "quantised": (lambda f: with_config(f, quantization_config={"quant_method": "bitsandbytes"}), 'is quantised already (bitsandbytes): its weights have few bits, and an adapter on them could not be merged\n  Give the model in full precision. To train adapters on four bits, set quantize = "nf4" with it.'),
    "an adapter beside it": (lambda f: (f / "adapter_config.json").write_text("{}"), "has an adapter_config.json, so it is an adapter"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_base_is_one_message(base: Path, tmp_path: Path, kind: str) -> None:
    damage, told = DAMAGE[kind]
    damage(shutil.copytree(base, tmp_path / "base"))
    with pytest.raises(UserError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that have no place
        built(tmp_path / "base")
    assert told in str(error.value) and error.value.place.startswith("train.model.params.") and error.value.remedy
    assert "ignore_mismatched_sizes" not in str(error.value)


@pytest.mark.parametrize("size", [0, 3, 14, 600, -100])
def test_a_cut_gguf_file_is_one_message(tmp_path: Path, size: int) -> None:
    needs("gguf")
    file = make_gguf(tmp_path, BytesEncoder())
    cut(file, size)
    with pytest.raises(
        UserError, match=r"model\.gguf is damaged: no whole GGUF file: .*\n  Copy or download it again, whole"
    ):
        built(file)


def test_it_is_an_exit_code_not_a_traceback(lab: Path, base: Path, tmp_path: Path, terrarium: Terrarium) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    cut(folder / "model.safetensors", 1000)
    make_experiment(lab, folder)
    for command in ("check", "train"):
        result = terrarium(command, "fine")
        assert result.exit_code == 2 and "is damaged: model.safetensors" in result.stderr, result.output
    result = terrarium("train", "fine", "-s", "train.model.params.name=")
    assert result.exit_code == 2 and "no base model is named\n  Give a folder with config.json" in result.stderr


def test_weights_without_a_place_are_named(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    with_config(folder, num_hidden_layers=1)
    with pytest.warns(
        UserWarning, match=r"has no place for 9 of the weights of .*: model\.layers\.1\.input_layernorm\.weight,"
    ):
        built(folder)


@pytest.mark.parametrize("causal", [False, True])
def test_a_model_that_sees_ahead_is_refused(tmp_path: Path, causal: bool) -> None:
    """BERT is one of transformers' causal models only if its config says is_decoder."""
    import transformers

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": IDS,
    }
    config = transformers.BertConfig(**sizes, is_decoder=causal, max_position_embeddings=64)  # type: ignore[arg-type]
    torch.manual_seed(0)
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path / "bert")
    for lora in (True, False):
        if causal:
            assert built(tmp_path / "bert", lora=lora)(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, IDS)
            continue
        with pytest.raises(
            UserError, match="is a BertLMHeadModel that sees the tokens behind the one that it predicts"
        ):
            built(tmp_path / "bert", lora=lora)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("alpha=inf", "Give a number above 0."),
        ("alpha=nan", "Give a number above 0."),
        ("alpha=0.0", "Give a number above 0."),
        ("r=0", "Give a whole number from 1 to 4096."),
        ("r=5000", "Give a whole number from 1 to 4096."),
        ("dropout=1.0", "Give a number from 0 to below 1."),
        ("dropout=-0.1", "Give a number from 0 to below 1."),
        ("dropout=inf", "Give a number from 0 to below 1."),
    ],
)
def test_bounds(lab: Path, base: Path, terrarium: Terrarium, given: str, told: str) -> None:
    make_experiment(lab, base)
    result = terrarium("train", "fine", "-s", f"train.model.params.{given}")
    assert result.exit_code == 2 and told in result.stderr, result.output
    assert "Annotated" not in result.output


def test_keys_of_adapters_without_adapters(base: Path) -> None:
    with pytest.warns(UserWarning, match=r"lora = false trains the whole model, so r, target_modules have no effect"):
        built(base, lora=False, r=4, target_modules=["q_proj"])


@pytest.mark.parametrize("lora", [True, False])
def test_a_gguf_base_is_trained_merged_and_exported(
    lab: Path, tmp_path: Path, terrarium: Terrarium, lora: bool
) -> None:
    """Plain transformers and peft load what is written, with the tokenizer of the run."""
    import transformers

    needs("gguf")
    file = make_gguf(tmp_path / "base", BytesEncoder())
    make_experiment(lab, file, f"params.lora = {str(lora).lower()}\n")
    assert terrarium("train", "fine", "-q").exit_code == 0
    loaded, tokens = open_experiment("fine").run().load(), torch.arange(16)[None] + 90
    done = terrarium("export", "fine", "--to", "hf", str(tmp_path / "merged"))
    assert done.exit_code == 0, done.output
    assert "quantization_config" not in json.loads((tmp_path / "merged/config.json").read_text())
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    text = loaded.dataset.examples("val", 1)[0].prompt
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == loaded.encoder.encode(text).tolist()
    with torch.no_grad():
        ours = loaded.module(tokens)
        torch.testing.assert_close(merged(input_ids=tokens).logits, ours, rtol=1e-4, atol=1e-4)
        if lora:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                plain = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
                adapted = with_adapter(plain, lab / "fine/out/default/adapters/final")
            torch.testing.assert_close(adapted(input_ids=tokens).logits, ours, rtol=1e-4, atol=1e-4)


COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for the hub: someone/model in two commits. The list's only item is the newest, and the items behind it what was asked."""
    import huggingface_hub

    for seed, commit in enumerate(COMMITS):
        model_folder(make_base(tmp_path / commit, vocab_size=500, seed=seed), "llama3")
    state = [COMMITS[0]]

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert name == "someone/model" and "*.bin" not in allow_patterns
        state.append(revision or "newest")
        return str(tmp_path / (revision or state[0]))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return state


@pytest.mark.parametrize("given", ["", 'params.revision = "auto"\n', 'params.revision = ""\n'])
def test_weights_and_tokenizer_are_of_one_commit(lab: Path, terrarium: Terrarium, hub: list[str], given: str) -> None:
    """The hub moves on between prepare and train: both take the commit that prepare has found."""
    folder = make_experiment(lab, Path("someone/model"), given)
    encoder = ("-s", "prepare.encoder=hf")
    result = terrarium("prepare", "fine", *encoder)
    assert result.exit_code == 0, result.output
    hub[:] = [COMMITS[1]]
    assert terrarium("train", "fine", "-q", *encoder).exit_code == 0
    assert f'revision = "{COMMITS[0]}"' in (folder / "out/default/config.toml").read_text()
    assert "newest" not in hub
    result = terrarium("train", "fine", *encoder)
    assert result.exit_code == 0 and "is finished" in result.output
    result = terrarium(
        "train", "fine", "--run", "other", "-q", *encoder, "-s", f"train.model.params.revision={COMMITS[1]}"
    )
    assert result.exit_code == 0, result.output
    assert f'revision = "{COMMITS[1]}"' in (folder / "out/other/config.toml").read_text() and "newest" not in hub


@pytest.mark.parametrize("own", [False, True])
def test_a_merged_model_has_the_tokenizer_of_its_run(
    lab: Path, tmp_path: Path, terrarium: Terrarium, own: bool
) -> None:
    """With prepare.tokenizer naming another one than the base's, the base's files would give other ids."""
    import transformers

    base = model_folder(make_base(tmp_path / "base", vocab_size=500), "llama3", bos_token="<|begin_of_text|>")
    other = model_folder(tmp_path / "other", "chatml")
    make_experiment(lab, base)
    named = ("-s", "prepare.encoder=hf", "-s", f"prepare.tokenizer={other if own else base}")
    assert terrarium("train", "fine", "-q", *named).exit_code == 0
    done = terrarium("export", "fine", "--to", "hf", str(tmp_path / "merged"))
    assert done.exit_code == 0, done.output
    encoder = open_experiment("fine").run().load().encoder
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    text = "Der Hund <|im_end|> says 12 words"
    assert (
        tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        == encoder.encode(text).tolist()
    )
    assert tokenizer.eos_token_id == encoder.end_token
    same = (tmp_path / "merged/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert same is not own
    settings = transformers.GenerationConfig.from_pretrained(tmp_path / "merged")
    assert settings.eos_token_id == (encoder.end_token if own else None)


@pytest.mark.parametrize("kind", ["relative", "home", "gguf"])
def test_the_code_beside_an_adapter_loads_it(
    lab: Path, tmp_path: Path, base: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The code of its README.md, run as it stands there, gives the logits of the run."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    if kind == "gguf":
        needs("gguf")
        name = str(make_gguf(home / "models", BytesEncoder()))
    else:
        name = "base" if kind == "relative" else "~/base"
    folder = make_experiment(lab, Path(name))
    if kind != "gguf":
        shutil.copytree(base, folder / "base" if kind == "relative" else home / "base")
    assert terrarium("train", "fine", "-q").exit_code == 0
    loaded, tokens = open_experiment("fine").run().load(), torch.arange(16)[None] + 90
    assert terrarium("export", "fine", "--to", "adapter", str(tmp_path / "adapter")).exit_code == 0
    readme = (tmp_path / "adapter/README.md").read_text()
    assert str(home) not in readme
    code = readme.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path / "adapter")
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, names)
    with torch.no_grad():
        found = names["model"].eval()(input_ids=tokens).logits
        torch.testing.assert_close(found, loaded.module(tokens), rtol=1e-4, atol=1e-4)
