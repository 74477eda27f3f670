"""The command line as a user meets it: what each command makes and says, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TINY

from core.tracking.metrics import read_rows
from core.tracking.run import SUMMARY

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parent.parent


def test_loop_makes_everything_that_the_contract_names(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("loop", "spaces", "--description", "does it run?")
    assert result.exit_code == 0, result.output
    dataset, run = spaces / "datasets" / "basic", spaces / "out" / "default"
    for name in (
        "train.bin",
        "val.bin",
        "meta.pkl",
        "dataset.json",
        "train.mask.bin",
        "val.mask.bin",
        "train.idx.bin",
        "val.idx.bin",
    ):
        assert (dataset / name).stat().st_size > 0
    for name in (
        "config.toml",
        "metrics.csv",
        "metrics.json",
        "summary.json",
        "samples.txt",
        "report.html",
        "loss_curves.png",
        "lr_schedule.png",
    ):
        assert (run / name).stat().st_size > 0
    for kind in ("best", "last"):
        for part in ("model.safetensors", "optimizer.safetensors", "state.json"):
            assert (run / "checkpoints" / kind / part).stat().st_size > 0
    summary = json.loads((run / "summary.json").read_text())
    assert set(SUMMARY) - {"cropped", "padding"} <= summary.keys()  # those are of packed documents
    assert (summary["status"], summary["steps"], summary["experiment"], summary["run"]) == (
        "completed",
        6,
        "spaces",
        "default",
    )
    assert summary["description"] == "does it run?"
    rows = read_rows(run / "metrics.csv")
    assert [row["step"] for row in rows] == [2, 3, 4, 6]
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 6]
    assert rows[-1]["val_loss"] == summary["final_val_loss"]
    assert json.loads((run / "metrics.json").read_text()) == rows
    log = (spaces / "EXPERIMENT_LOG.md").read_text()
    assert "does it run?" in log


def test_train_twice_trains_once(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    before = (spaces / "out" / "default" / "metrics.csv").read_bytes()
    again = terrarium("train", "spaces")
    assert again.exit_code == 0
    assert "spaces/default is finished" in again.output
    assert (spaces / "out" / "default" / "metrics.csv").read_bytes() == before


def test_another_config_asks_for_fresh_or_a_name_and_loses_nothing(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    before = (spaces / "out" / "default" / "metrics.csv").read_bytes()
    other = terrarium("train", "spaces", "-s", "train.optim.learning_rate=0.001")
    assert other.exit_code == 2
    assert "made with other settings: train.optim.learning_rate: 0.02 -> 0.001" in other.stderr
    assert "--run NAME" in other.stderr
    assert "--fresh" in other.stderr
    assert terrarium("train", "spaces", "-s", "train.optim.learning_rate=0.001", "--run", "slow").exit_code == 0
    fresh = terrarium("train", "spaces", "-s", "train.optim.learning_rate=0.001", "--fresh")
    assert fresh.exit_code == 0
    assert "The old run default is now default-1." in fresh.output
    assert (spaces / "out" / "default-1" / "metrics.csv").read_bytes() == before
    names = [run["run"] for run in json.loads(terrarium("runs", "spaces", "--json").stdout)]
    assert names == ["default", "default-1", "slow"]


def test_resume_goes_on_bit_for_bit(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", "--run", "whole", "-s", "train.model.dropout=0.1").exit_code == 0
    stop = "\ndef on_checkpoint(run, step, path):\n    if step == 4 and run.name == 'parts' and not (path.parent / 'seen').exists():\n        (path.parent / 'seen').touch()\n        raise RuntimeError('stop here')\n"
    source = (spaces / "prepare.py").read_text()
    (spaces / "datasets" / "basic").rename(spaces / "kept")
    (spaces / "prepare.py").write_text(source + stop)
    assert terrarium("train", "spaces", "--run", "parts", "-s", "train.model.dropout=0.1").exit_code == 1
    summary = json.loads((spaces / "out" / "parts" / "summary.json").read_text())
    assert summary["status"] == "failed" and 4 <= summary["steps"] < 10  # the save is reported some steps later
    resumed = terrarium("train", "spaces", "--run", "parts", "-s", "train.model.dropout=0.1")
    assert resumed.exit_code == 0, resumed.output
    assert re.search("resumed at step [4-6]", resumed.output)
    for part in ("model.safetensors", "optimizer.safetensors"):
        whole, parts = (spaces / "out" / run / "checkpoints" / "last" / part for run in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
    exact = ("step", "tokens", "train_loss", "val_loss", "grad_norm", "val_accuracy")
    whole_rows, part_rows = (read_rows(spaces / "out" / run / "metrics.csv") for run in ("whole", "parts"))
    assert [[row.get(key) for key in exact] for row in whole_rows] == [
        [row.get(key) for key in exact] for row in part_rows
    ]


def test_resume_may_train_for_longer(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    assert terrarium("train", "spaces", "-s", "train.schedule.max_iters=8").exit_code == 2
    longer = terrarium("train", "spaces", "-s", "train.schedule.max_iters=8", "--resume")
    assert longer.exit_code == 0, longer.output
    assert json.loads((spaces / "out" / "default" / "summary.json").read_text())["steps"] == 8


def test_resume_without_a_run_is_told(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces", "--resume")
    assert result.exit_code == 2
    assert "spaces has no run 'default' to resume" in result.stderr


def test_a_copied_folder_starts_its_own_runs(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    copy = spaces.parent / "my_idea"
    shutil.copytree(spaces, copy)
    assert "my_idea has no run 'default'" in terrarium("sample", "my_idea").stderr
    assert [run["run"] for run in json.loads(terrarium("runs", "my_idea", "--json").stdout)] == []
    (copy / "config.toml").write_text((copy / "config.toml").read_text() + '\n[prepare.params]\nalphabet = "xyz"\n')
    result = terrarium("loop", "my_idea")
    assert result.exit_code == 0, result.output
    assert "default is a copied run of spaces; it is now default-of-spaces-1." in result.output
    assert json.loads((copy / "out" / "default" / "summary.json").read_text())["experiment"] == "my_idea"
    samples = json.loads(terrarium("sample", "my_idea", "--json").stdout)["samples"]
    assert all(set(sample["start"]) <= set("xyz: ") for sample in samples)


def test_sample_of_examples_shows_held_out_prompts_with_the_truth(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    result = terrarium("sample", "spaces", "--num_samples=2", "--json")
    samples = json.loads(result.stdout)["samples"]
    assert len(samples) == 2
    for sample in samples:
        assert sample["truth"] == " ".join(sample["start"].removesuffix(": ")) + "\n"
        assert sample["correct"] == (sample["text"] == sample["truth"])
    one = json.loads(
        terrarium(
            "sample", "spaces", "--start=ab: ", "--num-samples", "1", "--max_new_tokens=3", "--seed=1", "--json"
        ).stdout
    )
    assert one["samples"][0]["start"] == "ab: "
    assert len(one["samples"][0]["text"]) <= 3


def test_sample_of_text_starts_where_told(text: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "text").exit_code == 0
    (text / "start.txt").write_text("quick")
    for start in ("quick", f"FILE:{text}/start.txt"):
        result = terrarium("sample", "text", "--start", start, "--num-samples", "1", "--max-new-tokens", "5", "--json")
        assert json.loads(result.stdout)["samples"][0]["start"] == "quick"
    again = [
        terrarium("sample", "text", "--temperature", "1", "--seed", "5", "--max-new-tokens", "20").stdout
        for _ in range(2)
    ]
    assert again[0] == again[1]
    missing = terrarium("sample", "text", "--start", "FILE:nowhere.txt")
    assert missing.exit_code == 2
    assert "--start FILE:nowhere.txt: cannot be read" in missing.stderr


def test_evaluate_tells_loss_and_exact_match(spaces: Path, terrarium: Terrarium) -> None:
    (spaces / "prepare.py").write_text(
        (spaces / "prepare.py").read_text()
        + "\ndef evaluate(run, model, encoder):\n    return {'letters': encoder.vocab_size}\n"
    )
    assert terrarium("train", "spaces").exit_code == 0
    metrics = json.loads(terrarium("evaluate", "spaces", "--json").stdout)
    assert {"val_loss", "bits_per_byte", "val_accuracy", "train_accuracy"} <= metrics.keys()
    assert metrics["letters"] == 6
    assert "val_loss" in terrarium("evaluate", "spaces").stdout


def test_a_variant_has_its_own_data_and_run(spaces: Path, terrarium: Terrarium) -> None:
    (spaces / "config.long.toml").write_text("[prepare.params]\nmax_letters = 4\n")
    assert terrarium("loop", "spaces", "--variant", "long").exit_code == 0
    assert (spaces / "datasets" / "long" / "train.bin").exists()
    assert (spaces / "out" / "long" / "summary.json").exists()
    assert not (spaces / "out" / "default").exists()
    assert terrarium("sample", "spaces", "--variant", "long").exit_code == 0


def test_list_shows_runs_and_survives_a_broken_neighbour(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    broken = spaces.parent / "broken"
    broken.mkdir()
    (broken / "prepare.py").write_text("this is no python\n")
    (broken / "config.toml").write_text("nor = = toml")
    rows = {row["name"]: row for row in json.loads(terrarium("list", "--json").stdout)}
    assert rows["spaces"]["prepared"] is True
    assert rows["spaces"]["runs"] == 1
    assert (
        rows["spaces"]["best_loss"]
        == json.loads((spaces / "out" / "default" / "summary.json").read_text())["best_val_loss"]
    )
    assert rows["spaces"]["summary"] == "Put a space between the letters of a word."
    assert "cannot be read" in rows["broken"]["summary"]
    assert terrarium("train", "spaces", "--run", "again").exit_code == 0


def test_new_copies_source_files_only(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    assert terrarium("new", "idea", "--from", "spaces").exit_code == 0
    assert sorted(path.name for path in (spaces.parent / "idea").iterdir()) == ["config.toml", "prepare.py"]
    again = terrarium("new", "idea", "--from", "spaces")
    assert again.exit_code == 2
    assert "this folder exists already" in again.stderr
    assert "is not a valid folder name" in terrarium("new", "../idea", "--from", "spaces").stderr


def test_nanogpts_three_files_train_and_sample(text: Path, lab: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("prepare", "text").exit_code == 0
    foreign = lab / "foreign"
    foreign.mkdir()
    for name in ("train.bin", "val.bin", "meta.pkl"):
        shutil.copy(text / "datasets" / "basic" / name, foreign / name)
    tiny = [
        "-s",
        "train.model.n_embd=16",
        "-s",
        "train.data.block_size=8",
        "-s",
        "train.schedule.max_iters=2",
        "-s",
        "train.runtime.device=cpu",
    ]
    assert terrarium("train", "foreign", *tiny).exit_code == 0
    assert terrarium("sample", "foreign", "--num-samples", "1", "--max-new-tokens", "4").exit_code == 0
    pointed = terrarium("train", "text", "-s", f"prepare.dataset_dir={foreign}", "--run", "pointed")
    assert pointed.exit_code == 0, pointed.output
    forced = terrarium("prepare", "text", "-s", f"prepare.dataset_dir={foreign}", "--force")
    assert forced.exit_code == 2
    assert "not made by prepare" in forced.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "space"], ["no experiment is called 'space'", "Did you mean 'spaces'?"]),
        (["train", "spaces", "-s", "train.optim.learning_rat=1"], ["-s train.optim.learning_rat=1", "Did you mean 'learning_rate'?"]),
        (["train", "spaces", "-s", "train.model.n_layer=two"], ['train.model.n_layer = "two"', "a whole number"]),
        (["train", "spaces", "-s", "prepare.params.alphabe=x"], ["alphabe", "alphabet"]),
        (["train", "spaces", "-s", "prepare.encoder=chars"], ["prepare.encoder", "Did you mean 'char'?"]),
        (["train", "spaces", "-s", "train.model.kind=gtp"], ["train.model.kind", "Did you mean 'gpt'?"]),
        (["train", "spaces", "-s", "train.optim.name=adamv"], ["train.optim.name", "Did you mean 'adam'?"]),
        (["train", "spaces", "-s", "train.runtime.device=cuda:7"], ["train.runtime.device", '"auto" takes the best device']),
        (["sample", "spaces"], ["spaces has no run 'default'", "Train it first"]),
        (["sample", "spaces", "--run", "x"], ["spaces has no run 'x'"]),
        (["train", "spaces", "--variant", "wide"], ["no variant 'wide'"]),
        (["train", "text", "-s", "train.model.block_size=4000"], ["4000"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_exit_code_2(
    spaces: Path, text: Path, terrarium: Terrarium, arguments: list[str], parts: list[str]
) -> None:
    result = terrarium(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.stderr


def test_an_unknown_character_in_start_is_told(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    result = terrarium("sample", "spaces", "--start", "aZ: ")
    assert result.exit_code == 2
    assert "'Z'" in result.stderr


def test_a_bug_keeps_its_traceback(spaces: Path) -> None:
    (spaces / "prepare.py").write_text("def documents():\n    raise ZeroDivisionError('a bug')\n    yield ''\n")
    done = subprocess.run(
        [sys.executable, "-m", "core.cli", "train", "spaces"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr


def test_a_run_in_use_is_told(spaces: Path, terrarium: Terrarium) -> None:
    from core import files

    (spaces / "out").mkdir()
    with files.lock(spaces / "out" / ".default.lock", "run"):
        result = terrarium("train", "spaces")
    assert result.exit_code == 2
    assert f"run spaces/default is in use by process {os.getpid()}" in result.stderr


def test_help_and_list_do_not_import_torch(spaces: Path) -> None:
    for arguments in (["--help"], ["list"], ["train", "--help"], ["runs", "spaces"]):
        code = f"import sys\nfrom core.cli.main import cli\ncli({arguments!r}, standalone_mode=False)\nassert 'torch' not in sys.modules, 'torch'"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_the_package(terrarium: Terrarium) -> None:
    result = terrarium("--version")
    assert (result.exit_code, result.stdout) == (0, f"terrarium, version {version('terrarium-lab')}\n")


def test_every_command_that_tells_of_no_effect_knows_what_has_one() -> None:
    """`chat EXP -s KEY=VALUE` ended in a traceback."""
    from core.cli.options import EFFECTIVE

    files = sorted((Path(__file__).parents[1] / "core" / "cli").glob("*.py"))
    asked = [name for file in files for name in re.findall(r'tell_of_no_effect\("(\w+)"', file.read_text())]
    assert set(asked) == set(EFFECTIVE)


def test_quiet_prints_nothing(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("loop", "spaces", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_weights_go_to_nanogpt_and_back(text: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    gpt2 = ["-s", "train.model.preset=gpt2"]
    assert terrarium("train", "text", "--run", "ours", *gpt2).exit_code == 0
    exported = terrarium("export", "--to", "nanogpt", "text", str(tmp_path / "new" / "ckpt.pt"), "--run", "ours")
    assert exported.exit_code == 0, exported.output
    imported = terrarium("import", "--from", "nanogpt", "text", str(tmp_path / "new" / "ckpt.pt"), "--run", "theirs")
    assert imported.exit_code == 0, imported.output
    first, second = (
        json.loads(
            terrarium("sample", "text", "--run", run, "--temperature", "0", "--max-new-tokens", "20", "--json").stdout
        )
        for run in ("ours", "theirs")
    )
    assert first["samples"] == second["samples"]
    taken = terrarium("import", "--from", "nanogpt", "text", str(tmp_path / "new" / "ckpt.pt"), "--run", "theirs")
    assert taken.exit_code == 2
    assert "there is a run of this name already" in taken.stderr
    (text / "datasets" / "raw" / "input.txt").write_text("0123456789 and more\n" * 100)
    foreign = terrarium("import", "--from", "nanogpt", "text", str(tmp_path / "new" / "ckpt.pt"), "--run", "foreign")
    assert foreign.exit_code == 2
    assert "the checkpoint has 28 ids, but the dataset of text has" in foreign.stderr


def test_an_interrupted_run_says_how_to_go_on(spaces: Path, terrarium: Terrarium) -> None:
    kill = "\nimport os, signal\n\ndef on_metrics(run, step, metrics):\n    if step == 2:\n        os.kill(os.getpid(), signal.SIGINT)\n"
    (spaces / "prepare.py").write_text((spaces / "prepare.py").read_text() + kill)
    result = terrarium("train", "spaces", "--run", "x", "-s", "train.model.dropout=0.5")
    assert result.exit_code == 130
    assert (
        "interrupted, and saved. Go on with: python -m core.cli train spaces --run x -s train.model.dropout=0.5"
        in result.stderr
    )
    assert json.loads((spaces / "out" / "x" / "summary.json").read_text())["status"] == "interrupted"
    resumed = terrarium("train", "spaces", "--run", "x", "-s", "train.model.dropout=0.5")
    assert resumed.exit_code == 0
    assert "resumed at step 2" in resumed.output


def test_a_disk_that_refuses_is_told_without_a_traceback(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core import files

    assert terrarium("train", "spaces").exit_code == 0
    before = {
        path: path.read_bytes() for path in (spaces / "out").rglob("*") if path.is_file() and path.suffix != ".lock"
    }

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_bytes", refuse)
    result = terrarium("train", "spaces", "--run", "second")
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr
    assert "Traceback" not in result.output
    assert {path: path.read_bytes() for path in before} == before


def test_running_text_is_shown_once_also_where_it_is_streamed(
    text: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.cli.console import Console

    assert terrarium("train", "text").exit_code == 0
    command = ("sample", "text", "--start", "quick", "--num-samples", "3", "--max-new-tokens", "12", "--seed", "3")
    at_once = terrarium(*command).stdout
    monkeypatch.setattr(Console, "interactive", True)
    assert terrarium(*command).stdout == at_once
    assert at_once.count("quick") >= 3


def test_what_a_model_writes_is_shown_as_it_is(lab: Path, terrarium: Callable[..., Result]) -> None:
    """Prompts and answers may look like arguments that messages name."""
    folder = lab / "odd"
    folder.mkdir()
    (folder / "prepare.py").write_text(
        "from core import Example\n\n\ndef documents(rng):\n    while True:\n        n = rng.randint(10, 99)\n"
        "        yield Example(f'`a{n}=', f'{n} x `fresh=True`\\n')\n"
    )
    (folder / "config.toml").write_text(TINY.replace("block_size = 16", "block_size = 40"))
    assert terrarium("train", "odd").exit_code == 0
    for command in ("sample", "evaluate"):
        shown = terrarium(command, "odd").stdout
        assert "x `fresh=True`" in shown and "`a" in shown and "--fresh" not in shown and "-s a" not in shown
