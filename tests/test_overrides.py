"""Settings on the command line, in each of the forms that people type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from core.cli.overrides import full_key
from core.cli.spaces import read_grid
from core.errors import UserError

Terrarium = Callable[..., Result]


@pytest.mark.parametrize(
    "given",
    [
        ("-s", "train.optim.learning_rate=0.125"),
        ("-s", "learning_rate=0.125"),
        ("learning_rate=0.125",),
        ("optim.learning_rate=0.125",),
        ("train.optim.learning_rate=0.125",),
        ("--train.optim.learning_rate=0.125",),
        ("--learning_rate=0.125",),
    ],
    ids=" ".join,
)
def test_every_form_sets_the_key(spaces: Path, terrarium: Terrarium, given: tuple[str, ...]) -> None:
    result = terrarium("train", "spaces", *given, "--description", "a=b", "max_iters=2")
    assert result.exit_code == 0, result.output
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    config = (spaces / "out" / "default" / "config.toml").read_text()
    assert "learning_rate = 0.125" in config and summary["steps"] == 2
    assert summary["description"] == "a=b"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("block_size=8", "error: -s block_size: 'block_size' is in several sections\n  Write train.model.block_size or train.data.block_size.\n"),
        ("learning_rat=1", "error: -s learning_rat: unknown key 'learning_rat'\n  Did you mean 'learning_rate'? A parameter of documents() is set as prepare.params.learning_rat.\n"),
        ("alphabet=xyz", "unknown key 'alphabet'\n  A parameter of documents() is set as prepare.params.alphabet.\n"),
    ],
)  # fmt: skip
def test_a_short_key_that_is_unclear(spaces: Path, terrarium: Terrarium, given: str, message: str) -> None:
    result = terrarium("train", "spaces", given)
    assert result.exit_code == 2
    assert message in result.stderr


def test_options_keep_their_values(spaces: Path, terrarium: Terrarium) -> None:
    """A text with an equals sign after an option is the option's."""
    assert terrarium("train", "spaces", "max_iters=2").exit_code == 0
    shown = terrarium("sample", "spaces", "--start", "ab: ", "--num_samples=1", "--max_new_tokens", "2", "--json")
    assert shown.exit_code == 0, shown.output
    wrong = terrarium("sample", "spaces", "--start", "a=b")
    assert wrong.exit_code == 2 and "'='" in wrong.stderr


def test_a_grid_takes_short_keys() -> None:
    assert read_grid("learning_rate=0.1,0.2").key == "train.optim.learning_rate"
    assert full_key("prepare.params.anything") == "prepare.params.anything"
    assert full_key("columns.prompt") == "prepare.columns.prompt"
    assert full_key("temperature") == "sample.sample.temperature"  # and not an objective's
    assert full_key("group_size") == "train.objective.group_size"
    with pytest.raises(UserError, match="is in several sections"):
        full_key("seed")
