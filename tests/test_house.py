"""The structure: what the layers below the command line must not do, and capabilities that can be taken out."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PREPARE, TINY

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core"
BELOW = [path for path in sorted(CORE.rglob("*.py")) if path.parent.name != "cli"]
DESIGN = (ROOT / "docs" / "explanation" / "design.md").read_text(encoding="utf-8")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def texts(path: Path) -> Iterator[str]:
    """Every text of a file that is no docstring."""
    found = tree(path)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(found) if isinstance(node, documented)
                  and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(found):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_below_the_command_line_nobody_prints_or_knows_of_click(path: Path) -> None:
    for node in walk_without_typing(tree(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "print", f"{path}:{node.lineno}"
        if isinstance(node, ast.Import):
            assert all(name.name.partition(".")[0] != "click" for name in node.names), f"{path}:{node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] != "click", f"{path}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "sys.argv", f"{path}:{node.lineno}"


def walk_without_typing(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_without_typing(child)


# Words of other programs' commands, and of pages' style sheets.
NOT_MESSAGES = {"git", "--version", "--porcelain", "--untracked-files=no"}


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_below_the_command_line_no_message_names_an_option(path: Path) -> None:
    """A command that is recorded may hold options, each a text of its own; sentences may not."""
    if path.name in ("page.py", "plots.py"):  # colours of pages are called --blue
        pytest.skip("holds a style sheet")
    for text in texts(path):
        if text not in NOT_MESSAGES and " " in text.strip():
            assert not re.search(r"(?<![\w-])--[a-z]|(?<!\w)-s [a-z{]", text), (path, text)


def test_files_of_the_command_line_are_short_and_know_click() -> None:
    for path in sorted((CORE / "cli").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 150, path
        if path.stem not in [
            "account",
            "console",
            "curves",
            "launched",
            "outcome",
            "phrasing",
            "spaces",
            "status",
            "__main__",
            "__init__",
        ]:
            assert re.search(r"^import click$", text, re.MULTILINE), path


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted(CORE.rglob("*.py")):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_way_of_loop_is_as_the_page_says() -> None:
    """At most 15 stops, each a file and a function that is there, none twice, in the order in which a run comes by."""
    stops = re.findall(r"^\d+\. `(core/[\w/]+\.py)`: `(\w+)`", DESIGN, re.MULTILINE)
    assert 5 <= len(stops) <= 15 and len(set(stops)) == len(stops)
    for place, name in stops:
        functions = [node.name for node in tree(ROOT / place).body if isinstance(node, ast.FunctionDef)]
        assert name in functions, (place, name)


@pytest.mark.slow
def test_loop_takes_the_way_of_the_page(spaces: Path) -> None:
    """The stops are entered in the order of the page, when a run is profiled."""
    stops = re.findall(r"^\d+\. `(core/[\w/]+\.py)`: `(\w+)`", DESIGN, re.MULTILINE)
    script = f"""
import sys
stops = {[(str(ROOT / place), name) for place, name in stops]!r}
seen = []
def look(frame, event, argument):
    key = (frame.f_code.co_filename, frame.f_code.co_name)
    if event == "call" and key in stops and key not in seen:
        seen.append(key)
from core.cli.main import cli
sys.setprofile(look)
try:
    cli(["loop", "spaces", "-q"])
except SystemExit as end:
    sys.setprofile(None)
    assert not end.code
print([stops.index(key) for key in seen])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=spaces.parent.parent, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(list(range(len(stops))))


@pytest.mark.slow
@pytest.mark.parametrize(
    "capability", ["bench", "cluster", "corpora", "huggingface", "jax", "look", "sandbox", "serve", "sweeps"]
)
def test_a_capability_is_a_folder(capability: str, tmp_path: Path) -> None:
    """Without it its command is gone, and the rest works."""
    shutil.copytree(CORE, tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(tmp_path / "core" / capability)
    experiment = tmp_path / "experiments" / "spaces"
    experiment.mkdir(parents=True)
    (experiment / "prepare.py").write_text(PREPARE)
    (experiment / "config.toml").write_text(TINY)

    # An editable install would find the folder that was taken out in the place that it was installed from.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.meta_path[:] = [each for each in sys.meta_path if '__editable__' not in str(each.__module__)]\n"
    )

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-m", "core.cli", *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    commands = re.findall(r"^  (\S+)", run("--help").partition("Commands:")[2], re.MULTILINE)
    assert capability.removesuffix("s") not in commands and {"loop", "check", "compare", "plugins"} <= set(commands)
    run("loop", "spaces")
    assert "n-gram baselines" in run("check", "spaces")
    script = f"import importlib.util\nfrom core import *\nassert not importlib.util.find_spec('core.{capability}')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("before", [None, "1", ""])
def test_workers_of_the_tests_know_the_gpus_that_the_first_process_sees(before: str | None) -> None:
    """Tests hide the GPUs from themselves; a worker starts with that environment, and still finds them for `gpu` tests."""
    worker = "import conftest; print(conftest.with_gpus().get('CUDA_VISIBLE_DEVICES'))"
    first = f"import conftest, subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    hidden = ("CUDA_VISIBLE_DEVICES", "TERRARIUM_TESTS_GPUS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PYTHONPATH": str(Path(__file__).parent)} | ({} if before is None else {hidden[0]: before})
    done = subprocess.run([sys.executable, "-c", first], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(before), done.stderr
