"""--json and --quiet: JSON on stdout, one object or a line for each row before it, and what is said on stderr."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from core.cli.console import Console
from core.cli.options import say_json
from core.data.dataset import load_dataset
from core.plugins.manager import plugins
from core.tracking.metrics import read_rows
from core.tracking.run import read_summary

Terrarium = Callable[..., Result]


def made(result: Result) -> dict[str, Any]:
    """The object on stdout."""
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def rows_and_end(result: Result) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines on stdout: rows, and what was made."""
    assert result.exit_code == 0, result.output
    *rows, end = map(json.loads, result.stdout.splitlines())
    return rows, end


@pytest.fixture
def finished(spaces: Path, terrarium: Terrarium) -> Path:
    """The experiment `spaces` with two runs."""
    assert terrarium("train", "spaces", "--quiet").exit_code == 0
    shutil.copytree(spaces / "out" / "default", spaces / "out" / "copy")
    return spaces


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
    rows, end = rows_and_end(result)
    assert end == {
        "experiment": "spaces",
        "run": "one",
        "folder": str(folder),
        "report": str(folder / "report.html"),
        "summary": read_summary(folder),
    }
    assert [(row["run"], row["row"]["step"], "val_loss" in row["row"]) for row in rows] == [
        ("one", step, step % 3 == 0) for step in (2, 3, 4, 6)
    ]
    kept = [{name: row[name] for name in row if row[name] is not None} for row in read_rows(folder / "metrics.csv")]
    assert [row["row"] | of_file for row, of_file in zip(rows, kept, strict=True)] == [row["row"] for row in rows]
    assert "training spaces/one: " in result.stderr
    finished = terrarium(command, "spaces", "--run", "one", "--json")
    assert made(finished) == end and "is finished" in finished.stderr
    quiet = terrarium(command, "spaces", "--run", "one", "--json", "--quiet", "--fresh")
    assert made(quiet)["summary"]["steps"] == 6 and quiet.stderr == ""


def test_rows_of_stages_name_them(spaces: Path, terrarium: Terrarium) -> None:
    config = (spaces / "config.toml").read_text()
    (spaces / "config.toml").write_text(
        f'{config}\n[[stages]]\nname = "first"\n\n[[stages]]\nname = "second"\nfrom = "first"\n'
    )
    rows, end = rows_and_end(terrarium("train", "spaces", "--json"))
    assert list(dict.fromkeys(row["run"] for row in rows)) == ["default/first", "default/second"]
    assert (end["run"], end["summary"]["steps"]) == ("default/second", 6)


def test_a_sweep_has_a_row_for_each_run_that_ends(spaces: Path, terrarium: Terrarium) -> None:
    sweep = ("sweep", "spaces", "--grid", "train.optim.learning_rate=1e-3,2e-3", "--name", "lr")
    rows, end = rows_and_end(terrarium(*sweep, "--json"))
    found = {row["run"]: row["row"] for row in rows}
    assert {run: row["status"] for run, row in found.items()} == {run["run"]: run["status"] for run in end["runs"]}
    assert {run: row["val_loss"] for run, row in found.items()} == {run["run"]: run["val_loss"] for run in end["runs"]}
    assert all((row["status"], row["error"]) == ("completed", "") and row["seconds"] > 0 for row in found.values())


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


def refuse_constant(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def test_figures_that_are_not_finite_are_null(
    spaces: Path, terrarium: Terrarium, capsys: pytest.CaptureFixture[str]
) -> None:
    result = terrarium("train", "spaces", "--json", "-s", "train.optim.learning_rate=1e20")
    rows = [json.loads(line, parse_constant=refuse_constant) for line in result.stdout.splitlines()]
    assert rows and any(None in row["row"].values() for row in rows if "row" in row)
    Console(json=True).say_row({"val_loss": math.nan, "step": 3})
    say_json({"a": [math.inf, {"b": -math.inf}], "name": "bad\udcff ü", "n": np.float64("nan")})
    row, *rest = capsys.readouterr().out.splitlines()
    assert json.loads(row, parse_constant=refuse_constant) == {"run": "", "row": {"val_loss": None, "step": 3}}
    found = json.loads("\n".join(rest), parse_constant=refuse_constant)
    assert found == {"a": [None, {"b": None}], "name": "bad\udcff ü", "n": None}


def test_one_function_writes_the_json_of_all_commands() -> None:
    folder = Path(__file__).parents[1] / "core" / "cli"
    assert [path.name for path in folder.glob("*.py") if "json.dump" in path.read_text()] == []


def test_every_command_has_both_options() -> None:
    from core.cli.main import cli

    cli.fill()
    ours = {name: command for name, command in cli.commands.items() if command.callback.__module__.startswith("core.")}
    assert len(ours) > 20
    without = {
        option: sorted(
            name for name, command in ours.items() if not any(option in each.opts for each in command.params)
        )
        for option in ("--json", "--quiet")
    }
    assert without == {"--json": [], "--quiet": []}


@pytest.mark.parametrize(
    "words",
    [
        ("list",), ("plugins",), ("new", "made"), ("init", "home"), ("runs", "spaces"), ("compare", "spaces/default", "spaces/copy"), ("report", "spaces"),
        ("runs", "spaces", "--prune", "--keep", "0", "--yes"), ("sample", "spaces"), ("evaluate", "spaces"), ("prepare", "spaces"), ("completion", "bash"),
    ],
)  # fmt: skip
def test_quiet_is_quiet(finished: Path, terrarium: Terrarium, words: tuple[str, ...]) -> None:
    result = terrarium(*words, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_watching_quietly_is_refused(finished: Path, terrarium: Terrarium) -> None:
    result = terrarium("runs", "spaces", "--watch", "--quiet")
    assert result.exit_code == 2
    assert "--watch and --quiet exclude each other" in result.stderr


def test_version_says_which(terrarium: Terrarium) -> None:
    assert re.fullmatch(r"terrarium, version \d+\.\d+\.\d+\n", terrarium("--version").stdout)
