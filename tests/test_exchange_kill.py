"""An import or export that is killed anywhere can be begun again, and comes to the same; until then nothing looks finished."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from copies import tiny
from cutting import CUT, Forks

from core.training import checkpoints

pytestmark = pytest.mark.slow
pytest.importorskip("gguf", reason="gguf is not installed: extra hf")
IMPORT = ("import", "tiny", "--from", "hf", "../model", "--run", "new")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A folder with a trained run of an experiment, and beside it the run's model."""
    root = tmp_path_factory.mktemp("exchange")
    folder = tiny(root, 1)
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(
        config.replace("[prepare]", '[prepare]\nencoder = "bytes"').replace("[train.model]", '[train.model]\npreset = "portable"')
    )  # fmt: skip
    made = root / "original"
    for command in (("train", "tiny"), ("export", "tiny", "--to", "hf", "../model")):
        code, printed = forks.run(made, *command)
        assert code == 0, printed
    return made


def imported(experiment: Path) -> dict[str, Any]:
    """What an import has written, without times and the folder's own place."""
    run = experiment / "out" / "new"
    found: dict[str, Any] = {}
    for which in ("best", "last"):
        folder = run / "checkpoints" / which
        found[which] = [(folder / part).read_bytes() for part in checkpoints.PARTS]
    summary = json.loads((run / "summary.json").read_bytes())
    found["summary"] = {
        key: summary[key] for key in ("run", "status", "steps", "parameters", "data_hash", "description")
    }
    found["files"] = sorted(path.relative_to(run).as_posix() for path in run.rglob("*"))
    found["variant"] = (experiment / "config.new.toml").read_bytes()
    found["data"] = {path.name: path.read_bytes() for path in (experiment / "datasets" / "new").glob("*.bin")}
    return found


def cut_import(place: Path, forks: Forks, every: int) -> int:
    """End an import before one in `every` operations, begin it again, and compare. Returns how many operations there are."""
    here = place.with_name("here")  # always the same folder: the variant names it
    shutil.copytree(place, here)
    experiment = here / "experiments" / "tiny"
    job = forks.start(here, *IMPORT)
    code, printed = job.wait()
    assert code == 0, printed
    unbroken, operations = imported(experiment), job.operations
    for number in range(0, operations, every):
        shutil.rmtree(here)
        shutil.copytree(place, here)
        code, printed = forks.run(here, *IMPORT, cut=number)
        assert code == CUT, printed
        if not (experiment / "out" / "new").exists():
            assert "new" not in forks.run(here, "runs", "tiny", "--json")[1]
            code, printed = forks.run(here, *IMPORT)
            assert code == 0, printed
        assert imported(experiment) == unbroken, number
        assert [path for path in here.rglob("*") if path.name.startswith((".tmp-", ".old-"))] == []
    shutil.rmtree(here)
    return operations


def test_an_import_that_ends_at_any_operation_can_be_begun_again(place: Path, forks: Forks) -> None:
    assert cut_import(place, forks, 1) > 100


@pytest.mark.parametrize("to", ["hf", "gguf", "nanogpt"])
def test_an_export_that_ends_at_any_operation_is_whole_or_not_there(place: Path, forks: Forks, to: str) -> None:
    target = place.parent / "exports" / "model"
    command = ("export", "tiny", "--to", to, "../exports/model")
    if to == "nanogpt":
        command += ("--run", "gpt2")
        code, printed = forks.run(place, "train", "tiny", "--run", "gpt2", "-s", "train.model.preset=gpt2")
        assert code == 0, printed
    job = forks.start(place, *command)
    code, printed = job.wait()
    assert code == 0, printed

    def found() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in ([target] if target.is_file() else sorted(target.iterdir()))}

    whole, operations = found(), job.operations
    for number in range(operations):
        shutil.rmtree(target.parent)
        code, printed = forks.run(place, *command, cut=number)
        assert code == CUT, printed
        if not target.exists():
            code, printed = forks.run(place, *command)
            assert code == 0, printed
        assert found() == whole
        assert [path for path in target.parent.iterdir() if path != target] == []
    shutil.rmtree(target.parent)
    assert operations > 5
