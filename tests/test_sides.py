"""Three sides of the data: training learns, validation chooses, and the test is measured once, at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import files
from core.data.dataset import Dataset, load_dataset
from core.evaluation import evaluate

Terrarium = Callable[..., Any]
OLD = "made before there was one; --force makes it again with one"
JOB = """
from core import Example

def prepare(job):
    job.write(*[[Example(f"{side}{number}: ", "yes\\n") for number in range(30)] for side in "abc"])
"""


def summary(folder: Path, run: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / run / "summary.json").read_text())
    return found


def dataset_of(folder: Path) -> Dataset:
    return load_dataset(folder / "datasets" / "basic")


def prompts(dataset: Dataset, side: Any) -> set[str]:
    return {example.prompt for example in dataset.examples(side, 0)}


def test_each_prompt_is_on_one_side_and_the_summary_is_of_the_test(spaces: Path, terrarium: Terrarium) -> None:
    trained = terrarium("train", "spaces")
    assert trained.exit_code == 0, trained.output
    dataset = dataset_of(spaces)
    sides = [prompts(dataset, side) for side in ("train", "val", "test")]
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides))
    found = summary(spaces)
    assert (found["side"], found["prompts"]) == ("test", len(sides[2]))
    assert f"exact match {found['accuracy']:.1%} of {len(sides[2])} test prompts" in trained.stdout
    metrics = json.loads(terrarium("evaluate", "spaces", "--json").stdout)
    assert metrics["test_accuracy"] == found["accuracy"] and metrics["test_prompts"] == found["prompts"]
    assert metrics["test_bits_per_byte"] == pytest.approx(found["bits_per_byte"])


def test_groups_have_their_numbers(spaces: Path, terrarium: Terrarium) -> None:
    code = (spaces / "prepare.py").read_text().replace('+ "\\n")', '+ "\\n", group=f"{len(letters)} letters")')
    (spaces / "prepare.py").write_text(code)
    assert terrarium("train", "spaces", "-s", "prepare.params.max_letters=3").exit_code == 0
    found = summary(spaces)
    assert sum(found["prompts_by_group"].values()) == found["prompts"]
    assert (
        found["accuracy_by_group"].keys() == found["prompts_by_group"].keys() <= {"1 letters", "2 letters", "3 letters"}
    )


def test_figures_that_stand_together_are_of_checkpoint_best(spaces: Path, terrarium: Terrarium) -> None:
    more = (
        "-s",
        "train.schedule.max_iters=40",
        "-s",
        "train.runtime.eval_interval=5",
        "-s",
        "train.optim.learning_rate=0.1",
    )
    assert terrarium("train", "spaces", *more).exit_code == 0
    found = summary(spaces)
    rows = {row["step"]: row for row in json.loads((spaces / "out" / "default" / "metrics.json").read_text())}
    best = rows[found["best_step"]]
    assert (found["best_val_loss"], found["val_accuracy"]) == (best["val_loss"], best["val_accuracy"])


def test_the_test_side_steers_nothing(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, when the run is over."""
    asked: list[str] = []
    examples = Dataset.examples

    def noting(dataset: Dataset, side: Any, at_most: int) -> Any:
        asked.append(side)
        return examples(dataset, side, at_most)

    monkeypatch.setattr(evaluate.Dataset, "examples", noting)
    assert terrarium("train", "spaces").exit_code == 0
    assert asked.count("test") == 1 and asked[-1] == "test" and "val" in asked


def test_without_a_test_side_validation_is_reported_and_that_is_said(spaces: Path, terrarium: Terrarium) -> None:
    trained = terrarium("train", "spaces", "-s", "prepare.test_fraction=0")
    assert (
        "There is no test side (test_fraction = 0), so the reported exact match is that of validation, which also"
        in trained.stdout
    )
    found, dataset = summary(spaces), dataset_of(spaces)
    assert dataset.test is None and (found["side"], found["prompts"]) == ("val", len(prompts(dataset, "val")))
    assert f"of {found['prompts']} validation prompts" in trained.stdout
    assert "test_accuracy" not in json.loads(terrarium("evaluate", "spaces", "--json").stdout)


def test_a_dataset_of_an_earlier_version_stays_current(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("prepare", "spaces", "-s", "prepare.test_fraction=0").exit_code == 0
    path = spaces / "datasets" / "basic" / "dataset.json"
    info = json.loads(path.read_text())
    assert terrarium("prepare", "spaces").exit_code == 0
    fingerprint = json.loads(path.read_text())["fingerprint"]
    assert terrarium("prepare", "spaces", "-s", "prepare.test_fraction=0").exit_code == 0
    for key in ("seal", "texts", "opened"):
        info.pop(key, None)
    del info["split"]["test_fraction"]
    info["fingerprint"] = fingerprint
    path.write_text(json.dumps(info | {"seal": files.seal(info)}))
    result = terrarium("train", "spaces")
    assert "the dataset is up to date" in result.stdout and OLD in result.stdout
    assert summary(spaces)["side"] == "val" and summary(spaces)["val_text"] is None
    made = terrarium("prepare", "spaces", "--force")
    assert " test tokens, " in made.stdout and OLD not in made.stdout


def test_running_text_has_a_test_side_on_demand(lab: Path, terrarium: Terrarium) -> None:
    folder = lab / "text"
    folder.mkdir()
    text = "".join(f"line {number}\n" for number in range(2000))
    (folder / "input.txt").write_text(text)
    (folder / "config.toml").write_text('[prepare]\ninput = "input.txt"\n')
    assert terrarium("prepare", "text").exit_code == 0
    assert dataset_of(folder).test is None
    assert terrarium("prepare", "text", "-s", "prepare.test_fraction=0.2").exit_code == 0
    dataset = dataset_of(folder)
    assert dataset.test is not None
    sides = [dataset.encoder.decode(side.ids.tolist()) for side in (dataset.train, dataset.val, dataset.test)]
    assert "".join(sides) == text
    assert [round(len(side) / len(text), 2) for side in sides] == [0.7, 0.1, 0.2]


def test_a_prepare_of_the_users_own_may_write_a_test_side(spaces: Path, terrarium: Terrarium) -> None:
    (spaces / "prepare.py").write_text(JOB)
    assert terrarium("prepare", "spaces").exit_code == 0
    dataset = dataset_of(spaces)
    assert all(prompt.startswith("c") for prompt in prompts(dataset, "test")) and len(prompts(dataset, "test")) == 30


def test_fractions_that_leave_nothing_are_refused(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("prepare", "spaces", "-s", "prepare.val_fraction=0.5", "-s", "prepare.test_fraction=0.5")
    assert result.exit_code == 2
    assert "val_fraction and test_fraction hold out 100%, so nothing is left to train on." in result.stderr


def test_the_same_text_has_one_hash_whatever_the_encoder(spaces: Path, terrarium: Terrarium) -> None:
    hashes = []
    for encoder in ("char", "bytes"):
        assert terrarium("prepare", "spaces", "-s", f"prepare.encoder={encoder}").exit_code == 0
        hashes.append((dataset_of(spaces).text_hash("val"), dataset_of(spaces).data_hash))
    assert hashes[0][0] == hashes[1][0] and hashes[0][1] != hashes[1][1]


def test_no_test_side_is_asked_for_where_there_is_none(spaces: Path, terrarium: Terrarium) -> None:
    from core import UserError

    assert terrarium("prepare", "spaces", "-s", "prepare.test_fraction=0").exit_code == 0
    with pytest.raises(
        UserError, match=r"this dataset has no test side\n  Set prepare.test_fraction, and prepare it again\."
    ):
        dataset_of(spaces).examples("test", 1)


@pytest.mark.parametrize(("signature", "more", "drawn"), [("rng", True, 1_000_000), ("", False, 1_200_000)])
def test_what_is_drawn_if_no_size_is_given(
    spaces: Path, terrarium: Terrarium, signature: str, more: bool, drawn: int
) -> None:
    (spaces / "prepare.py").write_text(
        f"def documents({signature}):\n    yield from ['a line of text\\n' * 1000] * 80\n"
    )
    config = (spaces / "config.toml").read_text().replace("size = 2000\n", "")
    (spaces / "config.toml").write_text(config)
    told = terrarium("prepare", "spaces").stdout
    assert (
        "documents() has more: the dataset is its first 1,000,000 characters. For more: -s prepare.size=NUMBER" in told
    ) == more
    dataset = dataset_of(spaces)
    assert drawn <= dataset.train.tokens + dataset.val.tokens < drawn + 15_001
    told = terrarium("prepare", "spaces", "-s", "prepare.size=500000").stdout
    endless = "rng" in signature  # it has no end that a chosen size could cut
    assert ("documents() has more: the dataset is its first 500,000 characters (prepare.size).\n" in told) != endless


def test_whole_lines_are_compared() -> None:
    from core.data.dataset import Split
    from core.evaluation.overlap import overlaps

    def side(text: str) -> Split:
        return Split(Path(), np.frombuffer(text.encode(), np.uint8))

    [windows, lines] = overlaps(side("one\ntwo\n\nthree\nfo"), side("two\n\nfour\nthree\nxxx"), 256, ord("\n"))
    assert windows.what.startswith("windows") and (lines.what, lines.parts, lines.in_train) == ("lines", 3, 2)
    assert len(overlaps(side("one\n"), side("two\n"), 256)) == 1


def test_lines_behind_a_very_long_one_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.data.dataset import Split
    from core.evaluation import overlap

    monkeypatch.setattr(overlap, "BLOCK", 8)
    text = np.frombuffer(b"one\n" + b"x" * 30 + b"\ntwo\n", np.uint8)
    side = Split(Path(), text)
    found = overlap.of_lines(side, side, overlap.Hashing(256), ord("\n"))
    assert (found.parts, found.in_train) == (2, 2)
