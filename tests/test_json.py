"""--json on commands that make something: one JSON object on stdout, and what is said on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from core.data.dataset import load_dataset
from core.plugins.manager import plugins
from core.tracking.run import read_summary

Terrarium = Callable[..., Result]


def made(result: Result) -> dict[str, Any]:
    """The object on stdout."""
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_prepare(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("prepare", "spaces", "--json")
    dataset = load_dataset(spaces / "datasets" / "basic", plugins())
    assert dataset.test is not None
    assert made(result) == {
        "experiment": "spaces",
        "folder": str(spaces / "datasets" / "basic"),
        "tokens": {"train": dataset.train.tokens, "val": dataset.val.tokens, "test": dataset.test.tokens},
        "vocab_size": dataset.encoder.vocab_size,
        "data_hash": dataset.data_hash,
    }
    assert "spaces: preparing" in result.stderr
    again = terrarium("prepare", "spaces", "--json", "--quiet")
    assert (made(again), again.stderr) == (made(result), "")


@pytest.mark.parametrize("command", ["train", "loop"])
def test_a_run(spaces: Path, terrarium: Terrarium, command: str) -> None:
    result = terrarium(command, "spaces", "--run", "one", "--json")
    folder = spaces / "out" / "one"
    assert made(result) == {
        "experiment": "spaces",
        "run": "one",
        "folder": str(folder),
        "report": str(folder / "report.html"),
        "summary": read_summary(folder),
    }
    assert "training spaces/one: " in result.stderr
    finished = terrarium(command, "spaces", "--run", "one", "--json")
    assert made(finished) == made(result) and "is finished" in finished.stderr


def test_reports(spaces: Path, terrarium: Terrarium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.report.hand_in.write_pdf", lambda page, pdf: False)
    assert terrarium("train", "spaces").exit_code == 0
    out = spaces / "out"
    of_run = terrarium("report", "spaces", "--run", "default", "--json")
    files = {"html": str(out / "default" / "report.html"), "md": str(out / "default" / "report.md")}
    assert made(of_run) == {"experiment": "spaces", "run": "default", "files": files}
    assert of_run.stderr.startswith("report: ")
    of_all = made(terrarium("report", "spaces", "--json"))
    assert of_all == {"experiment": "spaces", "files": {"html": str(out / "report.html"), "md": str(out / "report.md")}}
    handed_in = terrarium("report", "spaces", "--to", "to hand in", "--json")
    folder = tmp_path / "to hand in"
    files = {"md": str(folder / "report.md"), "html": str(folder / "report.html")}
    assert made(handed_in) == {"experiment": "spaces", "files": files}
    assert "under My conclusion." in handed_in.stderr


def test_nanogpts_checkpoints(text: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("train", "text", "--run", "ours", "-s", "train.model.preset=gpt2").exit_code == 0
    exported = terrarium("export", "--to", "nanogpt", "text", "ckpt.pt", "--run", "ours", "--json")
    target = str(tmp_path / "ckpt.pt")
    assert made(exported) == {
        "experiment": "text",
        "run": "ours",
        "step": 6,
        "to": "nanogpt",
        "target": target,
        "files": [target],
    }
    imported = terrarium("import", "--from", "nanogpt", "text", "ckpt.pt", "--json")
    folder = text / "out" / "nanogpt"
    right = {"experiment": "text", "run": "nanogpt", "folder": str(folder), "summary": read_summary(folder)}
    assert made(imported) == right
    assert "text/nanogpt is the model of ckpt.pt." in imported.stderr


def test_a_mistake_leaves_stdout_empty(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces", "--json", "-s", "train.model.n_layer=0")
    assert (result.exit_code, result.stdout) == (2, "")


def test_every_command_has_it() -> None:
    from core.cli.main import cli

    cli.fill()
    ours = {name: command for name, command in cli.commands.items() if command.callback.__module__.startswith("core.")}
    without = [name for name, command in ours.items() if not any("--json" in option.opts for option in command.params)]
    assert without == []
