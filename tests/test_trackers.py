"""Weights & Biases and MLflow, the real packages, offline: what they hold is what metrics.csv holds, and tells nobody's name."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from core.tracking import trackers, wandb
from core.tracking.metrics import read_rows

ROOT = Path(__file__).parent.parent
HOST = "host-of-the-test"
# Two tries of one loop, of which the first fails, in a process of their own: wandb leaves one of its own running.
TWO_TRIES = """
import os, socket, sys
socket.gethostname = lambda: os.environ["NAME_OF_THE_HOST"]
from core.tracking import Tracker

def loop(first, last, **choices):
    with Tracker("mine/out/first", config={"lr": 0.1, "model": {"layers": 2}}, description="Why?",
                 trackers=sys.argv[1:], **choices) as tracker:
        for step in range(first, last):
            more = {"val_accuracy/a b": step / 8} if step % 2 else {}
            tracker.log_step(step=step, train_loss=1 / (1 + step), **more)
        assert last == 8

try:
    loop(0, 4)
except AssertionError:
    loop(4, 8, resume_at=3)
"""
READ_MLFLOW = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
found = client.search_runs([experiment.experiment_id])
history = {key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)] for run in found for key in run.data.metrics}
print(json.dumps([[run.info.status, run.data.params, run.data.tags] for run in found] + [history]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder in which nothing may say where it is."""
    folder = tmp_path / "ada-of-the-test"
    folder.mkdir()
    return folder


def run_python(script: str, home: Path, *arguments: str) -> str:
    """Standard output of a script that runs in its home folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_"))}
    environment = kept | {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "USER": "ada-of-the-test",
        "NAME_OF_THE_HOST": HOST,
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=home,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def telling(folder: Path) -> list[Path]:
    """Files that name the host or the home folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [
        path
        for path in files
        for name in (HOST, "ada-of-the-test")
        if name in path.name or name.encode() in path.read_bytes()
    ]


def wandb_records(folder: Path) -> list[Any]:
    """What an offline run of wandb holds, in order: protocol buffers in a log of LevelDB's format, behind a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = next(folder.glob("*.wandb")).read_bytes()
    assert data.startswith(b":W&B")
    records, part, place = [], b"", 7
    while place < len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(part))
            part = b""
    return records


def test_wandb_holds_the_rows_of_both_tries_as_one_run(home: Path) -> None:
    pytest.importorskip("wandb")
    run_python(TWO_TRIES, home, "wandb")
    run = home / "mine" / "out" / "first"
    tries = [wandb_records(folder) for folder in sorted((run / "logs" / "wandb").glob("offline-run-*"))]
    assert len(tries) == 2
    begun = [record.run for records in tries for record in records if record.HasField("run")]
    assert {(record.run_id, record.project, record.display_name, record.notes) for record in begun} == {
        ((run / "logs" / "wandb" / "id").read_text(), "mine", "first", "Why?")
    }
    config = {item.key: json.loads(item.value_json) for item in begun[0].config.update}
    assert {key: config[key] for key in ("lr", "model.layers")} == {"lr": 0.1, "model.layers": 2}
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for records in tries
        for record in records
        if record.HasField("history")
    ]
    expected = read_rows(run / "metrics.csv")
    assert [{key: row[key] for key in known} for row, known in zip(rows, expected, strict=True)] == expected
    assert [record.exit.exit_code for records in tries for record in records if record.HasField("exit")] == [1, 0]
    assert telling(home / "mine") == []


@pytest.mark.slow
def test_mlflow_holds_the_rows_of_both_tries_as_one_run(home: Path) -> None:
    needs_mlflow()
    run_python(TWO_TRIES, home, "mlflow")
    run = home / "mine" / "out" / "first"
    store = f"sqlite:///{home}/mine/out/logs/mlflow/mlflow.db"
    (status, params, tags), history = json.loads(run_python(READ_MLFLOW, home, store, "mine"))
    assert status == "FINISHED"
    assert params == {"lr": "0.1", "model.layers": "2"}
    assert {key: tags[key] for key in ("experiment", "run", "mlflow.user", "mlflow.note.content")} == {
        "experiment": "mine", "run": "first", "mlflow.user": "", "mlflow.note.content": "Why?",
    }  # fmt: skip
    assert history == columns(run)
    assert telling(home / "mine") == []


@pytest.mark.slow
def test_train_fills_both_and_goes_where_the_environment_says(spaces: Path, home: Path) -> None:
    needs_mlflow(), pytest.importorskip("wandb")
    store = f"sqlite:///{home}/elsewhere.db"
    script = f"import os; os.environ['MLFLOW_TRACKING_URI'] = '{store}'\nfrom core.cli.main import cli; cli()"
    given = ("train", "spaces", "-s", 'train.runtime.trackers=["wandb", "mlflow"]')
    run_python(script, spaces, *given)
    run_python(script, spaces, *given, "--resume", "-s", "train.schedule.max_iters=10")
    (status, params, _), history = json.loads(run_python(READ_MLFLOW, home, store, "spaces"))
    assert status == "FINISHED" and params["train.model.n_embd"] == "16"
    assert history == columns(spaces / "out" / "default")
    assert len(list((spaces / "out" / "default" / "logs" / "wandb").glob("offline-run-*"))) == 2
    assert not (spaces / "out" / "logs").exists()


def needs_mlflow() -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def columns(run: Path) -> dict[str, list[list[float]]]:
    """Column of metrics.csv -> [step, value]."""
    rows = read_rows(run / "metrics.csv")
    names = {name for row in rows for name in row} - {"step"}
    return {name: [[row["step"], row[name]] for row in rows if name in row] for name in names}


@pytest.mark.parametrize(
    ("name", "extra", "package"), [("wandb", "wandb", "wandb"), ("mlflow", "mlflow", "sqlalchemy")]
)
def test_a_missing_package_is_told_before_anything_is_made(
    name: str, extra: str, package: str, spaces: Path, terrarium: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    present = {"mlflow", "wandb", "alembic", "sqlalchemy"} - {package}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda module, *more: None if module == package else module in present or real(module, *more),
    )
    result = terrarium("train", "spaces", "-s", f'train.runtime.trackers=["{name}"]')
    assert result.exit_code == 2
    assert (
        f"the tracker \"{name}\" needs the package {package}, which is not installed\n  Install it: pip install -c constraints.txt -e '.[{extra}]'"
        in result.stderr
    )
    assert not (spaces / "out" / "default").exists() and not (spaces / "datasets").exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_MODE": "online"}, None),
        ({"WANDB_API_KEY": "x"}, None),
        ({"WANDB_PROJECT": "x"}, "offline"),
    ],
)
def test_wandb_stays_offline_unless_the_environment_says_otherwise(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wandb.mode() == expected


class Noting:
    """A tracker that notes what it is told."""

    def __init__(self, told: list[str], name: str, *, fails: bool = False) -> None:
        self.told, self.name, self.fails = told, name, fails

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.told.append(f"{self.name} {step}")

    def end(self, status: str) -> None:
        self.told.append(f"{self.name} {status}")

    def close(self) -> None:
        self.told.append(f"{self.name} closed")
        if self.fails:
            raise OSError("no connection")


def test_each_tracker_is_told_the_ending_and_closed_whatever_the_others_do() -> None:
    told: list[str] = []
    with pytest.raises(OSError, match="no connection"):
        trackers.close_trackers([Noting(told, "a"), Noting(told, "b", fails=True)], "failed")
    assert sorted(told) == ["a closed", "a failed", "b closed", "b failed"]
    assert told.index("a failed") < told.index("a closed")
