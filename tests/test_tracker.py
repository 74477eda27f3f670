"""The run folder of a user's own loop: whole after any end, never written over, and without the user's name in it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.private import quoted, without_home
from core.tracking import Tracker
from core.tracking.metrics import COLUMNS, read_rows
from core.tracking.run import read_config, read_summary

ROOT = Path(__file__).parent.parent
KILLED = """
import sys
from core.tracking import Tracker
tracker = Tracker(sys.argv[1], trackers=())
for step in range(10**9):
    tracker.log_step(step=step, train_loss=1 / (1 + step))
    print(step, flush=True)
"""
SCRIPT = """
import sys
from core.tracking import Tracker
Tracker(sys.argv[1], trackers=()).finalize()
"""
WITHOUT_TORCH = """
import sys
from core.tracking import Tracker
with Tracker(sys.argv[1], config={"lr": 0.1}) as tracker:
    tracker.log_step(step=1, train_loss=1.0)
heavy = {"torch", "wandb", "mlflow"} & sys.modules.keys()
assert not heavy, heavy
"""


def tracked(folder: Path, **choices: Any) -> Tracker:
    return Tracker(folder, **{"trackers": ()} | choices)


def run_python(script: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: tag -> (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs" / "tb"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


# What it writes


def test_a_loop_writes_the_folder_that_train_writes(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "out" / "first"
    with Tracker(folder, config={"optim": {"lr": 0.1, "betas": (0.9, 0.95)}}, description="Why?", seed=3) as tracker:
        for step in range(1, 7):
            extra = {"val_loss": [9, 3, 4][step // 2 - 1], "val_accuracy/a": step / 6} if step % 2 == 0 else {}
            tracker.log_step(step=step, train_loss=1 / step, learning_rate=0.1, tokens=100 * step, **extra)
    expected = {
        "config.toml",
        "summary.json",
        "metrics.csv",
        "metrics.json",
        "loss_curves.png",
        "lr_schedule.png",
        "logs",
        "report.html",
        "report.md",
    }
    assert {path.name for path in folder.iterdir()} == expected
    summary = read_summary(folder)
    known = {
        "experiment": "mine", "run": "first", "description": "Why?", "status": "completed", "seed": 3, "steps": 6, "tokens": 600,
        "best_val_loss": 3, "best_step": 4, "final_train_loss": 1 / 6, "final_val_loss": 4, "accuracy_by_group": {"a": 4 / 6},
    }  # fmt: skip
    assert {key: summary[key] for key in known} == known
    assert summary["environment"].keys() >= {"python", "torch", "platform", "cpu", "git_commit", "git_dirty"}
    assert read_config(folder) == {"optim": {"lr": 0.1, "betas": [0.9, 0.95]}}
    rows = read_rows(folder / "metrics.csv")
    assert json.loads((folder / "metrics.json").read_text()) == rows
    assert [row["train_loss"] for row in rows] == [1 / step for step in range(1, 7)]
    assert scalars(folder)["val_loss"] == [(2, 9.0), (4, 3.0), (6, 4.0)]
    assert scalars(folder)["train_loss"] == [(row["step"], pytest.approx(row["train_loss"])) for row in rows]


def test_pandas_reads_the_documented_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with tracked(tmp_path / "run") as tracker:
        tracker.log_step(step=1, train_loss=0.5, tokens=10)
        tracker.log_step(step=2, train_loss=0.25, val_loss=0.3, tokens=20, **{"val_accuracy/long words": 1.0})
    table = pandas.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(table.columns) == [*COLUMNS, "val_accuracy/long words"]
    assert table["step"].tolist() == [1, 2] and table["train_loss"].tolist() == [0.5, 0.25]
    assert table["val_loss"].isna().tolist() == [True, False]


names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=5).filter(
    lambda name: name.isprintable() and name not in ("step", "seconds", "tokens_per_second", "self")
)
values = st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=False))


@settings(max_examples=25)
@given(rows=st.lists(st.dictionaries(names, values, max_size=4), max_size=5))
def test_columns_may_come_at_any_time_and_nothing_is_lost(rows: list[dict[str, Any]], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with tracked(folder) as tracker:
        for step, row in enumerate(rows):
            tracker.log_step(step=step, **row)
    assert [
        {name: row[name] for name in given} for row, given in zip(read_rows(folder / "metrics.csv"), rows, strict=True)
    ] == rows


def test_numbers_of_numpy_and_torch_are_numbers_and_none_is_blank(tmp_path: Path) -> None:
    with tracked(tmp_path / "run") as tracker:
        tracker.log_step(
            step=np.int64(4),
            a=np.float32(0.5),
            b=torch.tensor(2.0, requires_grad=True),
            c=np.array([3]),
            d=True,
            e=None,
        )
    row = read_rows(tmp_path / "run" / "metrics.csv")[0]
    assert {key: row.get(key) for key in "abcde"} == {"a": 0.5, "b": 2.0, "c": 3, "d": 1, "e": None}


def test_what_is_not_finite_is_kept_and_is_never_the_best(tmp_path: Path) -> None:
    with tracked(tmp_path / "run", trackers=("plots",)) as tracker:
        for step, loss in enumerate([math.inf, 2.0, math.nan]):
            tracker.log_step(step=step, val_loss=loss)
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [str(row["val_loss"]) for row in rows] == ["inf", "2.0", "nan"]
    assert [row["val_loss"] for row in json.loads((tmp_path / "run" / "metrics.json").read_text())] == [None, 2.0, None]
    summary = read_summary(tmp_path / "run")
    assert (summary["best_val_loss"], summary["best_step"], summary["final_val_loss"]) == (2.0, 1, None)


def test_a_loop_needs_no_torch(tmp_path: Path) -> None:
    done = run_python(WITHOUT_TORCH, str(tmp_path / "run"), cwd=ROOT)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    assert read_summary(tmp_path / "run")["environment"]["torch"] == torch.__version__


def test_the_loop_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "how-to" / "track.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    summary = read_summary(tmp_path / "experiments" / "mine" / "out" / "first")
    assert (summary["experiment"], summary["status"], summary["steps"]) == ("mine", "completed", 100)


@pytest.mark.parametrize("scalar", [np.float32, torch.tensor])
def test_settings_seed_and_figures_may_be_of_numpy_and_torch(scalar: Any, tmp_path: Path) -> None:
    own = tracked(tmp_path / "run", config={"lr": scalar(0.5), "sizes": [np.int64(3)]}, seed=np.int64(3))
    own.finalize(accuracy=scalar(0.5), more=[scalar(0.25), np.float32("nan")], passed=True)
    assert read_config(tmp_path / "run") == {"lr": 0.5, "sizes": [3]}
    summary = read_summary(tmp_path / "run")
    assert [summary[key] for key in ("seed", "accuracy", "more", "passed")] == [3, 0.5, [0.25, None], True]
    assert tracked(tmp_path / "other", seed=torch.tensor(4)).finalize()["seed"] == 4


def test_a_run_of_an_experiment_gets_report_and_log(tmp_path: Path, terrarium: Callable[..., Result]) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    (own / "config.toml").touch()
    for name, rate in (("default", 0.1), ("faster", 0.2)):
        with Tracker(own / "out" / name, config={"rate": rate}, description="Does <it> help?") as tracker:
            tracker.log_step(step=1, train_loss=1.5, val_loss=2.5)
    page = (own / "out" / "faster" / "report.html").read_text()
    assert "Does &lt;it&gt; help?" in page and "not complete" not in page
    assert (own / "out" / "faster" / "report.md").is_file()
    log = (own / "EXPERIMENT_LOG.md").read_text()
    assert (
        log.count("\n## ") == 2
        and "- Changed: `rate` 0.1 -> 0.2\n- Result: completed, val loss 2.5000 at step 1" in log
    )
    assert terrarium("report", str(own), "--run", "faster").exit_code == 0
    assert "faster" in terrarium("runs", str(own)).output


def test_a_folder_of_no_experiment_gets_no_log(tmp_path: Path) -> None:
    tracked(tmp_path / "run", trackers=("report",)).finalize()
    assert (tmp_path / "run" / "report.html").is_file() and not (tmp_path / "EXPERIMENT_LOG.md").exists()


# How it ends


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "completed"), (ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (SystemExit, "interrupted")],
)
def test_what_comes_out_of_the_loop_decides_the_status(
    error: type[BaseException] | None, status: str, tmp_path: Path
) -> None:
    def loop() -> None:
        with tracked(tmp_path / "run", trackers=("plots",)) as tracker:
            tracker.log_step(step=1, train_loss=1.0)
            if error:
                raise error

    if error:
        with pytest.raises(error):
            loop()
    else:
        loop()
    assert read_summary(tmp_path / "run")["status"] == status
    assert (tmp_path / "run" / "loss_curves.png").is_file()


def test_finalize_takes_more_figures_and_no_other_status(tmp_path: Path) -> None:
    tracker = tracked(tmp_path / "run")
    with pytest.raises(UserError, match=r"status: unknown status 'complete'\n  Did you mean 'completed'\?"):
        tracker.finalize("complete")  # type: ignore[arg-type]
    assert tracker.finalize("interrupted", parameters=7)["parameters"] == 7
    for again in (tracker.finalize, lambda: tracker.log_step(step=1)):
        with pytest.raises(UserError, match=r"this run is finalized\n  Open another Tracker with resume_at=STEP"):
            again()


def test_a_kill_loses_at_most_the_last_line(tmp_path: Path) -> None:
    last = 0
    with run_python(KILLED, str(tmp_path / "run"), cwd=ROOT) as loop:
        assert loop.stdout is not None
        for line in loop.stdout:
            last = int(line) if line.endswith("\n") else last
            if last == 200:
                loop.send_signal(signal.SIGKILL)
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(len(rows))) and len(rows) > last >= 200
    assert read_summary(tmp_path / "run")["status"] == "interrupted"
    with tracked(tmp_path / "run", resume_at=100) as tracker:
        tracker.log_step(step=101, train_loss=0.0, more=1)
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(102))
    assert rows[101]["seconds"] >= rows[100]["seconds"] and rows[101]["more"] == 1
    assert read_summary(tmp_path / "run")["status"] == "completed"


# What it refuses


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    with tracked(tmp_path / "run") as tracker:
        tracker.log_step(step=5, train_loss=1.0)
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=r"there is a run already: it is completed at step 5\n  Choose another folder"):
        tracked(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    tracked(tmp_path / "run", fresh=True).finalize()
    assert (tmp_path / "run-1" / "metrics.csv").read_bytes() == before


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with pytest.raises(UserError, match="this folder is not a run, and it is not empty"):
        tracked(tmp_path / "notes")
    with pytest.raises(UserError, match=r"there is no run to go on with\n  Leave out resume_at"):
        tracked(tmp_path / "none", resume_at=3)
    assert not (tmp_path / "none").exists()


def test_two_trackers_never_write_one_run(tmp_path: Path) -> None:
    with tracked(tmp_path / "run"), pytest.raises(UserError, match=r"run .*/run is in use by process"):
        tracked(tmp_path / "run", fresh=True)
    tracked(tmp_path / "run", fresh=True).finalize()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"step": 4}, "log_step: step is 4 after step 5\n  It must be a whole number and never decrease"),
        ({"step": 0.5}, "log_step: step is 0.5\n"),
        ({"step": 6, "loss": "low"}, "log_step: 'loss' is str, but a row has only numbers\n  Give a number"),
        ({"step": 6, "loss": np.zeros(2)}, "log_step: 'loss' is ndarray"),
        ({"step": 6, "a\nb": 1}, "log_step: 'a\\nb' is int"),
    ],
)
def test_a_row_that_is_none_is_told(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with tracked(tmp_path / "run") as tracker:
        tracker.log_step(step=5)
        with pytest.raises(UserError) as caught:
            tracker.log_step(**row)
        assert str(caught.value).startswith(message)
        tracker.log_step(step=5)
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.csv")] == [5, 5]


def test_an_unknown_tracker_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'trackers: unknown tracker "tensorbord"\n  Did you mean \'tensorboard\'\?'):
        tracked(tmp_path / "run", trackers=("tensorbord",))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"description": 5},
            "Tracker: description is 5, but it must be text\n  Give text, or choose another name for the field.",
        ),
        ({"seed": "3"}, "Tracker: seed is '3'\n  Give a whole number, or leave it out."),
        ({"seed": np.float64(0.5)}, "Tracker: seed is 0.5\n"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_made(choice: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        tracked(tmp_path / "run", **choice)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (
            {"parameters": "1M"},
            r"summary.json: parameters is '1M', but it must be a number\n  Give a number, or choose another name",
        ),
        ({"description": 5}, r"summary.json: description is 5, but it must be text\n"),
        ({"environment": [1]}, r"summary.json: environment is \[1\], but it must be a dict\n"),
        (
            {"more": {"a": object()}},
            r"finalize: more.a is object, which summary.json cannot hold\n  Give a number, text, or",
        ),
        ({"more": np.zeros(2)}, r"finalize: more is ndarray, which"),
    ],
)
def test_a_figure_that_no_command_could_read_is_told_and_the_run_stays_open(
    figures: Any, message: str, tmp_path: Path, terrarium: Callable[..., Result]
) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    (own / "config.toml").touch()
    tracker = tracked(own / "out" / "run")
    with pytest.raises(UserError, match=message):
        tracker.finalize(**figures)
    assert terrarium("runs", str(own)).exit_code == 0
    tracker.log_step(step=1)
    tracker.finalize(parameters=1)
    assert (summary := read_summary(own / "out" / "run"))["status"] == "completed" and summary["steps"] == 1


# What it does not tell


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "people" / "ada-of-the-test"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{home}/a b/c", "~/a b/c"),
        ("prepare.input={home}/x.txt", "prepare.input=~/x.txt"),
        ('input="{home}"', 'input="~"'),
        ("{home}s/x", "{home}s/x"),
        ("/mnt{home}/x", "/mnt{home}/x"),
        ("x.txt", "x.txt"),
    ],
)
def test_a_home_folder_is_written_as_a_tilde(text: str, shown: str, home: Path) -> None:
    assert without_home(text.format(home=home)) == shown.format(home=home)


def test_a_shell_still_finds_what_is_there(home: Path) -> None:
    assert [quoted(text) for text in ("~/a b", "~/", "a b", "x=~/a")] == ["~/'a b'", "'~/'", "'a b'", "'x=~/a'"]


def test_no_file_of_a_run_names_the_home_folder(
    spaces: Path, home: Path, terrarium: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "texts").mkdir()
    (home / "texts" / "input.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    own = home / "lab" / "text"
    own.mkdir(parents=True)
    (own / "config.toml").write_text(TINY.replace("size = 2000\n", ""))
    given = (
        "train",
        str(own),
        "-s",
        f"prepare.input={home}/texts/input.txt",
        "-s",
        'train.runtime.trackers=["tensorboard"]',
    )
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py", *given])
    result = terrarium(*given)
    assert result.exit_code == 0, result.output
    run = own / "out" / "default"
    assert [path for path in own.rglob("*") if path.is_file() and b"ada-of-the-test" in path.read_bytes()] == []
    command = read_summary(run)["command"]
    assert command.startswith("python -m core.cli train ~/lab/text -s 'prepare.input=~/texts/input.txt' -s ")
    assert "is finished" in terrarium("train", "~/lab/text", "-s", "prepare.input=~/texts/input.txt").output
    assert "is finished" in terrarium(*given).output
    longer = terrarium(*given, "--resume", "-s", "train.schedule.max_iters=8")
    assert longer.exit_code == 0, longer.output
    assert read_summary(run)["steps"] == 8
    assert terrarium("evaluate", "~/lab/text").exit_code == 0


def test_no_file_is_named_after_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "host-of-the-test")
    for resume_at in (None, 1):
        with Tracker(tmp_path / "run", resume_at=resume_at) as tracker:
            tracker.log_step(step=1, train_loss=float(resume_at or 0))
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in files if "host-of-the-test" in path.name or b"host-of-the-test" in path.read_bytes()]
    assert len(list((tmp_path / "run" / "logs" / "tb").iterdir())) == 2
    assert scalars(tmp_path / "run")["train_loss"] == [(1, 1.0)]  # the resumed try's


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@y.z")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def of_script(script: Path, run: Path, cwd: Path) -> Any:
    """The environment that a script's run records."""
    started = [sys.executable, str(script), str(run)]
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(started, cwd=cwd, env=where, check=True, timeout=60)
    return read_summary(run)["environment"]


def test_commit_and_changes_of_the_scripts_folder_are_kept(tmp_path: Path) -> None:
    home, script = tmp_path / "home", tmp_path / "home" / "loop.py"
    home.mkdir(), script.write_text(SCRIPT)
    git(home, "init"), git(home, "add", "loop.py"), git(home, "commit", "-m", "x")
    clean = of_script(script, tmp_path / "out" / "clean", tmp_path)
    script.write_text(SCRIPT + "2\n")
    dirty = of_script(script, tmp_path / "out" / "dirty", tmp_path)
    assert (clean["git_dirty"], dirty["git_dirty"]) == (False, True)
    assert dirty["git_commit"] == f"{clean['git_commit']}+changes"


def test_the_code_is_that_of_the_script_and_the_experiment(tmp_path: Path) -> None:
    own, script = tmp_path / "mine", tmp_path / "loop.py"
    own.mkdir(), script.write_text(SCRIPT), (own / "config.toml").touch()
    runs = iter(range(9))

    def code() -> str:
        return str(of_script(script, own / "out" / str(next(runs)), tmp_path)["code"])

    first = code()
    (tmp_path / "zzz.py").write_text("1\n")  # the current folder's and the script's, and neither's code
    assert code() == first
    (own / "prepare.py").write_text("1\n")
    second = code()
    script.write_text(SCRIPT + "2\n")
    assert len({first, second, code()}) == 3


def test_without_a_script_the_commit_is_of_the_current_folder(tmp_path: Path) -> None:
    git(tmp_path, "init"), (tmp_path / "zzz.py").write_text("1\n"), git(tmp_path, "add", "zzz.py")
    git(tmp_path, "commit", "-m", "x")
    loop = run_python(SCRIPT, str(tmp_path / "out" / "run"), cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert loop.wait(timeout=60) == 0
    loop.communicate()
    environment = read_summary(tmp_path / "out" / "run")["environment"]
    assert environment["git_dirty"] is False and environment["code"] is None
