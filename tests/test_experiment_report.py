"""The report of an experiment: all its runs on one page, with what they support, and its twin."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import Result

Terrarium = Callable[..., Result]


class Links(HTMLParser):
    """Collects where a page points to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            value or "" for name, value in attrs if name in ("href", "src") and not (value or "").startswith("#")
        ]


def train(terrarium: Terrarium, run: str, *settings: str, seed: int = 0, description: str = "") -> None:
    overrides = [part for key in (*settings, f"train.runtime.seed={seed}") for part in ("-s", key)]
    done = terrarium("train", "spaces", "--run", run, "--description", description, *overrides)
    assert done.exit_code == 0, done.output


@pytest.fixture
def trained(spaces: Path, terrarium: Terrarium) -> Path:
    """Two seeds of `default`, two of a wider model, and one run that was broken off."""
    for seed in (0, 1):
        train(terrarium, "default" if not seed else "again", seed=seed, description="The start.")
        train(terrarium, f"wide{seed}", "train.model.n_embd=32", seed=seed, description="Does width <help>?")
    train(terrarium, "broken", "train.schedule.max_iters=5")
    summary = spaces / "out" / "broken" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"status": "interrupted"}))
    return spaces


def test_all_runs_stand_on_one_page_with_what_they_support(trained: Path, terrarium: Terrarium) -> None:
    done = terrarium("report", "spaces")
    assert done.exit_code == 0, done.output
    out = trained / "out"
    assert f"report: {out / 'report.html'}" in done.output
    page, twin = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert "Put a space between the letters of a word." in page
    for said in (page, twin):
        for run in ("default", "again", "wide0", "wide1", "broken"):
            assert run in said
        assert "4 of them complete" in said
        assert "interrupted" in said
        assert "95 % interval" in said or "seed" in said
        assert "What differed" in said
    assert "Does width &lt;help&gt;?" in page
    assert r"Does width \<help>?" in twin
    links = Links(page).found
    assert {"default/report.html", "wide1/report.html"} <= set(links)
    assert all((out / link).is_file() for link in links)
    assert "(compare.png)" in twin and (out / "compare.png").is_file()
    assert "http" not in page.replace("http://www.w3.org/", "")


def test_a_single_setting_has_nothing_to_be_set_against(spaces: Path, terrarium: Terrarium) -> None:
    train(terrarium, "default")
    assert terrarium("report", "spaces").exit_code == 0
    text = (spaces / "out" / "report.md").read_text()
    assert (
        "## What the runs support\n\nAll runs have the same settings and data (1 seed), so there is nothing to compare yet."
        in text
    )


def test_the_report_of_a_run_is_written_again(trained: Path, terrarium: Terrarium) -> None:
    page = trained / "out" / "wide0" / "report.html"
    page.unlink()
    done = terrarium("report", "spaces", "--run", "wide0")
    assert done.exit_code == 0, done.output
    assert "Does width" in page.read_text()


def test_nothing_to_report_on(spaces: Path, terrarium: Terrarium) -> None:
    none = terrarium("report", "spaces")
    assert none.exit_code == 2
    assert "spaces has no runs yet" in none.output
    assert "Train one: python -m core.cli train spaces" in none.output
    unknown = terrarium("report", "spaces", "--run", "wide")
    assert unknown.exit_code == 2
    assert "spaces has no run 'wide'" in unknown.output


def browser(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A `chromium` that does what a line of shell says; "$pdf" is the file that it is asked for."""
    folder.mkdir()
    path = folder / "chromium"
    path.write_text(
        f'#!/bin/sh\nfor o in "$@"; do case $o in --print-to-pdf=*) pdf=${{o#*=}};; esac; last=$o; done\n{script}\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.slow
def test_a_folder_to_hand_in(
    trained: Path, terrarium: Terrarium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is in the folder; the student's own conclusion stays, and is in the PDF."""
    assert (
        terrarium(
            "loop", "spaces", "--run", "wide0", "-s", "train.model.n_embd=32", "-s", "train.runtime.seed=0"
        ).exit_code
        == 0
    )
    monkeypatch.setattr("core.report.pdf.BROWSERS", ())
    done = terrarium("report", "spaces", "--to", "my work")
    assert done.exit_code == 0, done.output
    assert "No PDF: there is no Chromium" in done.output
    folder = Path("my work")
    assert sorted(path.name for path in folder.iterdir()) == [
        "answers.png",
        "attention_1.png",
        "curves.png",
        "embeddings.png",
        "loss_curves.png",
        "report.html",
        "report.md",
    ]
    text = (folder / "report.md").read_text()
    for said in (
        "**Put a space between the letters of a word.**", "## What the runs support", "(curves.png)", "(loss_curves.png)", "## My conclusion\n\n(Write here",
        "## Samples: ", json.loads((trained / "out" / "wide0" / "summary.json").read_text())["command"], "train.model.n\\_embd", "## Settings of wide0",
    ):  # fmt: skip
        assert said in text, said
    assert "](default/" not in text and "../" not in text
    own = "# Width helps.\n\n## Because\n\nI say *so*, {my conclusion} and <b>."
    (folder / "report.md").write_text(
        text.replace("(Write here what you conclude, and why. This text stays when the report is written again.)", own)
    )
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    browser(tmp_path / "bin", monkeypatch, 'echo "%PDF $(cat ${last#file://} | grep -c Because)" > "$pdf"')
    (tmp_path / "my work").rename(tmp_path / "work")
    done = terrarium("report", "spaces", "--to", "work")
    assert done.exit_code == 0 and f"pdf:    {Path('work/report.pdf')}" in done.output, done.output
    assert own in Path("work/report.md").read_text()
    assert Path("work/report.md").read_text().count("end of my conclusion") == 1
    assert Path("work/report.pdf").read_text() == "%PDF 1\n"
    assert "<b>." not in Path("work/report.html").read_text()

    browser(tmp_path / "broken", monkeypatch, "exit 1")
    assert "No PDF" in terrarium("report", "spaces", "--to", "work", "--run", "default").output
    assert not Path("work/report.pdf").exists() and own in Path("work/report.md").read_text()


def test_only_markdown_with_its_pictures(trained: Path, terrarium: Terrarium) -> None:
    done = terrarium("report", "spaces", "--format", "md")
    folder = trained / "out" / "hand_in"
    assert done.exit_code == 0 and f"md:     {folder / 'report.md'}" in done.output and "PDF" not in done.output
    assert {path.suffix for path in folder.iterdir()} == {".md", ".png"}
    text = (folder / "report.md").read_text()
    for link in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (folder / link).is_file(), link
    assert json.loads((trained / "out" / "default" / "summary.json").read_text())["command"] in text
    assert terrarium("runs", "spaces").output.count("default") == 1  # the folder is no run
    assert terrarium("report", "spaces", "--format", "all").exit_code == 0 and (folder / "report.html").is_file()


def test_a_report_of_the_students_own_is_not_overwritten(trained: Path, terrarium: Terrarium) -> None:
    Path("work").mkdir()
    Path("work/report.md").write_text("# Mine\n")
    done = terrarium("report", "spaces", "--to", "work")
    assert done.exit_code == 2 and Path("work/report.md").read_text() == "# Mine\n"
    assert (
        "work/report.md: the part from '## My conclusion' to '<!-- end of my conclusion -->' is missing" in done.output
    )
    assert "Choose another folder, or move the file away." in done.output


def test_a_report_of_another_experiment_is_not_overwritten(trained: Path, terrarium: Terrarium) -> None:
    assert terrarium("report", "spaces", "--to", "work", "--format", "md").exit_code == 0
    text = Path("work/report.md").read_text().replace("# spaces\n", "# another\n", 1)
    Path("work/report.md").write_text(text)
    done = terrarium("report", "spaces", "--to", "work", "--format", "md")
    assert done.exit_code == 2 and "a report about another experiment: 'another', not 'spaces'" in done.output
    assert Path("work/report.md").read_text() == text
