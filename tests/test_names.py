"""Names with blanks, braces and line breaks: commands that are suggested can be typed, and tables keep their lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import PREPARE

from core.cli.phrasing import phrased
from core.process import Program
from core.report.run_report import again
from core.tracking.figures import group_text

Terrarium = Callable[..., Result]


def commands_in(text: str) -> list[list[str]]:
    """The words of each command that a text suggests."""
    found = re.findall(rf"{re.escape(Program.name())} ([^\n`]*)", text)
    return [shlex.split(line.rstrip(".")) for line in found]


@pytest.fixture(params=["my idea", "{it's}"])
def odd(request: pytest.FixtureRequest, spaces: Path) -> Path:
    """An experiment with an odd name."""
    return spaces.rename(spaces.parent / request.param)


def test_suggested_commands_are_quoted(odd: Path, terrarium: Terrarium) -> None:
    name = odd.name
    assert commands_in(terrarium("runs", name).output) == [["train", name]]
    missing = terrarium("sample", name, "--run", "a b").output
    assert commands_in(missing) == [["train", name, "--run", "a b"]]
    assert terrarium("train", name, "--run", "a b").exit_code == 0
    unknown = terrarium("sample", name, "--run", "zzz").output
    assert ["runs", name] in [words[:2] for words in commands_in(unknown)]
    (odd / "config.toml").write_text("[")
    assert commands_in(terrarium("list").output) == [["runs", name]]


def test_an_argument_with_a_blank_becomes_a_quoted_option() -> None:
    assert phrased("Train it: `run=my run` `fresh=True`") == "Train it: --run 'my run' --fresh"
    assert phrased('Give some text: `start="\\n"`.') == 'Give some text: --start "\\n".'
    assert phrased("or another: `run=NAME`, `seeds=0..4`") == "or another: --run NAME, --seeds 0..4"


def test_the_command_of_a_run_that_recorded_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "words", ("terrarium",))
    code = again({"experiment": "my idea"})[0]
    assert getattr(code, "text", "") == "terrarium loop 'my idea'"


@pytest.mark.parametrize(
    ("group", "shown"),
    [("short", "short"), ("3 letters", "3 letters"), ("", '""'), ("a\nb", '"a\\nb"'), (" x", '" x"')],
)
def test_a_groups_name_is_one_line(group: str, shown: str) -> None:
    assert group_text(group) == shown


def test_groups_on_the_terminal(spaces: Path, terrarium: Terrarium) -> None:
    groups = 'group=["", "two\\nlines"][len(letters) - 1])'
    code = PREPARE.replace('completion=" ".join(letters) + "\\n")', 'completion=" ".join(letters) + "\\n", ' + groups)
    assert code != PREPARE
    (spaces / "prepare.py").write_text(code)
    assert terrarium("loop", "spaces").exit_code == 0
    said = terrarium("evaluate", "spaces").stdout.splitlines()
    assert all(line.startswith(("evaluated ", "  ")) for line in said)
    assert [line for line in said if re.match(r'  train_accuracy/"" +\d', line)]
    assert [line for line in said if re.match(r'  train_accuracy/"two\\nlines" +\d', line)]
