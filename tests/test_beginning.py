"""A run that cannot start changes nothing: no run is renamed, and what it needs is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from core.models import gpt

ROOT = Path(__file__).parents[1]
Terrarium = Callable[..., Result]


def state(spaces: Path) -> dict[Path, bytes]:
    files = (path for path in (spaces / "out").rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "options", [("--fresh",), *(pytest.param(each, marks=pytest.mark.slow) for each in ((), ("--run", "huge")))]
)
@pytest.mark.parametrize("huge", [("model.block_size", "data.block_size"), ("model.n_embd",)])
def test_a_model_that_does_not_fit_is_told_and_nothing_is_renamed(
    spaces: Path, terrarium: Terrarium, options: tuple[str, ...], huge: tuple[str, ...]
) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    before = state(spaces)
    command = [sys.executable, "-m", "core.cli", "train", "spaces", *options]
    command += [part for key in huge for part in ("-s", f"train.{key}=10000000000")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=spaces.parent.parent, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    if options:
        assert "does not fit into the memory of cpu" in done.stderr
        assert "lower train.data.block_size, train.model.n_embd or train.model.n_layer" in done.stderr
    else:
        assert "was made with other settings" in done.stderr
    assert state(spaces) == before
    assert sorted(path.name for path in (spaces / "out").iterdir() if not path.name.startswith(".")) == ["default"]


def test_a_bug_of_a_model_renames_nothing(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    before = state(spaces)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(gpt, "initialise", broken)
    result = terrarium("train", "spaces", "--fresh")
    assert isinstance(result.exception, ZeroDivisionError)
    assert state(spaces) == before


def test_a_run_that_starts_again_keeps_the_former_one(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    before = (spaces / "out" / "default" / "metrics.csv").read_bytes()
    result = terrarium("train", "spaces", "--fresh", "-s", "train.model.n_embd=32")
    assert result.exit_code == 0 and "The old run default is now default-1." in result.stdout, result.output
    assert (spaces / "out" / "default-1" / "metrics.csv").read_bytes() == before
