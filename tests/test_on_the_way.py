"""The best value of each metric, values on the way, and curves by group: in the reports of runs and sweeps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from core.report.document import Document, PageSection
from core.report.markdown import markdown
from core.report.on_the_way import group_pictures, on_the_way, values_on_the_way

Terrarium = Callable[..., Result]
ROWS = [
    {"step": float(step), "val_loss": loss, "val_accuracy": right, "val_accuracy/10 digits": right, "own": 3.0, "seconds": 1.0,
     "val_accuracy/2 digits": 1.0}
    for step, loss, right in ((10, 2.0, 0.1), (20, 1.0, 0.5), (30, 0.5, 0.9), (40, 0.7, 0.8))
]  # fmt: skip
GROUPS = """from core import Example


def documents(rng):
    while True:
        letters = rng.choices("abc", k=rng.randint(1, 3))
        yield Example("".join(letters) + ": ", " ".join(letters) + "\\n", group=f"{len(letters)} letters")
"""


def as_markdown(rows: list[dict[str, float]], total: int | None = None) -> str:
    return markdown(Document("", [], [PageSection("On the way", on_the_way(rows, total))]))


def test_best_values_and_values_on_the_way() -> None:
    text = as_markdown([{"step": 5.0, "train_loss": 3.0}, *ROWS])  # a row without an evaluation does not count
    assert "| metric | best | at step | 1/8: step 10 | 1/4: step 10 | 1/2: step 20 | all: step 40 |" in text
    assert "| val\\_loss | 0.5000 | 30 | 2.0000 | 2.0000 | 1.0000 | 0.7000 |" in text
    assert "| val\\_accuracy | 90.0% | 30 | 10.0% | 10.0% | 50.0% | 80.0% |" in text
    assert "| own |  |  | 3 | 3 | 3 | 3 |" in text and "seconds" not in text
    assert text.index("2 digits") < text.index("10 digits")
    assert "1/4: step 20 | 1/2: step 40 | all: step 40 |" in as_markdown(
        ROWS, total=80
    )  # it ended early: a quarter of 80, and the end
    assert on_the_way(ROWS[:1], None) == []


def test_many_metrics_are_folded() -> None:
    rows = [row | {f"own{number}": 1.0 for number in range(20)} for row in ROWS]
    [_, table] = on_the_way(rows, None)
    assert table.folded == "All 25 metrics"


def test_curves_by_group() -> None:
    [picture] = group_pictures(ROWS)
    assert picture.file == "groups_val_accuracy.png"
    [drawing] = picture.drawings.values()
    texts = [text.get_text() for text in drawing().axes[0].texts]
    assert "2 digits 100.0%" in texts and "10 digits 80.0%" in texts
    one = [{name: value for name, value in row.items() if "10 digits" not in name} for row in ROWS]
    assert group_pictures(one) == []  # one group is the whole
    many = [row | {f"val_accuracy/{number} letters": 0.5 for number in range(30)} for row in ROWS]
    [drawing] = group_pictures(many)[0].drawings.values()
    assert len(drawing().axes[0].lines) == 8 and "8 of 32 groups" in drawing().axes[0].get_title(loc="left")


def test_of_several_runs() -> None:
    assert values_on_the_way([(ROWS, 80), (ROWS, None), ([], None)], "val_loss") == [
        [2.0, 2.0], [1.0, 2.0], [0.7, 1.0], [0.7, 0.7]
    ]  # fmt: skip


@pytest.mark.slow
def test_runs_and_sweeps_show_them(spaces: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    (spaces / "prepare.py").write_text(GROUPS)
    short = ("-s", "train.runtime.eval_interval=2", "-s", "evaluate.group_loss=true")
    done = terrarium(
        "sweep", "spaces", "--seeds", "0,1", "--grid", "train.optim.weight_decay=0,0.1", "--name", "d", *short
    )
    assert done.exit_code == 0, done.output
    page = (spaces / "out/sweeps/d/report.md").read_text()
    assert "| weight\\_decay | 1/8 of the steps | 1/4 of the steps | 1/2 of the steps | all steps |" in page
    assert re.search(r"\| 0\.1 \| [\d.]+%( ± [\d.]+%)? \|", page) and "(slices.png)" in page
    assert (spaces / "out/sweeps/d/slices.png").is_file()
    run = "sweep-d-weight_decay0-seed0"
    assert terrarium("report", "spaces", "--run", run).exit_code == 0
    text = (spaces / f"out/{run}/report.md").read_text()
    for name in ("groups_val_accuracy.png", "groups_val_loss.png"):
        assert f"({name})" in text and (spaces / f"out/{run}/{name}").is_file()
    assert "## Best values, and values on the way" in text and "val\\_loss/3 letters" in text
    assert terrarium("report", "spaces", "--format", "md").exit_code == 0
    handed_in = spaces / "out/hand_in"
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", (handed_in / "report.md").read_text())
    assert "groups_val_loss.png" in links and all((handed_in / link).is_file() for link in links)


@pytest.mark.parametrize(
    "grid", [pytest.param("train.optim.name=adamw,muon", marks=pytest.mark.slow), "train.optim.weight_decay=0.1"]
)
def test_a_picture_of_slices_needs_numbers(spaces: Path, terrarium: Terrarium, grid: str) -> None:
    assert terrarium("sweep", "spaces", "-q", "--grid", grid, "--name", "n").exit_code == 0
    assert not (spaces / "out/sweeps/n/slices.png").exists()
