"""A resume on another machine says that it is not bit-exact, and why; --exact refuses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from core.tracking.environment import DECIDES_BITS, changes, environment

Terrarium = Callable[..., Result]
MORE = ("--resume", "-s", "train.schedule.max_iters=8")


def on_another_machine(folder: Path, place: str, key: str, value: Any) -> None:
    path = folder / "out" / "default" / "summary.json"
    summary = json.loads(path.read_text())
    summary[place][key] = value
    path.write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("environment", "torch", "2.0.0"),
        ("environment", "cpu", "abacus"),
        ("environment", "cpu_capability", "NONE"),
        ("choices", "threads", 64),
        ("choices", "attention", "abacus"),
        ("choices", "compile", True),
    ],
)
def test_what_decides_bits_is_told(spaces: Path, terrarium: Terrarium, place: str, key: str, value: Any) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    on_another_machine(spaces, place, key, value)
    summary = spaces / "out" / "default" / "summary.json"
    before = summary.read_bytes()
    refused = terrarium("train", "spaces", "--exact", *MORE)
    assert refused.exit_code == 2
    assert f"this resume would not be bit-exact: {key}: {value} -> " in refused.stderr
    assert "leave out --exact" in refused.stderr
    assert summary.read_bytes() == before
    told = terrarium("train", "spaces", *MORE)
    assert told.exit_code == 0, told.output
    assert f"This resume is not bit-exact: {key}: {value} -> " in told.stdout


def test_on_the_same_machine_nothing_is_said(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    result = terrarium("train", "spaces", "--exact", *MORE)
    assert result.exit_code == 0, result.output
    assert "bit-exact" not in result.output


def test_a_run_that_does_not_know_is_taken_at_its_word() -> None:
    now = environment(Path())
    assert set(DECIDES_BITS) & now.keys() == {"torch", "cpu", "cpu_capability", "threads"}
    assert changes({}, now) == changes(now, {}) == changes(now, now) == []


def test_algorithms_are_deterministic(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    assert torch.are_deterministic_algorithms_enabled()
