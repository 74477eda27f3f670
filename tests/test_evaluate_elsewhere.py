"""evaluate on other data than the run's own: a folder, a variant, a file of prompts; drawn answers beside greedy ones."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Terrarium = Callable[..., Result]


@pytest.fixture
def trained(spaces: Path, terrarium: Terrarium) -> Path:
    assert terrarium("train", "spaces", "-q").exit_code == 0
    return spaces


def test_prompts_of_a_file(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    tabs, lines = tmp_path / "mein Blatt ä.tsv", tmp_path / "prompts.jsonl"
    tabs.write_text("\ufeffab: \ta b\r\n\r\nca: \tc a\n", encoding="utf-8")
    first, second = {"prompt": "ab: ", "completion": "a b\n"}, {"prompt": "ca: ", "answer": "c a", "group": "two"}
    lines.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    found = [
        json.loads(terrarium("evaluate", "spaces", "--prompts", str(path), "--json").stdout) for path in (tabs, lines)
    ]
    assert [figures["prompts"] for figures in found] == [2, 2]
    assert found[0]["accuracy"] == found[1]["accuracy"]
    assert "accuracy/two" in found[1] and not (trained / "out/default/evaluation.json").exists()
    assert found[1]["prompts/two"] == 1


def test_every_share_has_its_number_of_prompts(spaces: Path, terrarium: Terrarium) -> None:
    code = (spaces / "prepare.py").read_text()
    (spaces / "prepare.py").write_text(
        re.sub(r"completion=(.*)\)", r"completion=\1, group=f'{len(letters)} letters')", code)
    )
    assert terrarium("train", "spaces", "-q").exit_code == 0
    told = terrarium("evaluate", "spaces").stdout
    figures = json.loads(terrarium("evaluate", "spaces", "--json").stdout)
    shares = [line for line in told.splitlines() if "accuracy" in line]
    assert any("/2 letters" in line for line in shares)
    for line in shares:
        found = re.fullmatch(r"  (\S+(?: letters)?) +[\d.]+% of ([\d,]+) prompts?", line)
        assert found and figures[found[1].replace("accuracy", "prompts", 1)] == int(found[2].replace(",", ""))


def test_prompts_that_are_longer_than_the_context_are_told(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    (tmp_path / "long.tsv").write_text(f"{'ab' * 40}: \ta b\n")
    told = terrarium("evaluate", "spaces", "--prompts", str(tmp_path / "long.tsv")).output
    assert "cut: the prompt has 82 tokens, and block_size is" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ab: \ta b\nca:\n", ":2: not a prompt with its answer"),
        ('{"prompt": "a"}', ":1: not a"),
        ("\n", "holds no prompts"),
    ],
)
def test_a_line_that_is_no_prompt(trained: Path, terrarium: Terrarium, text: str, told: str) -> None:
    (trained / "prompts.txt").write_text(text)
    result = terrarium("evaluate", "spaces", "--prompts", str(trained / "prompts.txt"))
    assert result.exit_code == 2
    assert told in result.stderr and "a prompt, a tab and the answer" in result.stderr


def test_another_dataset(trained: Path, terrarium: Terrarium) -> None:
    (trained / "config.longer.toml").write_text("[prepare]\nseed = 7\n[prepare.params]\nmax_letters = 3\n")
    own = json.loads(terrarium("evaluate", "spaces", "--json").stdout)
    other = terrarium("evaluate", "spaces", "--data", "longer", "--json")
    assert other.exit_code == 0, other.output
    found = json.loads(other.stdout)
    assert found["val_loss"] != own["val_loss"] and found["val_prompts"] > own["val_prompts"]
    folder = terrarium("evaluate", "spaces", "--data", "datasets/longer", "--json")
    assert json.loads(folder.stdout) == found


def test_a_dataset_of_another_encoder_is_refused(trained: Path, terrarium: Terrarium) -> None:
    (trained / "config.other.toml").write_text('[prepare.params]\nalphabet = "xyz"\n')
    result = terrarium("evaluate", "spaces", "--data", "other")
    assert result.exit_code == 2
    assert "the dataset was made with another encoder than spaces/default" in result.stderr
    assert "-s prepare.encoder_from=datasets/basic" in result.stderr
    result = terrarium("evaluate", "spaces", "--data", "nowhere")
    assert result.exit_code == 2 and "--data nowhere: 'nowhere' is no dataset folder and no variant" in result.stderr


def test_drawn_answers_beside_greedy_ones(trained: Path, terrarium: Terrarium) -> None:
    result = terrarium("evaluate", "spaces", "--temperature", "0.8", "--samples", "4", "--json")
    found = json.loads(result.stdout)
    assert (found["temperature"], found["samples"]) == (0.8, 4)
    assert 0 <= found["drawn_accuracy"] <= found["drawn_any_accuracy"] <= 1
    assert found["pass@1"] == pytest.approx(found["drawn_accuracy"])
    assert "val_accuracy" in found
    result = terrarium("evaluate", "spaces", "--samples", "4")
    assert result.exit_code == 2 and "--temperature 0.8" in result.stderr
    result = terrarium("evaluate", "spaces", "--data", "basic", "--prompts", "x")
    assert result.exit_code == 2 and "exclude each other" in result.stderr


@pytest.mark.parametrize(
    ("command", "key", "told"),
    [
        ("evaluate", "sample.sample.temperature=0.8", "; to draw answers, give --temperature"),
        ("sample", "train.optim.learning_rate=1.0", ""),
    ],
)
def test_overrides_without_effect_are_told(
    trained: Path, terrarium: Terrarium, command: str, key: str, told: str
) -> None:
    result = terrarium(command, "spaces", "-q", "-s", key)
    assert result.exit_code == 0
    assert result.stderr == f"warning: -s {key} has no effect on {command}{told}\n"


def test_an_option_that_counts_once_is_not_given_twice(trained: Path, terrarium: Terrarium) -> None:
    result = terrarium("sample", "spaces", "--start", "a", "--start", "b")
    assert result.exit_code == 2
    assert "--start is given more than once, and only one would count." in result.stderr
    assert (
        terrarium("sample", "spaces", "-s", "sample.sample.top_k=3", "-s", "sample.sample.num_samples=1").exit_code == 0
    )


def test_mps_on_a_machine_without_it(trained: Path, terrarium: Terrarium) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    result = terrarium("train", "spaces", "-s", "train.runtime.device=mps")
    assert result.exit_code == 2
    assert (
        'device "mps" is not available: this machine has no Apple GPU, or torch was built without it' in result.stderr
    )


def test_evaluate_needs_no_disk_to_write_on(
    trained: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core import files

    def read_only(path: Path, value: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(files, "write_json", read_only)
    with pytest.warns(UserWarning, match="evaluation.json is not written: Read-only file system"):
        assert "val_loss" in terrarium("evaluate", "spaces").stdout
