"""Plugins: packages that are really installed, in a folder of their own on the path; hooks of a prepare.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from core.errors import UserError
from core.plugins.manager import HOOKS, plugins

ROOT = Path(__file__).parent.parent
FULL = '''
from pathlib import Path
import click, pluggy
from core.encoders.char import CharEncoder

hookimpl = pluggy.HookimplMarker("terrarium")


class Upper(CharEncoder):
    kind = "upper"


@hookimpl
def experiment_folders():
    return [Path(__file__).parent / "offered"]


@hookimpl
def register_encoders(register):
    register("upper", Upper)


@hookimpl
def register_models(register):
    import torch

    class Bigram(torch.nn.Module):
        def __init__(self, config, vocab_size):
            super().__init__()
            self.table = torch.nn.Embedding(vocab_size, vocab_size)

        def forward(self, tokens):
            return self.table(tokens)

    register("bigram", Bigram)


@hookimpl
def register_trackers(register):
    class Lines:
        def __init__(self, run):
            self.path = run.folder / "lines.txt"

        def log(self, step, metrics):
            with self.path.open("a") as file:
                print(step, sorted(metrics), file=file)

        def close(self):
            with self.path.open("a") as file:
                print("closed", file=file)

    register("lines", Lines)


@hookimpl
def register_commands(cli):
    @cli.command()
    def hello():
        """Say hello."""
        click.echo("hello from a plugin")
'''


def install(site: Path, package: str, source: str) -> Path:
    """Put a package with an entry point into a folder, as pip would."""
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text(source)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[terrarium]\n{package} = {package}\n")
    return site / package


@pytest.fixture
def command(tmp_path: Path, lab: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a new process that has tmp_path/site on its path."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])}
        return subprocess.run(
            [sys.executable, "-m", "core.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return run


def test_a_package_adds_all_it_offers(tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    package = install(tmp_path / "site", "garden", FULL)
    offered = package / "offered" / "seeds"
    offered.mkdir(parents=True)
    (offered / "prepare.py").write_text(
        '"""Offered."""\n\ndef documents():\n    while True:\n        yield "to be or not to be "\n'
    )
    (offered / "config.toml").write_text(
        '[prepare]\nencoder = "upper"\nsize = 2000\n[train.model]\nkind = "bigram"\n[train.data]\nblock_size = 8\n'
        '[train.schedule]\nmax_iters = 4\n[train.runtime]\ntrackers = ["lines"]\neval_interval = 2\ndevice = "cpu"\n'
    )
    assert "hello from a plugin" in command("hello").stdout
    assert "Offered." in command("list").stdout
    listed = command("plugins").stdout
    for kind, name in (
        ("encoder", "upper"),
        ("model", "bigram"),
        ("tracker", "lines"),
        ("command", "hello"),
        ("experiment", "seeds"),
    ):
        assert [kind, name, "garden"] in [line.split() for line in listed.splitlines()]
    done = command("loop", "seeds")
    assert done.returncode == 0, done.stderr
    assert (offered / "out" / "default" / "lines.txt").read_text().splitlines()[-1] == "closed"


def test_a_package_that_fails_is_named_and_skipped(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    install(tmp_path / "site", "weeds", "import a_module_that_is_not_there\n")
    install(tmp_path / "site", "thistle", FULL.replace("def experiment_folders", "def experiment_folder"))
    install(
        tmp_path / "site",
        "nettle",
        FULL.replace('click.echo("hello', "pass #").replace("@cli.command()", "cli.no_such_thing()"),
    )
    done = command("list")
    assert done.returncode == 0
    assert (
        "plugin 'weeds' of weeds is skipped: ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
        in done.stderr
    )
    assert "plugin 'thistle' of thistle is skipped" in done.stderr
    assert "no hook is called 'experiment_folder'" in done.stderr
    assert "plugin 'nettle' of nettle is skipped: AttributeError" in done.stderr


def test_a_name_registered_twice_names_both_packages(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    install(tmp_path / "site", "garden", FULL)
    install(tmp_path / "site", "meadow", FULL.replace("def hello", "def hallo"))
    done = command("plugins")
    assert done.returncode == 2
    assert "'upper' is registered twice in encoders: by garden and by meadow" in done.stderr


def test_hooks_of_prepare_act_in_this_experiment_alone(spaces: Path, terrarium: Callable[..., Result]) -> None:
    source = (spaces / "prepare.py").read_text()
    hooks = """
def note(run, text):
    with (run.experiment.folder / "notes.txt").open("a") as file:
        print(text, file=file)

def on_train_start(run): note(run, "start")
def on_metrics(run, step, metrics): note(run, f"metrics {step} {'train_loss' in metrics}")
def on_checkpoint(run, step, path): note(run, f"checkpoint {step} {path.name}")
def on_train_end(run, summary): note(run, f"end {summary['status']}")
"""
    (spaces / "prepare.py").write_text(source + hooks)
    assert terrarium("train", "spaces").exit_code == 0
    notes = (spaces / "notes.txt").read_text().splitlines()
    assert notes[0] == "start"
    assert "metrics 6 True" in notes
    assert "checkpoint 6 last" in notes
    assert notes[-1] == "end completed"


def test_a_hook_of_prepare_that_is_misspelt_is_told(spaces: Path, terrarium: Callable[..., Result]) -> None:
    (spaces / "prepare.py").write_text(
        (spaces / "prepare.py").read_text() + "\ndef on_metric(run, step, metrics): ...\n"
    )
    result = terrarium("train", "spaces")
    assert result.exit_code == 2
    assert "no hook is called 'on_metric'" in result.stderr
    assert "Did you mean 'on_metrics'?" in result.stderr


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        plugins().get("encoders", "chars", "prepare.encoder")
    assert 'prepare.encoder: unknown encoder "chars"' in str(caught.value)
    assert "Did you mean 'char'?" in str(caught.value)


def test_the_hooks_are_those_of_the_contract() -> None:
    assert set(HOOKS) == {
        "experiment_folders", "register_encoders", "register_models", "register_optimizers", "register_trackers",
        "register_suites", "register_objectives", "register_launchers", "register_commands", "on_train_start", "on_metrics", "on_checkpoint", "on_train_end",
    }  # fmt: skip
