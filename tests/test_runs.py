"""The table of runs, and what --prune removes: what it says beforehand, and nothing else."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from core import files
from core.report.run_report import write_report
from core.tracking import Tracker
from core.tracking.run import lock_file, read_summary

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parent.parent
HEAD = "run      started           status       seed  steps  exact match  val loss  seconds  description"


def run_folder(experiment: Path, name: str, days: float = 0, **summary: Any) -> Path:
    """A run that began so many days ago."""
    started = (datetime.datetime.now() - datetime.timedelta(days=days)).isoformat()
    folder = experiment / "out" / name
    (folder / "checkpoints" / "last").mkdir(parents=True)
    (folder / "checkpoints" / "last" / "model.safetensors").write_bytes(bytes(2000))
    values = {"experiment": experiment.name, "run": name, "started": started, "status": "completed"}
    files.write_json(folder / "summary.json", values | summary)
    return folder


@pytest.fixture
def many(spaces: Path) -> Path:
    """default (old), good (old), bad (failed), half (interrupted, a day old), new."""
    run_folder(spaces, "default", 40)
    run_folder(
        spaces,
        "good",
        30,
        seed=1,
        steps=6,
        best_val_loss=1.23456,
        accuracy=0.5,
        train_seconds=6.25,
        description="Is it\nso?",
    )
    run_folder(spaces, "bad", 0.5, status="failed")
    run_folder(spaces, "half", 1, status="interrupted")
    run_folder(spaces, "new", 0)
    return spaces


def left(experiment: Path) -> list[str]:
    """All that is in the out folder but locks."""
    return sorted(path.name for path in (experiment / "out").iterdir() if not path.name.endswith(".lock"))


def test_the_table_has_the_newest_last(many: Path, terrarium: Terrarium) -> None:
    head, *lines = terrarium("runs", "spaces").stdout.splitlines()
    assert head == HEAD
    assert [line.split()[0] for line in lines] == ["default", "good", "half", "bad", "new"]
    day = (datetime.datetime.now() - datetime.timedelta(days=30)).date().isoformat()
    assert lines[1].startswith(f"good     {day} ")
    assert lines[1].endswith("  completed       1      6        50.0%    1.2346      6.2  Is it so?")


def test_the_run_of_a_loop_of_ones_own_is_one_among_others(spaces: Path, terrarium: Terrarium) -> None:
    with Tracker(spaces / "out" / "mine", config={"depth": 3}, seed=4, trackers=()) as tracker:
        tracker.log_step(step=10, train_loss=1.5, val_loss=1.25, val_accuracy=0.75)
    assert read_summary(tracker.folder)["experiment"] == "spaces"
    line = terrarium("runs", "spaces").stdout.splitlines()[1]
    assert re.fullmatch(r"mine  \S+ \S+  completed     4     10        75\.0%    1\.2500      0\.0 +-", line)
    assert "depth" in write_report(tracker.folder).read_text()
    assert '"best_loss": 1.25' in terrarium("list", "--json").stdout


def test_the_best_run_of_the_list_has_the_most_exact_answers(spaces: Path, terrarium: Terrarium) -> None:
    for name, (accuracy, loss) in {"low": (0.77, 0.6843), "all": (1.0, 0.8117), "tie": (1.0, 0.9)}.items():
        with Tracker(spaces / "out" / name, trackers=()) as tracker:
            tracker.log_step(step=1, train_loss=1.5, val_loss=loss, val_accuracy=accuracy)
    assert [(row["best_accuracy"], row["best_loss"]) for row in json.loads(terrarium("list", "--json").stdout)] == [
        (1.0, 0.8117)
    ]
    head, line = terrarium("list").stdout.splitlines()
    assert head.split() == ["name", "prepared", "runs", "best_exact", "best_loss", "summary"]
    assert line.split()[:5] == ["spaces", "no", "3", "100.0%", "0.8117"]


@pytest.mark.parametrize(
    ("choices", "gone"),
    [
        ((), {"bad"}),
        (("--older-than", "20"), {"bad", "good"}),
        (("--older-than", "0.9"), {"bad", "good", "half"}),
        (("--keep", "1"), {"bad", "good", "half"}),
        (("--keep", "9"), {"bad"}),
        (("--keep", "0"), {"bad", "good", "half", "new"}),
        (("--older-than", "0.9", "--keep", "2"), {"bad", "good"}),
    ],
)
def test_what_prune_removes(choices: tuple[str, ...], gone: set[str], many: Path, terrarium: Terrarium) -> None:
    (many / "EXPERIMENT_LOG.md").write_text("mine")
    result = terrarium("runs", "spaces", "--prune", "--yes", *choices)
    assert result.exit_code == 0, result.output
    assert set(left(many)) == {"default", "good", "bad", "half", "new"} - gone
    table = [line.split()[0] for line in result.stdout.splitlines()[1:-1]]
    assert set(table) == gone
    assert f"removed {len(gone)} run" in result.stdout and "kB" in result.stdout
    assert (many / "EXPERIMENT_LOG.md").read_text() == "mine"


def test_a_failed_default_stays_and_then_there_is_nothing_to_remove(spaces: Path, terrarium: Terrarium) -> None:
    run_folder(spaces, "default", status="failed")
    assert "Nothing to remove in " in terrarium("runs", "spaces", "--prune", "--yes").stdout
    assert left(spaces) == ["default"]


def test_a_run_in_use_stays(many: Path, terrarium: Terrarium) -> None:
    with files.lock(lock_file(many / "out" / "bad"), "run spaces/bad"):
        result = terrarium("runs", "spaces", "--prune", "--yes")
    assert f"kept: run bad is in use by process {os.getpid()}" in result.stdout
    assert "bad" in left(many)


def staged_run(experiment: Path, name: str) -> Path:
    """A run with two stages, both of them failed."""
    whole = experiment / "out" / name
    for stage in ("base", "chat"):
        run_folder(experiment, f"{name}/{stage}", status="failed")
    files.write_json(whole / "pipeline.json", {"stages": ["base", "chat"]})
    (whole / "report.html").write_text("about both")
    lock_file(whole / "chat").touch()
    return whole


def test_stages_of_a_run_that_is_at_work_on_another_stay(spaces: Path, terrarium: Terrarium) -> None:
    whole = staged_run(spaces, "whole")
    with files.lock(lock_file(whole), "run spaces/whole"):
        told = terrarium("runs", "spaces", "--prune", "--yes").stdout
    assert all(f"kept: run whole/{stage} is in use by process {os.getpid()}" in told for stage in ("base", "chat"))
    assert (whole / "base").is_dir() and (whole / "chat").is_dir()


def test_with_the_last_stage_goes_what_is_about_all_of_them(spaces: Path, terrarium: Terrarium) -> None:
    whole, half, begun = (staged_run(spaces, name) for name in ("whole", "half", "begun"))
    files.write_json(
        half / "chat" / "summary.json", {"experiment": "spaces", "run": "half/chat", "status": "completed"}
    )
    with another_process_that_locks(begun / ".third.lock"):  # a stage that has no folder yet
        assert terrarium("runs", "spaces", "--prune", "--yes").exit_code == 0
    assert left(spaces) == ["begun", "half"] and not whole.exists()
    assert sorted(path.name for path in half.glob("[!.]*")) == ["chat", "pipeline.json", "report.html"]
    assert sorted(path.name for path in begun.glob("[!.]*")) == ["pipeline.json", "report.html"]
    assert not list((spaces / "out").glob(".tmp-*"))


def test_nobody_to_ask_is_told(many: Path, terrarium: Terrarium) -> None:
    result = terrarium("runs", "spaces", "--prune")
    assert result.exit_code == 2
    assert "cannot ask whether to remove 1 run, 2.1 kB: no terminal\n  Add --yes." in result.stderr
    assert "bad" in left(many)


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("n", True)])
def test_a_person_is_asked(answer: str, stays: bool, many: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "core.cli", "runs", "spaces", "--prune"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, text=True, cwd=many.parent.parent, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:  # fmt: skip
        os.write(ours, f"{answer}\n".encode())
        output = process.communicate(timeout=60)[0]
    os.close(ours), os.close(theirs)
    assert process.returncode == 0
    assert "Remove 1 run, 2.1 kB, permanently? [y/N]:" in output
    assert ("Nothing was removed." in output) == ("bad" in left(many)) == stays


def test_what_a_kill_left_of_a_removal_goes_with_the_next(many: Path, terrarium: Terrarium) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    (many / "out" / "bad").rename(many / "out" / f".tmp-{dead.pid}-bad")
    run_folder(many, "worse", status="failed")
    assert terrarium("runs", "spaces", "--prune", "--yes").exit_code == 0
    assert left(many) == ["default", "good", "half", "new"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--yes",), "--older-than, --keep and --yes only work with --prune\n  Add --prune."),
        (("--keep", "3"), "--older-than, --keep and --yes only work with --prune"),
        (("--prune", "--json"), "--json and --prune exclude each other\n  Leave out one of them."),
    ],
)
def test_options_that_do_not_fit(arguments: tuple[str, ...], message: str, spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("runs", "spaces", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@contextlib.contextmanager
def another_process_that_locks(path: Path) -> Iterator[None]:
    """As one that trains."""
    code = f"import sys; from pathlib import Path; from core import files\nwith files.lock(Path({str(path)!r}), 'run'):\n    print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        yield
        process.stdin.write(b"\n")
        process.stdin.close()


def test_a_run_killed_before_its_first_checkpoint_has_the_steps_of_its_metrics(
    spaces: Path, terrarium: Terrarium
) -> None:
    folder = run_folder(spaces, "killed", status="interrupted", steps=0)
    (folder / "metrics.csv").write_text("step,train_loss\n60,2.5\n120,2.25\n")
    assert re.search(r"^killed .* interrupted +- +120 ", terrarium("runs", "spaces").stdout, re.MULTILINE)
    assert json.loads(terrarium("runs", "spaces", "--json").stdout)[0]["steps"] == 120


def test_a_run_that_a_process_trains_is_running(many: Path, terrarium: Terrarium) -> None:
    half = many / "out" / "half"
    (half / "metrics.csv").write_text("step,val_loss\n4,2.5\n8,\n")
    assert re.search(r"half .* interrupted +- +8 ", terrarium("runs", "spaces").stdout)
    with another_process_that_locks(lock_file(half)):
        shown = terrarium("runs", "spaces")
        assert re.search(r"half .* running +- +8 ", shown.stdout), shown.output
        told = json.loads(terrarium("runs", "spaces", "--json").stdout)
        assert [run["status"] for run in told if run["run"] == "half"] == ["running"]
        assert re.search(r"default .* completed ", shown.stdout)
    assert re.search(r"half .* interrupted ", terrarium("runs", "spaces").stdout)
    assert read_summary(half)["status"] == "interrupted"  # looking changes nothing


def test_watch_shows_the_table_until_ctrl_c(many: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt
        run_folder(many, "later")

    monkeypatch.setattr("core.cli.runs.time.sleep", sleep)
    done = terrarium("runs", "spaces", "--watch")
    assert done.exit_code == 130
    assert done.stdout.count(HEAD) == 2 and done.stdout.count("\nlater") == 1 and slept == [2, 2]
    both = terrarium("runs", "spaces", "--watch", "--json")
    assert both.exit_code == 2 and "--json and --watch exclude each other" in both.output


def test_seeds_of_one_setting_are_one_group_below_the_table(spaces: Path, terrarium: Terrarium) -> None:
    for seed in (0, 1):
        settings = ("-s", f"train.runtime.seed={seed}", "-q")
        assert terrarium("train", "spaces", "--run", f"a{seed}", *settings).exit_code == 0
    assert terrarium("train", "spaces", "--run", "again", "-q", "-s", "train.runtime.seed=1").exit_code == 0
    table, _, groups = terrarium("runs", "spaces").stdout.partition("\n\n")
    assert table.count("\n") == 3
    head, columns, row = groups.splitlines()
    assert head == "Mean ± standard deviation over seeds:" and columns.split()[:4] == [
        "group",
        "seeds",
        "exact",
        "match",
    ]
    assert re.match(r"a0 +2 \(3 runs\) .* ± ", row)  # of the same seed twice: one seed


def test_groups_of_several_seeds_come_before_a_single_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be concluded from one seed, so it is not what the others are compared with."""
    from types import SimpleNamespace

    from core.lab import choosing

    def group(name: str, *seeds: int) -> list[Any]:
        return [SimpleNamespace(name=name, seed=seed) for seed in seeds]

    monkeypatch.setattr(choosing, "by_settings", lambda runs: runs)
    monkeypatch.setattr(choosing, "names_of", lambda groups: [each[0].name for each in groups])

    def order(*groups: list[Any]) -> list[str]:
        return [each.name for each in choosing.grouped(list(groups))]  # type: ignore[arg-type]

    assert order(group("wide", 1, 2), group("default", 1), group("deep", 1, 2)) == ["wide", "deep", "default"]
    assert order(group("wide", 1, 2), group("default", 1, 2)) == ["default", "wide"]
    assert order(group("wide", 1), group("default", 1)) == ["default", "wide"]
