"""What the shell offers when Tab is pressed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from core.cli.main import cli

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parents[1]


def offered(*words: str) -> list[str]:
    """What Tab offers behind these words. The last one is incomplete."""
    *before, incomplete = words
    found = ShellComplete(cli, {}, "terrarium", "_TERRARIUM_COMPLETE").get_completions(before, incomplete)
    return [item.value for item in found]


@pytest.fixture
def trained(spaces: Path) -> Path:
    """The experiment `spaces` with two runs, and another experiment with a blank in its name."""
    for name in ("default", "wide"):
        (spaces / "out" / name).mkdir(parents=True)
        (spaces / "out" / name / "summary.json").write_text('{"experiment": "spaces"}')
    (spaces / "out" / "sweeps").mkdir()
    (spaces / "config.wide.toml").write_text("")
    (spaces / "config.staged.toml").write_text('[[stages]]\nname = "first"\n\n[[stages]]\nname = "second"\n')
    (spaces / "study.small.toml").write_text("")
    (spaces.parent / "my idea").mkdir()
    (spaces.parent / "my idea" / "config.toml").write_text("")
    return spaces


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["train", ""], ["my idea", "spaces"]),
        (["train", "sp"], ["spaces"]),
        (["bench", "sp"], ["spaces"]),
        (["sample", "spaces", "--run", ""], ["default", "wide"]),
        (["sample", "spaces", "--run", "w"], ["wide"]),
        (["report", "spaces", "--run", "w"], ["wide"]),
        (["compare", "spaces/w"], ["spaces/wide"]),
        (["serve", "spaces/w"], ["spaces/w", "spaces/wide"]),  # the first is a folder that the shell looks for
        (["compare", "spaces/default", "s"], ["spaces"]),
        (["train", "spaces", "-s", "learning_ra"], ["learning_rate="]),
        (["train", "spaces", "learning_rate=1", "--set", "train.data.bat"], ["train.data.batch_size="]),
        (["train", "spaces", "learning_ra"], ["learning_rate="]),
        (["train", "spaces", "-q", "seed=1", "train.data.bat"], ["train.data.batch_size="]),
        (["train", "spaces", ""], []),
        (["runs", "spaces", "--wat"], ["--watch"]),
        (["new", "learning_ra"], []),
        (["completion", "z"], ["zsh"]),
        (["train", "spaces", "--variant", ""], ["staged", "wide"]),
        (["train", "spaces", "--variant", "staged", "--stage", ""], ["first", "second"]),
        (["train", "spaces", "--variant", "wide", "--stage", ""], []),
        (["sweep", "spaces", "--study", ""], ["small"]),
        (["new", "mine", "--from", "insert"], ["insert_spaces"]),
        (["train", "spaces", "--re"], ["--resume"]),
        # Nothing, rather than a traceback in the middle of a line:
        (["train", "nowhere", "--run", ""], []),
        (["compare", "nowhere/"], []),
        (["train", "spaces", "-s", "nonsense=1", "--run", "w"], ["wide"]),
    ],
)
def test_what_tab_offers(trained: Path, words: list[str], right: list[str]) -> None:
    assert offered(*words) == right


def test_serve_offers_folders_too() -> None:
    """The shell looks for them."""
    for words in (["serve", ""], ["serve", "class/"], ["serve", "class/anna", "class/b"]):
        found = ShellComplete(cli, {}, "terrarium", "_TERRARIUM_COMPLETE").get_completions(words[:-1], words[-1])
        assert (found[0].type, found[0].value) == ("dir", words[-1])


def test_a_broken_config_offers_nothing(trained: Path) -> None:
    (trained / "config.toml").write_text("[")
    assert offered("train", "spaces", "--run", "") == []


@pytest.mark.parametrize(("words", "right"), [("train ", "spaces"), ("sample spaces --run ", "wide")])
def test_tab_waits_for_no_heavy_import(trained: Path, words: str, right: str) -> None:
    code = (
        "import atexit, sys\nfrom core.cli.main import cli\n"
        "atexit.register(lambda: print(*{'torch', 'pydantic', 'numpy'} & set(sys.modules), sep='', file=sys.stderr))\n"
        "cli(prog_name='terrarium')"
    )
    asked = {"COMP_WORDS": f"terrarium {words}", "COMP_CWORD": str(words.count(" ") + 1 - (words[-1] != " "))}
    environment = os.environ | {"_TERRARIUM_COMPLETE": "bash_complete", "PYTHONPATH": str(ROOT)} | asked
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert f"plain,{right}" in done.stdout.splitlines()
    assert done.stderr == "\n"


@pytest.mark.parametrize(
    ("words", "right"),
    [(["train", "my"], ["my\\ idea"]), (["train", "spaces", "-s", "learning_r"], ["learning_rate="])],
)
def test_a_real_bash(trained: Path, terrarium: Terrarium, tmp_path: Path, words: list[str], right: list[str]) -> None:
    script = tmp_path / "terrarium"
    start = "import sys; sys.argv[0] = 'terrarium'; from core.cli.main import main; main()"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{start}" "$@"\n')
    script.chmod(0o755)
    typed = shlex.join(["terrarium", *words])
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _terrarium_completion {script}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        ["bash", "-c", f"{terrarium('completion', 'bash').stdout}\ncompopt() {{ :; }}\n{ask}"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == (right, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(terrarium: Terrarium, shell: str) -> None:
    result = terrarium("completion", shell)
    assert result.exit_code == 0
    assert f"_TERRARIUM_COMPLETE={shell}_complete" in result.stdout
    assert ("compopt -o nospace" in result.stdout) is (shell == "bash")
    assert ("-S '' -- ${(M)completions:#*=}" in result.stdout) is (shell == "zsh")


def test_the_script_as_json(terrarium: Terrarium) -> None:
    found = json.loads(terrarium("completion", "zsh", "--json").stdout)
    assert found == {"shell": "zsh", "script": terrarium("completion", "zsh").stdout.removesuffix("\n")}


def test_another_shell_is_told(terrarium: Terrarium) -> None:
    result = terrarium("completion", "csh")
    assert result.exit_code == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
