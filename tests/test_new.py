"""New experiments: the template, copies, a folder of experiments in any repository, and the wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import PREPARE, TINY

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parents[1]
QUICK = (
    "train.schedule.max_iters=4",
    "prepare.size=3000",
    "train.runtime.eval_interval=2",
    "train.runtime.dtype=float32",
)
SETTINGS = [part for setting in QUICK for part in ("-s", setting)]


def test_the_template_runs_as_it_is(lab: Path, terrarium: Terrarium) -> None:
    made = terrarium("new", "my_idea")
    assert made.output == (
        f"{lab}/my_idea is ready to run.\nEdit its prepare.py and config.toml, then: python -m core.cli loop my_idea\n"
    )
    assert (lab / "my_idea" / "Readme.md").read_text().startswith("# my_idea\n")
    assert "terrarium loop my_idea\n" in (lab / "my_idea" / "Readme.md").read_text()
    result = terrarium("loop", "my_idea", *SETTINGS)
    assert result.exit_code == 0, result.output
    summary = json.loads((lab / "my_idea" / "out" / "default" / "summary.json").read_text())
    assert set(summary["accuracy_by_group"]) <= {f"{letters} letters" for letters in (1, 2, 3, 4)}


def test_the_template_takes_another_prepare_py(lab: Path, terrarium: Terrarium) -> None:
    """Its config has no settings that belong to its own data."""
    assert terrarium("new", "my_idea").exit_code == 0
    (lab / "my_idea" / "prepare.py").write_text(PREPARE.replace("alphabet", "signs"))
    result = terrarium("prepare", "my_idea", *SETTINGS)
    assert result.exit_code == 0, result.output


def test_a_name_with_blanks_is_quoted_in_the_next_command(lab: Path, terrarium: Terrarium) -> None:
    assert "then: python -m core.cli loop 'my idea'\n" in terrarium("new", "my idea").output
    readme = (lab / "my idea" / "Readme.md").read_text()
    assert readme.startswith("# my idea\n") and "terrarium loop 'my idea'\n" in readme


def test_a_copy_has_its_own_name_in_the_readme(spaces: Path, terrarium: Terrarium) -> None:
    (spaces / "Readme.md").write_text(
        "# spaces\n\nLetters between spaces; see experiments/spaces/out.\n\npython -m core.cli loop spaces -s spaces=2\n"
        "python -m core.cli compare spaces/a spaces/b\npython -m core.cli new mine --from spaces\n"
    )
    made = terrarium("new", "the copy", "--from", "spaces")
    assert "the copy is a copy of spaces.\n" in made.output
    assert (spaces.parent / "the copy" / "Readme.md").read_text() == (
        "# the copy\n\nLetters between spaces; see experiments/the copy/out.\n\npython -m core.cli loop 'the copy' -s spaces=2\n"
        "python -m core.cli compare 'the copy'/a 'the copy'/b\npython -m core.cli new mine --from spaces\n"
    )


def test_the_shipped_experiments_can_be_copied_anywhere(lab: Path, terrarium: Terrarium) -> None:
    refused = terrarium("loop", "insert_spaces")
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"error: {lab}: 'insert_spaces' comes with Terrarium; it is not among your experiments\n"
        "  Copy it: python -m core.cli new insert_spaces --from insert_spaces\n"
    )
    assert terrarium("new", "insert_spaces", "--from", "insert_spaces").exit_code == 0
    assert terrarium("prepare", "insert_spaces", *SETTINGS).exit_code == 0
    assert (lab / "insert_spaces" / "datasets").is_dir()
    misspelt = terrarium("new", "x", "--from", "insert_space")
    assert misspelt.exit_code == 2 and "Did you mean 'insert_spaces'?" in misspelt.stderr


@pytest.mark.parametrize("name", ["", ".hidden", "_x", "-x", "a/b"])
def test_a_bad_name_is_refused(lab: Path, terrarium: Terrarium, name: str) -> None:
    result = terrarium("new", "--", name)
    assert result.exit_code == 2
    assert f"error: '{name}' is not a valid folder name\n  Use letters, digits and _." in result.stderr
    assert list(lab.iterdir()) == []


def test_init_makes_a_folder_that_commands_below_use(
    tmp_path: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "my repository"
    (repository / "notebooks").mkdir(parents=True)
    (repository / ".gitignore").write_text("*.log\n")
    home = repository / "experiments"
    assert (
        terrarium("init", str(repository)).output
        == f"{home} is ready. Make an experiment: python -m core.cli new NAME\n"
    )
    monkeypatch.chdir(repository / "notebooks")
    assert f"No experiments in {home}." in terrarium("list").output
    assert "new NAME --from addition|arithmetic|bundestag_char|" in terrarium("list").output
    assert terrarium("new", "mine").exit_code == 0
    assert terrarium("train", "mine", *SETTINGS).exit_code == 0
    assert (home / "mine" / "out" / "default" / "summary.json").exists()
    assert (repository / ".gitignore").read_text() == "*.log\n"
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    found = subprocess.run(["git", "-C", str(repository), "status", "--short", "-uall"], capture_output=True, text=True)
    seen = {line[3:].strip('"') for line in found.stdout.splitlines()} - {".gitignore"}
    sources = {f"experiments/mine/{name}" for name in ("Readme.md", "config.toml", "prepare.py")}
    assert seen == {"experiments/.gitignore", *sources}
    again = json.loads(terrarium("init", str(repository), "--json").output)
    assert again == {"folder": str(home), "made": False}


def test_init_where_nothing_can_be_written(tmp_path: Path, terrarium: Terrarium) -> None:
    (tmp_path / "experiments").write_text("a file")
    result = terrarium("init", str(tmp_path))
    assert result.exit_code == 2
    assert f"{tmp_path}/experiments: cannot be made: " in result.stderr
    assert "Choose a folder in which you may write." in result.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages folder with the content of the wheel."""
    pytest.importorskip("setuptools", reason="builds a wheel")
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("lib") / "site-packages"
    made = shutil.ignore_patterns("__pycache__", "datasets", "out", "EXPERIMENT_LOG.md")
    for name in ("core", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=made)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "experiments" / "insert_spaces" / "out" / "default").mkdir(parents=True)
    (source / "experiments" / "insert_spaces" / "out" / "default" / "config.toml").write_text("")
    command = [
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(source),
        str(source),
    ]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(source.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.slow
def test_an_installed_wheel_has_experiments_to_copy_and_stays_as_it_is(site: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(site)}
        return subprocess.run([sys.executable, "-m", "core.cli", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)  # fmt: skip

    before = files_in(site)
    assert "experiments/insert_spaces/prepare.py" in before
    assert "experiments/insert_spaces/out" not in before
    assert f"No experiments in {tmp_path}/experiments." in run("list").stdout
    for name in ("insert_spaces", str(site / "experiments" / "insert_spaces")):
        refused = run("prepare", name)
        assert refused.returncode == 2 and "'insert_spaces' comes with Terrarium" in refused.stderr
        assert f"new insert_spaces --from {name}\n" in refused.stderr
    for arguments in (
        ("new", "idea"),
        ("new", "insert_spaces", "--from", "insert_spaces"),
        ("prepare", "insert_spaces"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "experiments" / ".gitignore").is_file()
    assert (tmp_path / "experiments" / "idea" / "prepare.py").is_file()
    assert (tmp_path / "experiments" / "insert_spaces" / "datasets" / "basic" / "train.bin").is_file()
    assert files_in(site) == before


def test_an_experiment_of_a_package_is_copied_not_written_to(
    lab: Path, tmp_path: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages" / "codes" / "rot13"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(TINY)
    monkeypatch.setenv("TERRARIUM_EXPERIMENTS", str(folder.parent))
    refused = terrarium("train", "rot13")
    assert refused.exit_code == 2
    assert "Copy it: python -m core.cli new rot13 --from rot13\n" in refused.stderr
    assert terrarium("new", "rot13", "--from", "rot13").exit_code == 0
    assert terrarium("prepare", "rot13").exit_code == 0
    assert (lab / "rot13" / "datasets").is_dir() and not (folder / "datasets").exists()
