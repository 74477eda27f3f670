"""sweep --study: several sweeps of an experiment, listed in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from core.listener import SILENT
from core.sweeps.plan import Call
from core.sweeps.study import plan_study

Terrarium = Callable[..., Result]
STUDY = """[[sweeps]]
name = "decay"
description = "Does weight decay help?"
seeds = [0, 1]
grid.train.optim.weight_decay = [0, 0.1]

[[sweeps]]
name = "wide"
variant = "wide"
train.schedule.max_iters = 4
seeds = [3]
"""


@pytest.fixture
def study(spaces: Path) -> Path:
    (spaces / "study.small.toml").write_text(STUDY)
    (spaces / "config.wide.toml").write_text("[train.model]\nn_embd = 32\n")
    return spaces


def test_all_sweeps_in_one_command(study: Path, terrarium: Terrarium) -> None:
    done = terrarium("sweep", "spaces", "--study", "small")
    assert done.exit_code == 0, done.output
    assert "study small, sweep 1 of 2: Does weight decay help?" in done.stdout
    out = study / "out"
    wide = json.loads((out / "sweep-small-wide-seed3/summary.json").read_text())
    assert (wide["steps"], wide["seed"]) == (4, 3)
    assert "train " in wide["command"] and "--variant wide" in wide["command"]
    assert (out / "sweeps/small-decay/report.html").is_file()
    page = (out / "sweeps/study-small/report.md").read_text()
    assert "| [decay](../small-decay/report.html) | Does weight decay help? | 4 |" in page
    assert "| [wide](../small-wide/report.html) |  | 1 |" in page
    assert "have not ended yet" not in page
    again = terrarium("sweep", "spaces", "--study", "small", "--json")
    found = json.loads(again.stdout)
    assert [sweep["sweep"] for sweep in found["sweeps"]] == ["small-decay", "small-wide"]
    assert "4 runs, 4 of them done" in again.stderr and "1 runs, 1 of them done" in again.stderr
    assert "study-small" in terrarium("report", "spaces").output or (out / "report.html").is_file()


@pytest.mark.slow
def test_overrides_are_of_all_sweeps_and_go_before_their_own(study: Path, terrarium: Terrarium) -> None:
    assert terrarium("sweep", "spaces", "--study", "small", "-s", "train.schedule.max_iters=2", "-q").exit_code == 0
    for run in ("sweep-small-wide-seed3", "sweep-small-decay-weight_decay0.1-seed1"):
        assert json.loads((study / f"out/{run}/summary.json").read_text())["steps"] == 2


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_other_sweeps(study: Path, terrarium: Terrarium) -> None:
    (study / "study.small.toml").write_text(STUDY.replace("[0, 0.1]", "[0, 0.1]\ntrain.optim.learning_rate = 1e30"))
    done = terrarium("sweep", "spaces", "--study", "small")
    assert done.exit_code == 1, done.output
    assert "2 of 4 runs of spaces/sweeps/small-decay have no result" in done.stderr
    assert (study / "out/sweep-small-wide-seed3/summary.json").is_file()
    assert "| 2 of 4 |" in (study / "out/sweeps/study-small/report.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ("description", "descripton", 3, "unknown key 'descripton' of a sweep", "Did you mean 'description'?"),
        ('name = "decay"', 'name = ""', 2, "name = '' is no text", 'name = "width"'),
        ('variant = "wide"', "variant = 3", 9, "variant = 3 is no text", ""),
        ('name = "wide"', 'name = "decay"', 8, "two sweeps are called 'decay'", "Rename one"),
        ("[3]", "3", 11, "seeds = 3 is no list of seeds", "seeds = [0, 1, 2]"),
        ("[3]", "[-1]", 11, "seeds = [-1] is no list of seeds", ""),
        ("[0, 0.1]", "0.1", 5, "grid.train.optim.weight_decay = 0.1 is no list of values", "[1, 2, 3]"),
        ("grid.train.optim.weight_decay = [0, 0.1]", "grid = 3", 5, "grid = 3 names no key", "n_layer"),
        ("weight_decay = [0", "weigth_decay = [0", 5, "unknown key 'train.optim.weigth_decay'", "weight_decay"),
        ("[0, 0.1]", "[0, -1]", 5, "", ""),
        ("max_iters = 4", "max_iters = -4", 10, "", ""),
        ('variant = "wide"', 'variant = "wider"', 9, "no variant 'wider'", "wide"),
        ("seeds = [3]", "", 7, "'wide' has nothing to sweep over", "seeds = [0, 1, 2]"),
        ('"wide"\nv', '"a b"\nv', 8, "'small-a b' is not a valid name of a sweep", "Use letters"),
        ("[[sweeps]]\n", "seed = 3\n[[sweeps]]\n", 1, "unknown key 'seed'", "below one [[sweeps]]"),
    ],
)
def test_mistakes(study: Path, terrarium: Terrarium, old: str, new: str, line: int, message: str, remedy: str) -> None:
    path = study / "study.small.toml"
    path.write_text(STUDY.replace(old, new, 1))
    done = terrarium("sweep", "spaces", "--study", "small")
    assert done.exit_code == 2 and f"{path}:{line}" in done.stderr, done.stderr
    assert message in done.stderr and remedy in done.stderr, done.stderr
    assert not (study / "out").exists()


def test_other_mistakes(study: Path, terrarium: Terrarium) -> None:
    unknown = terrarium("sweep", "spaces", "--study", "smal")
    assert unknown.exit_code == 2 and "no study 'smal'" in unknown.stderr and "Did you mean 'small'?" in unknown.stderr
    (study / "study.empty.toml").write_text("")
    empty = terrarium("sweep", "spaces", "--study", "empty")
    assert empty.exit_code == 2 and "it lists no sweeps" in empty.stderr
    both = terrarium("sweep", "spaces", "--study", "small", "--seeds", "0,1")
    assert both.exit_code == 2 and "--study and --seeds exclude each other" in both.stderr
    wrong = terrarium("sweep", "spaces", "--study", "small", "-s", "train.schedule.max_iters=-1")
    assert wrong.exit_code == 2 and "error: -s train.schedule.max_iters=-1: " in wrong.stderr


def test_the_twelve_grids_of_arithmetic_are_planned() -> None:
    study = plan_study("arithmetic", "grids", (), SILENT, "", lambda opened, description: Call())
    assert len(study.sweeps) == 12 and sum(len(sweep.points) for sweep in study.sweeps) == 124
    assert all(sweep.description for sweep in study.sweeps)
    kinds = [sweep.points[0].config.train.model.kind for sweep in study.sweeps]
    assert kinds == ["gpt"] * 6 + ["lstm"] * 6
