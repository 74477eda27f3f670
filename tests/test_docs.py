"""The documentation: what it says of paths, commands, keys and hooks is true, and its code runs."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import tomli
from click.testing import Result

from core.cli.main import cli
from core.config import Config
from core.defaults import resolve
from core.plugins.manager import HOOKS
from core.roles import known_keys
from core.stages import SECTIONS, read_stages
from core.sweeps.study_file import read_study
from core.toml import Settings, read_override

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHIPPED = re.findall(r"\(experiments/(\w+)/Readme\.md\)", README)
READMES = [ROOT / "experiments" / name / "Readme.md" for name in SHIPPED]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")), *READMES]
WRITTEN = [page for page in PAGES if page.parent != REFERENCE]  # by hand
HEADINGS = [
    "Overview", "Data", "Method/Model", "Environment", "How to run",
    "Configuration highlights", "Outputs", "Troubleshooting", "Notes",
]  # fmt: skip
OF_THE_PLUGIN_PAGE = "seconds"  # the command that own-plugin.md adds
NO_KEYS = {"section.key", "key", "train.optim.learning_rat"}  # the last one shows what happens then
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
KEYS = set(known_keys())
PREFIXES = {key[:end] for key in KEYS for end in range(len(key)) if key[end] == "."}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
every_written_page = pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    """Fenced code of a language, without the indentation of a list around it."""
    found = [(len(indent), code) for indent, name, code in FENCE.findall(text) if name == language]
    return ["".join(line[indent:] or "\n" for line in code.splitlines(keepends=True)) for indent, code in found]


def prose(text: str) -> str:
    """A page without its fenced code."""
    return FENCE.sub("", text)


def quoted_commands(text: str) -> Iterator[list[str]]:
    """Arguments of every `python -m core.cli ...` in shell blocks and between backticks."""
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *re.findall(r"`([^`]+)`", prose(text))]:
        _, found, rest = line.partition("python -m core.cli ")
        if found and not re.match(r"COMMAND\b", rest):
            yield shlex.split(re.split(r" (?:&&|\|) ", rest)[0], comments=True)


def tracked() -> list[str]:
    """Paths that git knows."""
    try:
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return done.stdout.splitlines()


def tree() -> list[str]:
    """Every path of the README's tree."""
    block = next(block for block in blocks(README, "text") if block.startswith(".ci/run"))
    paths: list[str] = []
    for line in block.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        folders = [path for path in paths if path.endswith("/") and path.count("/") == depth]
        paths.append((folders[-1] if depth else "") + name)
    return paths


def test_reference_is_what_the_code_says() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for name, content in pages.items():
        assert (REFERENCE / name).read_text(encoding="utf-8") == content, f"docs/reference/{name} is stale: make docs"
    assert {path.name for path in REFERENCE.iterdir()} == set(pages)


def test_every_path_of_the_tree_exists() -> None:
    paths = tree()
    assert len(paths) == len(set(paths))
    for path in paths:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path


def test_the_tree_leaves_nothing_out() -> None:
    paths = {path.rstrip("/") for path in tree()}
    assert {path.partition("/")[0] for path in tracked()} <= {path.partition("/")[0] for path in paths}
    layers = {path.parent if path.name == "__init__.py" else path for path in (ROOT / "core").glob("*/__init__.py")}
    modules = {path for path in (ROOT / "core").glob("*.py") if path.name != "__init__.py"}
    assert {path.relative_to(ROOT).as_posix() for path in layers | modules} <= paths
    assert {f"experiments/{name}" for name in SHIPPED} <= paths


def test_every_shipped_experiment_is_in_the_readme() -> None:
    assert {path.split("/")[1] for path in tracked() if path.startswith("experiments/")} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_readme_has_the_nine_headings(name: str) -> None:
    text = (ROOT / "experiments" / name / "Readme.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert all(part.strip() for part in re.split(r"^## .+$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook: str) -> None:
    assert f"\n## {hook}\n" in (REFERENCE / "hooks.md").read_text(encoding="utf-8")
    how_to = (ROOT / "docs" / "how-to" / "own-plugin.md").read_text(encoding="utf-8")
    assert f"\n## {hook}\n" in how_to
    assert f"@hookimpl\ndef {hook}(" in how_to


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", prose(target.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings], link


@every_written_page
def test_quoted_commands_are_valid(page: Path) -> None:
    group = click.Context(cli, info_name="terrarium", **cli.context_settings)
    for name, *arguments in quoted_commands(page.read_text(encoding="utf-8")):
        if name == OF_THE_PLUGIN_PAGE:
            continue
        command = cli.get_command(group, name)
        assert command is not None, name
        with command.make_context(name, arguments, parent=group) as context:
            for override in context.params.get("overrides", ()):
                read_override(override)


@every_written_page
def test_keys_are_known(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    quoted = re.findall(r"`([^`\n]+)`", prose(text))
    overrides = re.findall(r"(?:-s|--set) ['\"]?([\w.]+)=", text)
    dotted = [
        key
        for code in quoted
        for key in re.findall(r"(?<![\w./])(?:prepare|train|sample|evaluate)(?:\.\w+)+", code)
        if not re.search(r"\.(py|bin|txt|jsonl)$", key)
    ]
    for key in {re.sub(r"^stages\.\w+\.", "", key) for key in {*overrides, *dotted}} - NO_KEYS:
        assert key in KEYS | PREFIXES or key.startswith(
            ("prepare.params.", "train.model.params.", "train.optim.params.")
        ), key


@every_written_page
def test_toml_blocks_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "toml"):
        values = tomli.loads(block)
        if "sweeps" in values:
            (tmp_path / "study.page.toml").write_text(block)
            overrides = [text for entry in read_study(tmp_path, "page") for text in entry.overrides]
            assert not [text for text in overrides if text.partition("=")[0] not in KEYS]
            continue
        if "project" not in values:
            stages = values.pop("stages", [])
            assert read_stages(Settings({"stages": stages})) or not stages
            for stage in stages:
                values |= {section: stage[section] for section in SECTIONS if section in stage}
                Config.model_validate(values)
            assert resolve(Config.model_validate(values)).train.model.block_size


@every_written_page
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        assert ast.parse(block).body


def test_the_look_inside_works(
    spaces: Path, terrarium: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    """The block of docs/how-to/look-inside.md, for another experiment."""
    assert terrarium("train", "spaces").exit_code == 0
    [code] = blocks((ROOT / "docs" / "how-to" / "look-inside.md").read_text(encoding="utf-8"), "python")
    exec(code.replace('"insert_spaces"', '"spaces"').replace('"cab: "', '"ab: "'), {})
    written = capsys.readouterr().out.splitlines()
    assert written[0] == "['a', 'b', ':', '\u2423'] (1, 2, 4, 4)" and "torch.Size([1, 2, 4, 4])" in written


def prepare_files() -> Iterator[tuple[str, str]]:
    """Every prepare.py that a page shows, with the page and its number there."""
    for page in WRITTEN:
        for number, block in enumerate(blocks(page.read_text(encoding="utf-8"), "python")):
            if re.search(r"^def (documents|prepare)\(", block, re.MULTILINE):
                yield f"{page.stem}-{number}", block


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in prepare_files()])
def test_each_prepare_py_makes_a_dataset(code: str, spaces: Path, terrarium: Callable[..., Result]) -> None:
    (spaces / "prepare.py").write_text(code)
    calls_tools = ["-s", "prepare.special_tokens=chat"] if "call=" in code else []
    result = terrarium("prepare", "spaces", *calls_tools)
    assert result.exit_code == 0, result.output
    assert (spaces / "datasets" / "basic" / "train.bin").stat().st_size


def test_the_model_of_the_page_trains_and_samples(spaces: Path, terrarium: Callable[..., Result]) -> None:
    code, *_ = blocks((ROOT / "docs" / "how-to" / "own-model.md").read_text(encoding="utf-8"), "python")
    (spaces / "prepare.py").write_text(code)
    result = terrarium("loop", "spaces", "-s", "train.optim.name=adamw")
    assert result.exit_code == 0, result.output


def test_the_plugin_of_the_page_does_all_it_says(tmp_path: Path, lab: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "own-plugin.md").read_text(encoding="utf-8")
    *module, prepare = blocks(page, "python")
    project, config = blocks(page, "toml")
    [(name, target)] = tomli.loads(project)["project"]["entry-points"]["terrarium"].items()
    site = tmp_path / "site"
    codes, info = site / target / "experiments" / "codes", site / "ascii-0.1.dist-info"
    codes.mkdir(parents=True)
    info.mkdir()
    (site / target / "__init__.py").write_text("\n".join(module))
    (codes / "prepare.py").write_text(prepare)
    (codes / "config.toml").write_text(config)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: terrarium-ascii\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[terrarium]\n{name} = {target}\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "core.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    done = run("train", "codes", "-s", "train.runtime.device=cpu")
    assert done.returncode == 0, done.stderr
    assert "codes/default is completed, val loss" in done.stderr
    made = {path.name for path in (codes / "out" / "default").iterdir()}
    assert made >= {"host.txt", "metrics.jsonl", "checkpoints.txt"}
    told = run(OF_THE_PLUGIN_PAGE, "codes")
    assert re.fullmatch(r"default: [\d.]+ s\n", told.stdout), told.stderr
    listed = [line.split() for line in run("plugins").stdout.splitlines()]
    for kind, value in (
        ("encoder", "ascii"), ("model", "bigram"), ("optimizer", "rmsprop"), ("tracker", "jsonl"), ("launcher", "quietly"),
        ("command", OF_THE_PLUGIN_PAGE), ("experiment", "codes"),
    ):  # fmt: skip
        assert [kind, value, "terrarium-ascii"] in listed


def test_the_picture_is_small_and_names_no_machine() -> None:
    picture = (ROOT / "docs" / "images" / "loop.svg").read_text(encoding="utf-8")
    assert len(picture) < 100_000
    assert "insert_spaces" in picture
    assert "/experiments/" not in picture


@every_page
def test_no_figure_is_missing(page: Path) -> None:
    missing = re.findall(r"FIGURE\([^)]*\)", page.read_text(encoding="utf-8"))
    assert missing == []
