"""Whatever stands in the JSON files of a run folder, commands end with a figure, a note or a message, and never with a traceback."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from live import write_experiment, write_run

from core.errors import UserError
from core.look.record import read_look
from core.report.after_stage import read_after_stage
from core.report.answers import read_details
from core.report.samples import read_samples
from core.report.stage_figures import read_json
from core.report.suites import suite_sections
from core.sweeps.state import read_sweep
from core.tracking.answers import evaluations_in
from core.tracking.notes import read_notes
from core.tracking.run import read_summary, stage_names

Terrarium = Callable[..., Result]
DEEP = "[" * 100_000
VALUES = ["5", "null", "[]", '"x"', "{}", "[null]", '{"stages": 5}', '{"stages": null}', '{"stages": {"base": 1}}', '{"stages": [[]]}',
          '{"stages": ["base", "gone"], "table": 3}', '{"details": 3}', '{"details": {"step": 200, "val": []}}', '{"x": {"step": 200}}',
          '{"samples": 3}', '{"step": []}', '{"points": 3, "experiment": "spaces"}', "\ufeff{}", "{\"a\": 1e999}", DEEP, f'{{"stages": {DEEP}']  # fmt: skip


@pytest.fixture
def runs(lab: Path) -> Path:
    """A run, and one with a stage."""
    experiment = write_experiment(lab / "spaces")
    write_run(experiment, "plain")
    write_run(experiment, "staged", run="staged/base")
    folder = experiment / "out" / "staged"
    (folder / "base").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(folder / "base" / path.name)
    (folder / "pipeline.json").write_text(json.dumps({"stages": ["base"], "table": {}, "seconds": {}, "tokens": {}}))
    return experiment


def refuse_tracebacks(terrarium: Terrarium, *commands: tuple[str, ...]) -> None:
    for command in commands:
        result = terrarium(*command)
        assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
        assert result.exit_code in (0, 2), (command, result.output)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:40])
def test_readers_take_any_json(tmp_path: Path, value: str) -> None:
    """Each returns what it can, or says in one sentence what is wrong."""
    readers: dict[str, Callable[[Path], Any]] = {
        "summary.json": read_summary,
        "pipeline.json": stage_names,
        "notes.json": read_notes,
        "samples.json": read_samples,
        "evaluation.json": lambda folder: read_details(folder, 200),
        "suites.json": lambda folder: suite_sections(folder, 200),
        "look.json": read_look,
        "after_stage.json": lambda folder: read_after_stage(folder, {"best_step": 200}),
        "other_stages.json": lambda folder: read_json(folder / "other_stages.json"),
        "sweep.json": read_sweep,
    }
    for name, read in readers.items():
        (tmp_path / name).write_text(value)
        with contextlib.suppress(UserError):
            read(tmp_path)
    assert evaluations_in(value.encode()) == []


@pytest.mark.parametrize(
    "value", ['{"stages": 5}', '{"stages": {"base": 1}}', '{"stages": [[]]}', f'{{"stages": {DEEP}']
)
def test_a_damaged_pipeline_leaves_its_runs_in_the_list(runs: Path, terrarium: Terrarium, value: str) -> None:
    (runs / "out" / "staged" / "pipeline.json").write_text(value)
    listed = terrarium("runs", "spaces")
    assert listed.exit_code == 0 and "plain" in listed.stdout and "staged/base" in listed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:40])
def test_the_command_line_takes_any_json(runs: Path, terrarium: Terrarium, value: str) -> None:
    out = runs / "out"
    (out / "staged" / "pipeline.json").write_text(value)
    refuse_tracebacks(terrarium, ("runs", "spaces"), ("report", "spaces", "--run", "staged"))
    for name in ("notes.json", "samples.json", "evaluation.json", "suites.json", "look.json", "after_stage.json"):
        path = out / "plain" / name
        path.write_text(value)
        refuse_tracebacks(terrarium, ("report", "spaces", "--run", "plain"))
        path.unlink()
    (out / "plain" / "summary.json").write_text(value)
    refuse_tracebacks(terrarium, ("runs", "spaces"), ("compare", "spaces/plain", "spaces/staged"))
