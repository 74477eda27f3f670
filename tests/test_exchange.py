"""The commands export and import: what is written can be loaded, and what comes in is a run like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file

from core.lab.api import open_experiment
from core.lab.chatting import begin_talk, reply

pytest.importorskip("gguf", reason="gguf is not installed: extra hf")
Terrarium = Callable[..., Result]
BPE = ["-s", "prepare.encoder=bpe", "-s", "prepare.vocab_size=280"]


@pytest.fixture
def trained(text: Path, terrarium: Terrarium) -> Path:
    """An experiment with a run that every format can hold."""
    done = terrarium("train", "text", "-s", "train.model.preset=portable", *BPE)
    assert done.exit_code == 0, done.output
    return text


def written(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def sampled(terrarium: Terrarium, *arguments: str) -> Any:
    done = terrarium("sample", "text", *arguments, "--temperature", "0", "--start", "the quick", "--max-new-tokens", "12", "--num-samples", "1", "--json")  # fmt: skip
    return [{key: value for key, value in sample.items() if key != "run"} for sample in written(done)["samples"]]


FILES = {
    "hf": ["README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
    "gguf": ["Modelfile", "README.md", "model.gguf"],
}  # fmt: skip


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_there_and_back(trained: Path, terrarium: Terrarium, tmp_path: Path, to: str) -> None:
    target = tmp_path / "new" / "model"
    numbers = ["--type", "f32"] if to == "gguf" else []
    found = written(terrarium("export", "text", "--to", to, str(target), *numbers, "--json"))
    assert found == {"experiment": "text", "run": "default", "step": 6, "to": to, "target": str(target), "files": [str(target / name) for name in FILES[to]]}  # fmt: skip
    card = (target / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# text/default\n") and ("from_pretrained" if to == "hf" else "ollama create") in card
    assert not [path for path in target.parent.iterdir() if path != target]  # nothing is left beside it
    source = str(target if to == "hf" else target / "model.gguf")
    run = written(terrarium("import", "text", "--from", to, source, "--run", "back", "--json"))
    assert (run["run"], run["summary"]["status"], run["summary"]["steps"]) == ("back", "completed", 0)
    assert sampled(terrarium, "--run", "back") == sampled(terrarium)
    models = [open_experiment("text").run(name).load() for name in ("default", "back")]
    ids = [model.encoder.encode("the quick brown")[:16].astype(np.int64) for model in models]
    assert ids[0].tolist() == ids[1].tolist()
    logits = [model.module(torch.from_numpy(ids[0])[None]) for model in models]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)
    assert sorted(path.name for path in (trained / "datasets").iterdir() if path.is_dir()) == ["back", "basic", "raw"]
    more = terrarium("train", "text", "--variant", "back", "--run", "more", "-s", "train.runtime.device=cpu")
    assert more.exit_code == 0, more.output
    summary = json.loads((trained / "out" / "more" / "summary.json").read_text())
    assert summary["origin"]["checkpoint"] == "best" and summary["steps"] == 6
    again = written(terrarium("export", "text", "--run", "more", "--to", to, str(tmp_path / "again"), "--json"))
    assert again["run"] == "more"  # with the tokenizer that came with it


def test_transformers_and_llama_cpp_write_what_we_write(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: extra hf")
    from llamacpp import Referee

    ours = sampled(terrarium)[0]["text"].removeprefix("the quick")
    for to in ("hf", "gguf"):
        assert terrarium("export", "text", "--to", to, str(tmp_path / to), "--type", "f32").exit_code == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = tokenizer("the quick", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(out, skip_special_tokens=True) == ours
    assert Referee(tmp_path / "gguf" / "model.gguf", 16).write("the quick", 12).text == ours


def test_a_target_that_is_taken_is_left_alone(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for to, target, message in [
        ("hf", "full", "full: is not empty\n  Name a folder that does not exist, or an empty one."),
        ("gguf", "full/mine.txt", "mine.txt: exists already\n  Name a folder that does not exist"),
        ("nanogpt", "full/mine.txt", "mine.txt: exists already\n  Name a file that does not exist."),
        ("nanogpt", "empty", "empty: is a folder\n  Name a file that does not exist."),
    ]:
        result = terrarium("export", "text", "--to", to, str(tmp_path / target))
        assert result.exit_code == 2 and message in result.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert terrarium("export", "text", "--to", "hf", str(tmp_path / "empty")).exit_code == 0


@pytest.mark.parametrize("to", ["hf", "gguf", "nanogpt"])
def test_a_target_that_cannot_be_written_is_named(
    text: Path, terrarium: Terrarium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    assert terrarium("train", "text", "-s", "train.model.preset=gpt2", *BPE).exit_code == 0
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("TERRARIUM_EXPERIMENTS", str(text.parent))
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").write_text("mine")
    for target, message in {
        ".": "here: is a folder"
        if to == "nanogpt"
        else "here: is the current folder or a disk, which cannot be replaced",
        "../file/below": "file: is a file, and a folder is needed here",
        "../circle": "circle",
        "/proc/x": "/proc/x: cannot be written: No such file or directory",
        "x" * 300: "cannot be written: File name too long",
    }.items():
        result = terrarium("export", "text", "--to", to, target)
        assert result.exit_code == 2 and message in result.stderr, (target, result.output, result.exception)
    assert not list(here.iterdir()) and (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "experiments", "file", "here"]


def test_a_link_stays_a_link(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for link, end in (("to-folder", "folder"), ("to-nothing", "new")):
        (tmp_path / link).symlink_to(tmp_path / end)
        done = terrarium("export", "text", "--to", "hf", str(tmp_path / link))
        assert done.exit_code == 0, done.output
        assert (tmp_path / link).is_symlink() and (tmp_path / end / "config.json").is_file()


def test_what_cannot_be_written_leaves_nothing(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("train", "text", "--run", "modern").exit_code == 0
    for to, message in [
        ("gguf", "train.model.activation: llama.cpp has no model with activation = 'relu2'"),
        ("adapter", "text/modern: a model of kind gpt has no adapter"),
        ("nanogpt", "train.model.norm: nanoGPT has no model with norm = 'rmsnorm'"),
    ]:
        result = terrarium("export", "text", "--run", "modern", "--to", to, str(tmp_path / "out"))
        assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()
    done = terrarium("export", "text", "--run", "modern", "--to", "hf", str(tmp_path / "out"))
    assert done.exit_code == 0 and "its code is written along" in done.output
    assert "trust_remote_code=True" in (tmp_path / "out" / "README.md").read_text()
    assert terrarium("train", "text", "--run", "lstm", "-s", "train.model.kind=lstm").exit_code == 0
    for to, program in (("hf", "transformers"), ("gguf", "llama.cpp"), ("nanogpt", "nanoGPT")):
        result = terrarium("export", "text", "--run", "lstm", "--to", to, str(tmp_path / "lstm"))
        assert result.exit_code == 2 and f"{program} has no model of kind lstm" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "text", "--to", "onnx", "x"], "--to: 'onnx' is not known\n  Known: adapter, gguf, hf, nanogpt."),
        (["export", "text", "--to", "ggu", "x"], "Did you mean 'gguf'?"),
        (["export", "text", "--to", "gguf", "--type", "q4", "x"], "--type: 'q4' is not known"),
        (["import", "text", "--from", "pytorch", "x"], "--from: 'pytorch' is not known\n  Known: gguf, hf, nanogpt."),
        (
            ["import", "text", "--from", "hf", "nowhere"],
            "nowhere/config.json: cannot be read: No such file or directory",
        ),
        (["import", "text", "--from", "gguf", "nowhere"], "nowhere: cannot be read: No such file or directory"),
        (["export", "text", "--to", "hf", "x"], "text has no run 'default'"),
    ],
    ids=str,
)
def test_mistakes(text: Path, terrarium: Terrarium, arguments: list[str], message: str) -> None:
    result = terrarium(*arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert not (text / "out").exists() and not Path("x").exists()


def model_of(terrarium: Terrarium, tmp_path: Path) -> str:
    """A model folder of the trained run."""
    assert terrarium("export", "text", "--to", "hf", str(tmp_path / "model")).exit_code == 0
    return str(tmp_path / "model")


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, locks aside."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "lock" not in path.name and "__pycache__" not in path.parts
    }


def test_an_import_overwrites_nothing(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    model = model_of(terrarium, tmp_path)
    (trained / "config.mine.toml").write_text("# mine\n")
    (trained / "config.far.toml").write_text('[prepare]\ndataset_dir = "datasets/later"\n')
    (trained / "datasets" / "kept").mkdir()
    before = everything(trained.parent)
    for name, message in {
        "mine": "config.mine.toml: there is a variant of this name already",
        "default": "there is a run of this name already",
        "raw": "datasets/raw: there is a dataset of this name already",
        "kept": "datasets/kept: there is a dataset of this name already",
        "later": "datasets/later: the experiment's own dataset has this name",
        "basic": "'basic' is not a valid name for an imported run: basic is config.toml itself",
        "../evil": "'../evil' is not a valid run name",
        "a/b": "'a/b' is not a valid name for an imported run",
    }.items():
        result = terrarium("import", "text", "--from", "hf", model, "--run", name)
        assert result.exit_code == 2 and message in result.stderr, result.stderr
        assert "preparing" not in result.output
    assert everything(trained.parent) == before
    assert not list(trained.rglob("*evil*")) and not list(trained.rglob(".lock-[!b]*"))


def test_an_import_with_the_name_of_the_experiments_dataset_is_refused(
    trained: Path, terrarium: Terrarium, tmp_path: Path
) -> None:
    model, own = model_of(terrarium, tmp_path), ["-s", "prepare.dataset_dir=datasets/own"]
    assert terrarium("prepare", "text", *own, *BPE).exit_code == 0
    before = everything(trained)
    for more in (own, []):  # named by the settings of this command, or only standing there
        result = terrarium("import", "text", "--from", "hf", model, "--run", "own", *more)
        assert result.exit_code == 2 and "datasets/own: " in result.stderr, result.stderr
    assert everything(trained) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.model.n_layer=7", "train.model.n_layer cannot be chosen: an import takes it from the model, which has 1\n  Leave it out."),
        ("train.model.dropout=0.1", "train.model.dropout cannot be chosen: an import takes it from the model\n"),
        ("train.model.preset=gpt2", "which has 'portable'"),
        ("train.model.block_size=17", "train.model.block_size = 17, and the model was made for 16 tokens of context\n  Ask for at most 16."),
        ("prepare.encoder=char", "prepare.encoder cannot be chosen: an import takes it from the model, which has 'hf'"),
        ("prepare.tokenizer=x", "prepare.tokenizer cannot be chosen"),
        ("prepare.dataset_dir=x", "prepare.dataset_dir cannot be chosen"),
    ],
)  # fmt: skip
def test_a_setting_that_the_model_decides_is_refused(
    trained: Path, terrarium: Terrarium, tmp_path: Path, setting: str, message: str
) -> None:
    model, before = model_of(terrarium, tmp_path), everything(trained)
    result = terrarium("import", "text", "--from", "hf", model, "--run", "new", "-s", setting)
    assert result.exit_code == 2 and f"-s {setting}: " in result.stderr and message in result.stderr, result.stderr
    assert everything(trained) == before


def test_code_beside_a_model_is_not_run(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    """A folder that asks for its own code is read as what it says it is; its code and its pickle are left alone."""
    model, ran = Path(model_of(terrarium, tmp_path)), tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
    for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py", "__init__.py"):
        (model / name).write_text(code)
    (model / "pytorch_model.bin").write_bytes(b"cpathlib\nPath\n(S'%s'\ntR." % str(ran).encode())
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((model / name).read_text())
        auto = {"AutoConfig": "configuration_evil.C", "AutoModelForCausalLM": "modeling_evil.M", "AutoTokenizer": ["tokenization_evil.T", None]}  # fmt: skip
        (model / name).write_text(json.dumps(content | {"auto_map": auto}))
    done = terrarium("import", "text", "--from", "hf", str(model), "--run", "new")
    assert done.exit_code == 0, done.output
    assert sampled(terrarium, "--run", "new") == sampled(terrarium) and not ran.exists()


def test_what_nanogpt_s_model_decides_is_refused_too(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("train", "text", "--run", "nano", "-s", "train.model.preset=gpt2", *BPE).exit_code == 0
    assert terrarium("export", "text", "--run", "nano", "--to", "nanogpt", str(tmp_path / "ckpt.pt")).exit_code == 0
    command = ("import", "text", "--from", "nanogpt", str(tmp_path / "ckpt.pt"), *BPE)
    for setting in ("train.model.block_size=8", "train.data.block_size=8", "train.model.n_head=1"):
        result = terrarium(*command, "-s", setting)
        assert result.exit_code == 2 and "cannot be chosen" in result.stderr, result.stderr
    assert terrarium(*command, "-s", "train.model.n_head=2").exit_code == 0  # as it is


def test_what_a_killed_import_has_left_is_used_or_removed(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    command = ("import", "text", "--from", "hf", model_of(terrarium, tmp_path), "--run", "new")
    assert terrarium(*command).exit_code == 0
    whole = everything(trained / "datasets" / "new"), (trained / "config.new.toml").read_bytes()
    (trained / "out" / "new").rename(trained / "out" / ".tmp-new")  # it was not complete
    (trained / "out" / ".tmp-new" / "summary.json").unlink()
    done = terrarium(*command)
    assert done.exit_code == 0 and (trained / "out" / "new" / "summary.json").exists(), done.output
    assert whole == (everything(trained / "datasets" / "new"), (trained / "config.new.toml").read_bytes())
    assert not (trained / "out" / ".tmp-new").exists()


def test_a_model_with_fewer_rows_than_its_tokenizer_has_ids(
    trained: Path, terrarium: Terrarium, tmp_path: Path
) -> None:
    model, before = Path(model_of(terrarium, tmp_path)), everything(trained)
    tensors = load_file(model / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:-3].clone()
    save_file(tensors, model / "model.safetensors")
    result = terrarium("import", "text", "--from", "hf", str(model), "--run", "new")
    assert result.exit_code == 2 and "the weights have rows for 277 ids, but the tokenizer beside them gives 280" in result.stderr  # fmt: skip
    assert "of different models" in result.stderr and "nanoGPT" not in result.stderr
    assert everything(trained) == before


def test_an_experiment_with_stages_is_refused(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("export", "text", "--to", "hf", str(tmp_path / "model")).exit_code == 0
    with (trained / "config.toml").open("a") as file:
        file.write('\n[[stages]]\nname = "base"\n')
    result = terrarium("import", "text", "--from", "hf", str(tmp_path / "model"), "--run", "new")
    assert result.exit_code == 2 and "text has stages, and an imported model is a run without" in result.stderr


def test_a_shorter_context_is_taken_and_said(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("export", "text", "--to", "hf", str(tmp_path / "model")).exit_code == 0
    done = terrarium(
        "import", "text", "--from", "hf", str(tmp_path / "model"), "--run", "short", "-s", "train.model.block_size=8"
    )
    assert done.exit_code == 0 and "made for 16 tokens of context. The run has 8" in done.output
    assert "block_size = 8" in (trained / "out" / "short" / "config.toml").read_text()


def test_an_imported_chat_model_talks_where_the_data_are_no_conversations(
    text: Path, terrarium: Terrarium, tmp_path: Path
) -> None:
    """The variant has what was given for the data, so training from it prepares nothing again."""
    chat = ["-s", "prepare.special_tokens=chat"]
    assert terrarium("train", "text", "-s", "train.model.preset=portable", *BPE, *chat).exit_code == 0
    assert terrarium("export", "text", "--to", "hf", str(tmp_path / "model")).exit_code == 0
    done = terrarium("import", "text", "--from", "hf", str(tmp_path / "model"), "--run", "back", *chat)
    assert done.exit_code == 0, done.output
    model = open_experiment("text").run("back").load()
    assert model.trained.conversations
    reply(begin_talk(model), "Hi")  # it was refused
    assert 'special_tokens = "chat"' in (text / "config.back.toml").read_text()
    before = (text / "datasets" / "back" / "dataset.json").stat().st_mtime_ns
    more = terrarium("train", "text", "--variant", "back", "--run", "more")
    assert more.exit_code == 0, more.output
    assert (text / "datasets" / "back" / "dataset.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("model_args", "dropout", "much"),
        ("model_args", "dropout", float("nan")),
        ("content", "iter_num", None),
        ("content", "iter_num", float("inf")),
        ("content", "best_val_loss", [1]),
    ],
)
def test_a_checkpoint_of_nanogpt_with_an_odd_number_is_refused(
    text: Path, terrarium: Terrarium, tmp_path: Path, where: str, name: str, value: Any
) -> None:
    assert terrarium("train", "text", "-s", "train.model.preset=gpt2").exit_code == 0
    assert terrarium("export", "--to", "nanogpt", "text", str(tmp_path / "ckpt.pt")).exit_code == 0
    content = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    (content if where == "content" else content["model_args"])[name] = value
    torch.save(content, tmp_path / "ckpt.pt")
    done = terrarium("import", "text", "--from", "nanogpt", str(tmp_path / "ckpt.pt"), "--run", "new")
    assert done.exit_code == 2 and f"no nanoGPT checkpoint: {name} is {value!r}" in done.stderr
