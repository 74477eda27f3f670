"""The small failing inputs of ../shared/field: each does what its README.md calls right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FIELD = ROOT.parent / "shared" / "field"
Terrarium = Callable[..., Any]

pytestmark = pytest.mark.skipif(not FIELD.is_dir(), reason="../shared/field is not here")


@pytest.fixture
def field(lab: Path) -> Callable[[str], Path]:
    """Copy one of the folders into the lab."""
    return lambda name: shutil.copytree(FIELD / name, lab / name)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("masked-verdict", "train.data.mask_prompt", ("true", "false")),
        ("eval-iters-verdict", "train.runtime.eval_iters", ("0", "1")),
    ],
)
def test_verdicts_on_losses_that_are_measured_differently(
    field: Callable[[str], Path], terrarium: Terrarium, name: str, key: str, values: tuple[str, str]
) -> None:
    """None is given: exact match is compared, and no setting is marked as best by its loss."""
    folder = field(name)
    small = ("-s", "prepare.size=4000", "-s", "train.schedule.max_iters=4", "-s", "train.runtime.device=cpu")
    done = terrarium("sweep", name, "--seeds", "0..2", "--grid", f"{key}={','.join(values)}", *small)
    assert done.exit_code == 0, done.output
    assert f"The losses of these settings cannot be compared ({key} is {values[0]} and {values[1]})" in done.output
    told = terrarium("compare", name).stdout
    assert told.startswith("No evidence of a difference: exact match")
    assert re.search(rf"No verdict on val loss: .* do not measure it alike \({key} is \w+ and \w+\)\.", told)
    [report] = folder.glob("out/sweeps/*/report.md")
    for said in (done.output, told, report.read_text()):
        assert "better" not in said and "val loss of" not in said


def test_renamed_experiment(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("renamed-experiment")
    assert terrarium("train", "renamed-experiment", "-q").exit_code == 0
    renamed = folder.rename(folder.with_name("renamed"))
    assert terrarium("sample", "renamed", "-q").exit_code == 0
    assert terrarium("train", "renamed", "--run", "second", "-q").exit_code == 0
    log = (renamed / "EXPERIMENT_LOG.md").read_text()
    assert [f"renamed/{run}" in log for run in ("default", "second")] == [True, True]
    shutil.copytree(renamed, folder)  # a copy under the old name, too, is a copy
    assert [row["run"] for row in json.loads(terrarium("runs", "renamed", "--json").stdout)] == ["default", "second"]
    copied = terrarium("sample", "renamed-experiment")
    assert copied.exit_code == 2 and "out/default is a copied run of 'renamed'." in copied.output


def test_parallel_first_start(field: Callable[[str], Path], lab: Path) -> None:
    folder = field("parallel-first-start")
    command = [sys.executable, "-m", "core.cli", "train", "parallel-first-start", "--run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([*command, run], cwd=lab.parent, env=environment, stderr=subprocess.PIPE, text=True)
        for run in ("a", "b")
    ]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    statuses = [json.loads((folder / "out" / run / "summary.json").read_text())["status"] for run in ("a", "b")]
    assert statuses == ["completed", "completed"]


def test_own_model_key(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("own-model-key")
    small = ("-s", "prepare.size=2000", "-s", "train.schedule.max_iters=2", "-q")
    assert terrarium("train", "own-model-key", *small).exit_code == 0
    assert "[train.model.params]\nn_loop = 3\n" in (folder / "out" / "default" / "config.toml").read_text()
    swept = terrarium("sweep", "own-model-key", *small, "--seeds", "0", "--grid", "train.model.params.n_loop=1,2")
    assert swept.exit_code == 0, swept.output
    for count in (1, 2):
        run = folder / "out" / f"sweep-n_loop-n_loop{count}-seed0"
        assert f"[train.model.params]\nn_loop = {count}\n" in (run / "config.toml").read_text()
