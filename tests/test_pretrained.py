"""train.model.kind = "hf": a pretrained model is trained, resumed, sampled and evaluated like every other one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from pretrained import CONTEXT, IDS, make_base, make_experiment, needs, with_adapter
from safetensors.torch import load_file

from core import files, open_experiment
from core.config import Model
from core.errors import UserError
from core.sampling.engine import Continuation, Engine
from core.sampling.generate import generate

needs("transformers", "peft")

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base of each kind."""
    folder = tmp_path_factory.mktemp("bases")
    for kind in ("llama", "qwen3", "gpt2"):
        make_base(folder / kind, kind)
    return folder


@pytest.fixture
def fine(lab: Path, bases: Path) -> Path:
    return make_experiment(lab, bases / "llama", "params.dropout = 0.1\n")


def built(base: Path | str, block_size: int = 32, vocab_size: int = 257, **params: Any) -> Any:
    from core.huggingface.pretrained import Pretrained

    return Pretrained(Model(kind="hf", block_size=block_size), vocab_size, name=str(base), **params)


def theirs(base: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(base)


def tokens_of(rows: int = 2, size: int = 9) -> torch.Tensor:
    return torch.randint(0, 257, (rows, size), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_its_logits_are_those_of_transformers_before_training(bases: Path, kind: str) -> None:
    model = built(bases / kind).eval()
    logits = model(tokens_of())
    assert logits.shape == (2, 9, IDS)
    assert torch.equal(logits, theirs(bases / kind).eval()(input_ids=tokens_of()).logits)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_a_cache_changes_no_token(bases: Path, kind: str) -> None:
    """Greedy, and past block_size, where the context is cut. One row at a time in an Engine writes the same."""
    model = built(bases / kind, block_size=16, vocab_size=IDS)
    prompts, written = tokens_of(3, 5), []
    for use_cache in (True, False):
        steps = generate(model, prompts, max_new_tokens=24, temperature=0, use_cache=use_cache)
        written.append(torch.stack(list(steps)))
    assert torch.equal(*written) and len(written[0].unique()) > 3
    engine = Engine(model, 3)
    for row in prompts.tolist():
        engine.join(Continuation(tuple(row), 24, temperature=0.0))
    for _ in range(24):
        engine.step()
    assert [running.new for running in engine.running] == written[0].T.tolist()


def test_ids_that_the_encoder_does_not_have_are_never_written(bases: Path) -> None:
    model = built(bases / "llama", vocab_size=6)
    assert all(int(each.max()) < 6 for each in generate(model, tokens_of(1, 4) % 6, max_new_tokens=20, temperature=1.0))


def test_a_cache_refuses_more_than_block_size(bases: Path) -> None:
    model = built(bases / "llama", block_size=8).eval()
    with pytest.raises(ValueError, match="9 tokens do not fit the model's block_size = 8"):
        model(tokens_of(), model.new_cache(2))


def test_only_adapters_are_trained_and_saved(fine: Path, bases: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "fine")
    assert result.exit_code == 0, result.stderr
    assert "adapters on 2 x q_proj 32 x 32, 2 x k_proj 16 x 32" in result.output
    assert "8,192 of 36,384 numbers are trained (22.52%)" in result.output
    run = fine / "out/default"
    weights = load_file(run / "checkpoints/best/model.safetensors")
    assert len(weights) == 28 and all(".lora_A." in name or ".lora_B." in name for name in weights)
    assert (
        sum(each.numel() for each in weights.values())
        == 8192
        == json.loads((run / "summary.json").read_text())["parameters"]
    )
    optimizer = load_file(run / "checkpoints/best/optimizer.safetensors")
    assert sum(each.numel() for name, each in optimizer.items() if name.endswith("exp_avg")) == 8192
    state = json.loads((run / "checkpoints/best/state.json").read_text())
    assert state["base"] == built(bases / "llama").pretrained_base
    config = (run / "config.toml").read_text()
    assert 'revision = ""' in config and 'weights = "float32"' in config
    assert 'name = "adamw"' in config


def test_plain_peft_loads_the_adapters(fine: Path, bases: Path, terrarium: Terrarium) -> None:
    """best, last and final: peft.PeftModel.from_pretrained gives the logits that the run's checkpoint gives."""
    assert terrarium("train", "fine", "-q").exit_code == 0
    run, logits = fine / "out/default", {}
    for name in ("best", "last", "final"):
        model = with_adapter(bases / "llama", run / "adapters" / name)
        checkpoint = "best" if name == "best" else "last"
        with torch.no_grad():
            logits[name] = model(input_ids=tokens_of()).logits
            own = open_experiment("fine").run().load(checkpoint).module(tokens_of())
        assert torch.equal(logits[name], own)
    assert not torch.equal(logits["final"], theirs(bases / "llama").eval()(input_ids=tokens_of()).logits)
    config = json.loads((run / "adapters/final/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 16.0, 0.1)
    assert config["base_model_name_or_path"] == str(bases / "llama")


KILLED = """

def on_checkpoint(run, step, path):
    import os

    if os.environ.get("KILLED_AT") == f"{path.name} {step}":
        os._exit(9)
"""


def test_a_killed_run_goes_on_bit_for_bit(fine: Path, terrarium: Terrarium) -> None:
    """Killed between checkpoint and adapter: weights, optimizer, metrics and adapters become those of an unbroken run."""
    with (fine / "prepare.py").open("a") as file:
        file.write(KILLED)
    assert terrarium("train", "fine", "-q", "--run", "whole").exit_code == 0
    command = [sys.executable, "-m", "core.cli", "train", "fine", "-q", "--run", "cut"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KILLED_AT": "last 4"}
    assert subprocess.run(command, cwd=fine.parent.parent, env=environment, capture_output=True).returncode == 9
    assert terrarium("train", "fine", "-q", "--run", "cut").exit_code == 0
    for part in ("checkpoints/last", "checkpoints/best"):
        for name in ("model.safetensors", "optimizer.safetensors"):
            one, other = (load_file(fine / "out" / run / part / name) for run in ("whole", "cut"))
            assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    for name in ("best", "last", "final"):
        one, other = (
            (fine / "out" / run / "adapters" / name / "adapter_model.safetensors").read_bytes()
            for run in ("whole", "cut")
        )
        assert one == other
    learnt = []
    for run in ("whole", "cut"):
        with (fine / "out" / run / "metrics.csv").open() as file:
            names = ("step", "train_loss", "val_loss", "grad_norm", "param_norm", "learning_rate")
            learnt.append([[row[name] for name in names] for row in csv.DictReader(file)])
    assert learnt[0] == learnt[1] and len(learnt[0]) == 4


KILLED_AT_THE_END = """

def on_train_end(run, summary):
    import os

    if os.environ.get("KILLED_AT") == "the end":
        os._exit(9)
"""


def test_a_run_that_is_killed_at_its_very_end_gets_its_final_adapter(fine: Path, terrarium: Terrarium) -> None:
    """Its summary says completed, and its final adapter is missing: the next train writes it, and no other file."""
    with (fine / "prepare.py").open("a") as file:
        file.write(KILLED_AT_THE_END)
    command = [sys.executable, "-m", "core.cli", "train", "fine", "-q"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KILLED_AT": "the end"}
    assert subprocess.run(command, cwd=fine.parent.parent, env=environment, capture_output=True).returncode == 9
    adapters = fine / "out/default/adapters"
    assert not (adapters / "final").exists() and (adapters / "last").exists()
    changed = (adapters / "last" / "adapter_model.safetensors").stat().st_mtime_ns
    result = terrarium("train", "fine")
    assert result.exit_code == 0 and "is finished" in result.output
    one, other = ((adapters / name / "adapter_model.safetensors").read_bytes() for name in ("final", "last"))
    assert one == other and (adapters / "last" / "adapter_model.safetensors").stat().st_mtime_ns == changed


def test_an_adapter_of_the_same_step_with_other_weights_is_written_again(fine: Path, terrarium: Terrarium) -> None:
    """As after a resume that is not bit-exact. One of the same weights stays as it is."""
    from core.huggingface.adapters import adapter_of_checkpoint, catch_up

    assert terrarium("train", "fine", "-q").exit_code == 0
    assert terrarium("train", "fine", "-q", "--run", "other", "-s", "train.runtime.seed=5").exit_code == 0
    run = open_experiment("fine").run().load().run
    file = run.folder / "adapters/best/adapter_model.safetensors"
    before, written = file.read_bytes(), file.stat().st_mtime_ns
    catch_up(run, ended=True)
    assert file.stat().st_mtime_ns == written
    state = json.loads((fine / "out/default/checkpoints/best/state.json").read_text())
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        shutil.copyfile(fine / "out/other/checkpoints/last" / name, fine / "out/default/checkpoints/best" / name)
    moved = json.loads((run.checkpoints / "best/state.json").read_text())
    moved = {name: value for name, value in moved.items() if name != "seal"} | {"step": state["step"]}
    (run.checkpoints / "best/state.json").write_bytes(files.sealed(moved))
    adapter_of_checkpoint(run, run.checkpoints / "best", "best")
    assert file.read_bytes() != before
    assert (
        json.loads((file.parent / "origin.json").read_text())["weights"]
        == moved["files"]["model.safetensors"]["sha256"]
    )


def test_full_finetuning_trains_and_saves_everything(lab: Path, bases: Path, terrarium: Terrarium) -> None:
    folder = make_experiment(lab, bases / "llama", "params.lora = false\nparams.gradient_checkpointing = true\n")
    result = terrarium("train", "fine", "-s", "train.optim.learning_rate=0.001")
    assert result.exit_code == 0, result.stderr
    assert "no adapters: the whole model is trained" in result.output
    weights = load_file(folder / "out/default/checkpoints/best/model.safetensors")
    assert sum(each.numel() for each in weights.values()) == sum(
        each.numel() for each in theirs(bases / "llama").parameters()
    )
    assert not (folder / "out/default/adapters").exists()
    model = open_experiment("fine").run().load()
    before = theirs(bases / "llama").state_dict()
    assert all(not torch.equal(each, before[name]) for name, each in model.module.model.named_parameters())


def test_gradient_checkpointing_changes_no_gradient(bases: Path) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = built(bases / "llama", dropout=0.1, gradient_checkpointing=checkpointing)
        torch.manual_seed(1)
        model(tokens_of()).square().mean().backward()
        found.append([each.grad for each in model.parameters() if each.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_another_base_is_refused(fine: Path, bases: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    """The config names the same path, but the files there have changed: neither sampling nor a resume goes on."""
    base = shutil.copytree(bases / "llama", tmp_path / "base")
    config = (fine / "config.toml").read_text().replace(str(bases / "llama"), str(base))
    (fine / "config.toml").write_text(config)
    assert terrarium("train", "fine", "-q").exit_code == 0
    make_base(base, seed=5)
    for command in (("sample", "fine"), ("train", "fine", "--resume", "-s", "train.schedule.max_iters=8")):
        result = terrarium(*command)
        assert result.exit_code == 2, result.output
        assert f"the weights were trained on {base} (sha256 " in result.stderr
        assert "Put the files of the base model back" in result.stderr


def test_a_path_starts_at_the_experiments_folder(
    lab: Path, bases: Path, terrarium: Terrarium, monkeypatch: Any
) -> None:
    folder = make_experiment(lab, Path("base"))
    shutil.copytree(bases / "llama", folder / "base")
    assert terrarium("train", "fine", "-q").exit_code == 0
    monkeypatch.chdir(lab)
    assert terrarium("sample", "fine", "-q", "-s", "sample.sample.num_samples=1").exit_code == 0


def test_check_lists_the_layers(fine: Path, terrarium: Terrarium) -> None:
    found = json.loads(terrarium("check", "fine", "--json", "-s", "train.model.n_layer=3").stdout)
    assert found["adapters"]["layers"][0] == {"name": "q_proj", "shape": [32, 32], "count": 2}
    assert (found["adapters"]["trained"], found["adapters"]["numbers"]) == (8192, 36384)
    if sys.platform == "linux":
        cost = found["prediction"]
        assert 0 <= cost["step_bytes"] < cost["memory_bytes"] and 0 <= cost["evaluation_bytes"] < cost["memory_bytes"]
    told = [warning["message"] for warning in found["warnings"]]
    assert "n_layer: not used, because a pretrained model brings its own" in told


def test_defaults_of_a_pretrained_model(fine: Path) -> None:
    from core.lab.opened import as_overrides, open_folder

    text = (fine / "config.toml").read_text().replace("learning_rate = 0.01\n", "")
    (fine / "config.toml").write_text(text)
    rates = [
        open_folder("fine", overrides=as_overrides(given)).config.train.optim.learning_rate
        for given in ({}, {"train.model.params.lora": False}, {"train.optim.name": "muon"})
    ]
    assert rates == [2e-4, 2e-5, 0.02]
    given = open_folder("fine", overrides=("train.optim.learning_rate=0.5",)).config.train.optim
    assert (given.name, given.learning_rate, given.weight_decay, given.beta2) == ("adamw", 0.5, 0.0, 0.999)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"target_modules": ["q_proj", "w_proj"]}, "no layer of the base model is called 'w_proj'\n  Did you mean"),
        (
            {"target_modules": r".*\.attn"},
            r"no layer of the base model is called '.*\.attn'" + "\n  Its layers end in: q_proj, k_proj,",
        ),
        ({"target_modules": "("}, 'target_modules = "(" is not a regular expression: missing ), unterminated'),
        ({"target_modules": ["lm_head"]}, "lm_head shares its weights with the embedding"),
        ({"quantize": "nf4", "lora": False}, 'quantize = "nf4" with lora = false: four bits can hold a base'),
        ({"revision": "main"}, 'revision = "main", but '),
        ({"block_size": CONTEXT + 1}, f"block_size = {CONTEXT + 1} is more than the {CONTEXT} tokens that "),
        ({"vocab_size": IDS + 1}, f"the encoder has {IDS + 1} ids, and "),
    ],
)
def test_what_does_not_fit_is_refused(bases: Path, params: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        built(bases / "llama", **params)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "./nothing",
            "no model is at './nothing'\n  Give a folder with config.json and weights, a .gguf file, or a name on the hub",
        ),
        ("lost.gguf", "there is no file lost.gguf\n  Relative paths start at the experiment's folder."),
        ("empty", "empty has no config.json, so it is not a model of transformers"),
        (
            "pickled",
            "pickled has no weights in the form *.safetensors\n  Save it again as safetensors: other forms can run code",
        ),
        ("strange", "transformers cannot load strange: "),
        ("part", "part lacks 1 of the weights of a LlamaForCausalLM: model.norm.weight\n  Give a complete model"),
    ],
)
def test_a_base_that_is_not_there_or_not_whole(
    bases: Path, tmp_path: Path, name: str, told: str, monkeypatch: Any
) -> None:
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "pickled", "strange", "part"):
        Path(folder).mkdir()
    shutil.copy(bases / "llama/config.json", "pickled")
    Path("pickled/pytorch_model.bin").write_bytes(b"")
    Path("strange/config.json").write_text('{"model_type": "unheard_of"}')
    save_file({"a": torch.zeros(1)}, "strange/model.safetensors")
    shutil.copy(bases / "llama/config.json", "part")
    weights = load_file(bases / "llama/model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if key != "model.norm.weight"},
        "part/model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError) as error:
        built(name)
    assert str(error.value).startswith(f"train.model.params.name: {told}")


def test_a_hubs_name_needs_a_commit_or_nothing(monkeypatch: Any, bases: Path, tmp_path: Path) -> None:
    """A branch is refused; the newest commit is recorded; an unreachable hub is one message. The hub is a stand-in here."""
    import huggingface_hub

    from core.huggingface.base import find_base
    from core.huggingface.pretrained import Pretrained

    with pytest.raises(
        UserError, match='revision = "main" is not a commit, and a name can stand for other weights tomorrow'
    ):
        find_base("someone/model", "main")
    commit = "0123456789abcdef0123456789abcdef01234567"
    asked: list[tuple[Any, bool]] = []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append((revision, local_files_only))
        if name == "someone/lost":
            raise OSError("404 Client Error.\n\nRepository Not Found")
        return str(shutil.copytree(bases / "llama", tmp_path / commit, dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert Pretrained.settled({"name": "someone/model"}, None, "bfloat16") == {
        "name": "someone/model", "revision": commit, "weights": "bfloat16",
    }  # fmt: skip
    assert find_base("someone/model", commit).identity["revision"] == commit
    assert asked == [(None, False), (commit, True)]
    with pytest.raises(
        UserError, match=r"someone/lost cannot be fetched from the hub: 404 Client Error\.\n  Check the name"
    ):
        find_base("someone/lost")


@pytest.mark.parametrize("package", ["transformers", "peft", "bitsandbytes"])
def test_a_missing_package_is_named_with_its_remedy(bases: Path, package: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError,
        match=rf"needs the package {package}, which is not installed\n  Install it: pip install -c constraints\.txt -e '\.\[hf\]'",
    ):
        built(bases / "llama", quantize="nf4" if package == "bitsandbytes" else "none")


def test_unknown_and_wrong_params(fine: Path, terrarium: Terrarium) -> None:
    for given, told in (
        ("rank=4", "unknown key 'train.model.params.rank'"),
        ("r=0", "should be greater than or equal to 1"),
        ("quantize=int8", "'none' or 'nf4'"),
    ):
        result = terrarium("train", "fine", "-s", f"train.model.params.{given}")
        assert result.exit_code == 2 and told in result.stderr, result.output
    text = (fine / "config.toml").read_text()
    (fine / "config.toml").write_text("\n".join(line for line in text.splitlines() if "params.name" not in line))
    result = terrarium("train", "fine")
    assert result.exit_code == 2 and "train.model.params.name is missing" in result.stderr


def test_dead_weights_are_warned_of(bases: Path, tmp_path: Path) -> None:
    base = shutil.copytree(bases / "llama", tmp_path / "dead")
    from safetensors.torch import save_file

    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"].zero_()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match=r"the weights of model\.layers\.1\.self_attn\.o_proj are all zero"):
        built(base)


@torch.no_grad()
def kl_of(loaded: Any, other: Any) -> float:
    """Mean KL divergence of the next token's distribution, nats, by torch's own function, over the first validation rows."""
    from core.data.batches import validation_rows

    rows = [torch.from_numpy(inputs) for inputs, _ in validation_rows(loaded.dataset.val, loaded.config.train.data, 8)]
    each = [
        torch.nn.functional.kl_div(
            other(input_ids=row).logits.double().log_softmax(-1),
            loaded.module.eval()(row).double().log_softmax(-1),
            reduction="sum",
            log_target=True,
        )
        for row in rows
    ]
    return float(sum(each)) / sum(row.numel() for row in rows)


def test_a_merged_model_computes_the_same(fine: Path, bases: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    from core.huggingface.adapters import write_adapter
    from core.huggingface.merging import compared, write_merged

    assert terrarium("train", "fine", "-q").exit_code == 0
    loaded = open_experiment("fine").run().load()
    (tmp_path / "merged").mkdir()
    report = write_merged(loaded, tmp_path / "merged")
    assert 0 < report.largest < 1e-4 and 0 <= report.kl < 1e-8 and report.tokens > 100
    changed = theirs(tmp_path / "merged")
    with torch.no_grad():
        changed.model.norm.weight.mul_(1.5)
    wrong = compared(loaded, changed)
    assert wrong.largest > 0.1 and wrong.tokens == report.tokens
    assert wrong.kl == pytest.approx(kl_of(loaded, changed), rel=1e-4) and wrong.kl > 0.01
    with torch.no_grad():
        merged = theirs(tmp_path / "merged").eval()(input_ids=tokens_of()).logits
        assert torch.allclose(merged, loaded.module(tokens_of()), atol=1e-4)
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_adapter(loaded, folder)
    best = fine / "out/default/adapters/best"
    assert all(
        (folder / name).read_bytes() == (best / name).read_bytes()
        for name in ("adapter_model.safetensors", "adapter_config.json")
    )


def test_export_writes_the_adapter_and_the_merged_model(
    fine: Path, bases: Path, terrarium: Terrarium, tmp_path: Path
) -> None:
    """Plain peft and transformers load them, with the tokenizer of the run."""
    import transformers

    assert terrarium("train", "fine").exit_code == 0
    loaded = open_experiment("fine").run().load()
    done = terrarium("export", "fine", "--to", "adapter", str(tmp_path / "adapter"))
    assert done.exit_code == 0, done.output
    done = terrarium("export", "fine", "--to", "hf", str(tmp_path / "merged"))
    assert done.exit_code == 0 and "Merged in float32: logits differ by" in done.output, done.output
    merged = theirs(tmp_path / "merged").eval()
    adapted = with_adapter(bases / "llama", tmp_path / "adapter")
    with torch.no_grad():
        ours = loaded.module(tokens_of())
        torch.testing.assert_close(adapted(input_ids=tokens_of()).logits, ours, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(merged(input_ids=tokens_of()).logits, ours, rtol=1e-4, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    text = loaded.dataset.examples("val", 1)[0].prompt
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == loaded.encoder.encode(text).tolist()
    for kind in ("adapter", "merged"):
        assert "fine/default" in (tmp_path / kind / "README.md").read_text()
    again = terrarium("export", "fine", "--to", "hf", str(tmp_path / "merged"))
    assert again.exit_code == 2 and "is not empty" in again.stderr
    gguf = terrarium("export", "fine", "--to", "gguf", str(tmp_path / "gguf"))
    assert (
        gguf.exit_code == 2 and "llama.cpp has no model of kind hf" in gguf.stderr and not (tmp_path / "gguf").exists()
    )


@pytest.mark.slow
def test_it_is_served_swept_and_compared(fine: Path, terrarium: Terrarium) -> None:
    """A server writes what `complete` writes; a sweep trains it with two seeds; compare reads both."""
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    from serving import serving

    done = terrarium("sweep", "fine", "--seeds", "0,1", "--grid", "train.model.params.r=2,4")
    assert done.exit_code == 0, done.output
    runs = sorted(path.parent.name for path in (fine / "out").glob("*/summary.json"))
    assert len(runs) == 4
    ranks = {open_experiment("fine").run(name).load().module.lora.r for name in runs}
    assert ranks == {2, 4}
    told = terrarium("compare", *(f"fine/{name}" for name in runs[:2]))
    assert told.exit_code == 0, told.output
    assert terrarium("train", "fine", "-q").exit_code == 0
    model = open_experiment("fine").run().load()
    with serving(["fine"]) as server:
        asked = {"model": "fine", "prompt": "ab: ", "temperature": 0, "max_tokens": 8}
        found = server.ask("/v1/completions", asked)
    [text] = model.complete(["ab: "], temperature=0, max_new_tokens=8)
    assert found.status == 200 and found.json["choices"][0]["text"].rstrip("\n") == text.rstrip("\n")
