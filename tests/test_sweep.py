"""sweep: what it tries and how it is written; killed and begun again it repeats nothing, loses nothing, and ends the same."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from core import files, open_experiment, train_models
from core.cli.spaces import read_grid, read_range, read_seeds
from core.config import Config
from core.data.dataset import Dataset, load_dataset
from core.defaults import resolve
from core.errors import RunFailed, UserError
from core.lab.opened import open_folder
from core.lab.training import Wish
from core.listener import Silent
from core.process import Owner
from core.report.grid import Spot, picture
from core.report.plots import png
from core.sweeps import names, processes, workers
from core.sweeps.plan import Point, Sweep, plan
from core.sweeps.processes import Request, Share, start
from core.sweeps.space import Grid, Range, Space, check_space
from core.sweeps.state import Standing, State, open_state
from core.toml import toml_value

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parents[1]
LR = "train.optim.learning_rate"
SWEEP = (
    "sweep", "spaces", "--seeds", "0..1", "--grid", f"{LR}=1e-3,1e25,3e-3", "--jobs", "2",
    "-s", "train.optim.name=adamw", "-s", "train.runtime.attention=explicit", "--description", "which <rate>?",
)  # fmt: skip
GIVEN = ("train.optim.name=adamw", "train.runtime.attention=explicit")
RUNS = [f"sweep-lr-lr{rate}-seed{seed}" for rate in ("0.001", "1e+25", "0.003") for seed in (0, 1)]
KEYS = st.sampled_from(
    ["train.model.n_layer", LR, "train.model.block_size", "train.data.block_size", "prepare.params.a"]
)
VALUES = (
    st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.text(max_size=200)
)


def space_of(*grids: str, seeds: str = "", ranges: Sequence[str] = (), draws: int = 0) -> Space:
    """What `sweep --grid ... --seeds ...` tries."""
    given = tuple(map(read_grid, grids)), tuple(map(read_range, ranges))
    return check_space(Space(read_seeds(seeds) if seeds else (), *given, draws))


def planned(folder: Path, space: Space, *overrides: str, **more: Any) -> Sweep:
    """A sweep of the experiment in a folder."""
    return plan(open_folder(str(folder), "", overrides), space, **more)


# What is tried


@given(st.integers(0, 10**9), st.integers(0, 50))
def test_a_range_of_seeds_has_both_its_ends(first: int, more: int) -> None:
    assert read_seeds(f"{first}..{first + more}") == tuple(range(first, first + more + 1))


@given(st.lists(st.integers(0, 10**12), min_size=1))
def test_listed_seeds_are_taken_once_each(seeds: list[int]) -> None:
    assert read_seeds(",".join(map(str, seeds))) == tuple(dict.fromkeys(seeds))


@given(st.text(max_size=20) | st.from_regex(r"[0-9., -]{1,12}", fullmatch=True))
def test_any_other_text_is_no_seeds(text: str) -> None:
    try:
        seeds = read_seeds(text)
    except UserError as error:
        assert "--seeds" in str(error)
    else:
        assert seeds
        assert all(seed >= 0 for seed in seeds)


@given(KEYS, st.lists(VALUES, min_size=1, max_size=8))
def test_values_written_as_toml_are_read_as_they_are(key: str, values: list[Any]) -> None:
    grid = read_grid(f"{key}={','.join(map(toml_value, values))}")
    assert grid.key == key
    assert [repr(value) for value in grid.values] == list(dict.fromkeys(map(repr, values)))


def test_text_needs_no_quotes_and_lists_are_values() -> None:
    assert read_grid("prepare.encoder=char, bpe").values == ("char", "bpe")
    assert read_grid("train.runtime.trackers=[],['tensorboard']").values == ([], ["tensorboard"])
    assert read_grid("train.model.n_layer=2,4,2").values == (2, 4)


@given(st.floats(1e-6, 1e3), st.floats(1.1, 1e4), st.booleans())
def test_draws_lie_in_their_range_and_are_the_same_each_time(low: float, factor: float, log: bool) -> None:
    space = Space(ranges=(Range(LR, low, low * factor, log),), draws=20)
    drawn = [settings[LR] for settings in space.settings()]
    assert all(low <= value <= low * factor for value in drawn)
    assert [settings[LR] for settings in space.settings()] == drawn
    fewer = Space(ranges=space.ranges, draws=7)
    assert [settings[LR] for settings in fewer.settings()] == drawn[:7]


@given(st.integers(1, 100), st.integers(1, 1000), st.booleans())
def test_whole_ends_draw_whole_numbers(low: int, more: int, log: bool) -> None:
    found = read_range(f"train.model.n_embd={low}..{low + more}{':log' * log}")
    for settings in Space(ranges=(found,), draws=30).settings():
        assert type(settings["train.model.n_embd"]) is int
        assert low <= settings["train.model.n_embd"] <= low + more


def test_a_logarithmic_range_is_drawn_evenly_by_factors() -> None:
    space = Space(ranges=(read_range(f"{LR}=1e-4..1:log"),), draws=1000)
    below = sum(settings[LR] < 1e-2 for settings in space.settings())
    assert len(space.settings()) == 1000
    assert 400 < below < 600


def test_everything_is_combined() -> None:
    space = space_of("train.model.n_layer=2,4", seeds="0..2", ranges=[f"{LR}=1e-4..1e-2:log"], draws=5)
    points = space.points()
    assert len(points) == 2 * 5 * 3
    assert [seed for _, seed in points[:3]] == [0, 1, 2]
    assert points[0][0] == points[2][0]


@given(
    st.lists(VALUES, min_size=1, max_size=12, unique_by=repr), st.lists(st.integers(0, 10**6), max_size=3, unique=True)
)
def test_names_are_told_apart_and_safe(values: list[Any], seeds: list[int]) -> None:
    space = Space(tuple(seeds), (Grid(LR, (1, 2)), Grid("prepare.params.a", tuple(values))))
    found = names.run_names("s", space.points())
    assert len({name.lower() for name in found}) == len(found) == 2 * len(values) * max(1, len(seeds))
    assert all(name == names.safe(name) and len(name) < 150 for name in found)
    assert found == names.run_names("s", space.points())


def test_names_say_the_settings() -> None:
    space = space_of(f"{LR}=1e-3,3e-3", "train.model.n_layer=2", seeds="0,1")
    assert names.run_names("lr-n_layer", space.points())[0] == "sweep-lr-n_layer-lr0.001-n_layer2-seed0"
    keys = names.short_keys(["train.data.block_size", "train.model.block_size", LR])
    assert list(keys.values()) == ["data.block_size", "model.block_size", "learning_rate"]


# Mistakes are told before anything runs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "there is nothing to sweep over"),
        (("--seeds", "4..0"), "--seeds 4..0: seeds are whole numbers, or ranges of them"),
        (("--seeds", "0..99999"), "a sweep of 100,000 runs"),
        (("--seeds", "0..999", "--grid", "train.model.n_layer=1,2,3,4,5,6,7,8,9,10,11"), "a sweep of 11,000 runs"),
        (("--grid", "n layer=2"), "--grid n layer=2: it must have the form section.key=..."),
        (("--grid", "train.model.n_layer="), "no values to try"),
        (("--grid", "train.model.n_layer=2", "--grid", "train.model.n_layer=4"), "'train.model.n_layer' is swept twice"),
        (("--grid", "train.model.n_layers=2,4"), "--grid train.model.n_layers=2: unknown key 'train.model.n_layers'\n  Did you mean 'n_layer'?"),
        (("--grid", "train.model.n_layer=2,none"), '--grid train.model.n_layer="none": train.model.n_layer = "none"'),
        (("--grid", "train.model.n_head=2,3"), "--grid train.model.n_head=3: n_embd = 16 is not divisible by n_head = 3"),
        (("--grid", "train.optim.name=adamw,lamb"), 'unknown optimizer "lamb"'),
        (("--grid", "train.runtime.seed=1,2"), "train.runtime.seed: seeds have their own argument\n  For example: --seeds 0..4"),
        (("--grid", "train.runtime.out_dir=a,b"), "all runs of a sweep are in one folder\n  Set it for all runs: -s train.runtime.out_dir=FOLDER"),
        (("--random", "3"), "--random N and --range KEY=LOW..HIGH go together"),
        (("--range", f"{LR}=1..2"), "--random N and --range KEY=LOW..HIGH go together"),
        (("--random", "3", "--range", f"{LR}=1"), "a range is KEY=LOW..HIGH or KEY=LOW..HIGH:log, with numbers"),
        (("--random", "3", "--range", f"{LR}=2..1"), "2 is not below 1"),
        (("--random", "3", "--range", f"{LR}=0..1:log"), "a logarithmic range must start above 0"),
        (("--random", "3", "--range", f"{LR}=-2..-1"), f"--range {LR}=-"),
        (("--seeds", "0", "--name", "../a"), "--name: '../a' is not a valid name of a sweep"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_once(spaces: Path, terrarium: Terrarium, options: tuple[str, ...], said: str) -> None:
    result = terrarium("sweep", "spaces", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (spaces / "out").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["sweep", "--help"]])
def test_the_command_is_registered_without_heavy_imports(spaces: Path, arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom core.cli.main import cli\ncli({arguments!r}, standalone_mode=False)\n"
        "found = {'pydantic', 'numpy', 'torch'} & set(sys.modules)\nassert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sweep" in done.stdout or arguments == ["list"]


def test_messages_name_the_arguments_of_the_api(spaces: Path) -> None:
    settings = {"experiment": "spaces", "train.schedule.max_iters": 2}
    with pytest.raises(UserError, match=r"^run: '\.\./a' is not a valid name of a sweep"):
        train_models(settings | {"run": "../a"}, seeds=[0])
    train_models(settings, seeds=[0])
    with pytest.raises(UserError, match="Give this sweep another name: `run=NAME`"):
        train_models(settings | {"train.data.batch_size": 2}, seeds=[0])
    with (
        files.lock(spaces / "out/sweeps/.seeds.lock", "it"),
        pytest.raises(UserError, match="choose another name: `run=NAME`"),
    ):
        train_models(settings, seeds=[0])


# Runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with an unbroken sweep of three rates, one of which is absurd, and two seeds; and what it said."""
    home = new_home(tmp_path_factory.mktemp("whole"))
    return home, subprocess.run(*command(home), capture_output=True, text=True, timeout=120, env=environment())


def new_home(home: Path) -> Path:
    from conftest import PREPARE, TINY

    folder = home / "experiments" / "spaces"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(
        TINY.replace("max_iters = 6", "max_iters = 24")
        .replace("_interval = 3", "_interval = 12")
        .replace("_interval = 2", "_interval = 8")
    )
    return home


def command(home: Path, *more: str) -> tuple[list[str]]:
    # -c: the current folder need not hold core, and the sweep is to find the experiments from there
    start = f"import os; os.chdir({str(home)!r}); from core.cli.main import main; main()"
    given = [*SWEEP]
    for option in {"--seeds", "--grid", "--jobs", "--description"} & set(more):
        place = given.index(option)
        del given[place : place + 2]  # an option given twice is an error
    return ([sys.executable, "-c", start, *given, *more],)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def folder_of(home: Path) -> Path:
    return home / "experiments" / "spaces" / "out" / "sweeps" / "lr"


def table_of(home: Path) -> list[dict[str, str]]:
    """results.csv without times."""
    with (folder_of(home) / "results.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "train_seconds"} for row in csv.DictReader(file)]


def entries_of(home: Path) -> dict[str, dict[str, Any]]:
    path = folder_of(home) / "sweep.json"
    return {entry["run"]: entry for entry in json.loads(path.read_text())["points"]} if path.exists() else {}


def summaries(home: Path) -> dict[str, dict[str, Any]]:
    paths = (home / "experiments" / "spaces" / "out").glob("*/summary.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def test_the_table_is_that_of_the_runs(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, done = whole
    found = summaries(home)
    assert sorted(found) == sorted(RUNS), done.stderr
    rows = table_of(home)
    assert [row[LR] for row in rows] == ["0.001", "1e+25", "0.003"]
    for row, rate in zip(rows, ("0.001", "1e+25", "0.003"), strict=True):
        if rate == "1e+25":
            continue
        first, second = (found[f"sweep-lr-lr{rate}-seed{seed}"]["best_val_loss"] for seed in (0, 1))
        assert float(row["val_loss"]) == pytest.approx((first + second) / 2)
        assert float(row["val_loss_std"]) == pytest.approx(abs(first - second) / 2**0.5)
        assert row["completed"] == "2"
    assert [row["best"] for row in rows].count("true") == 1
    assert (folder_of(home) / "results.png").read_bytes().startswith(b"\x89PNG")
    page = (folder_of(home) / "report.md").read_text()
    assert r"which \<rate>?" in page
    assert "## What the runs support" in page and "2 seeds each, paired" in page
    assert "![Validation loss by step, by tokens and by time](curves.png)" in page
    assert (folder_of(home) / "curves.png").is_file()
    computing = sum(summary["wall_seconds"] for summary in found.values())
    assert f"{len(RUNS)} | runs | {len(RUNS) - 2} of them complete" in page and computing > 0
    assert f"| {sum(summary['tokens'] for summary in found.values()):,} | tokens |" in page
    assert "sweep-lr-lr0.003-seed1" in page
    settings = page.partition("## Settings")[2].partition("## ")[0]
    assert '| train.optim.name | "adamw" |' in settings.replace("`", "").replace("\\", "")
    assert "learning_rate" not in settings and "runtime.seed" not in settings
    environment = page.partition("## Environment")[2]
    assert "Of sweep-lr-lr0.001-seed0." in environment and "| python |" in environment


def test_a_failing_run_is_kept_and_reported_and_the_rest_goes_on(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, done = whole
    assert done.returncode == 1
    assert "failed: 2 of 6 runs of spaces/sweeps/lr have no result" in done.stderr
    assert "Traceback" not in done.stderr
    assert [entry["status"] for entry in entries_of(home).values()].count("completed") == 4
    failed = entries_of(home)["sweep-lr-lr1e+25-seed0"]
    assert failed["status"] == "failed"
    assert failed["error"].startswith(
        "failed: spaces/sweep-lr-lr1e+25-seed0: the norm of the gradient is nan at step 2"
    )
    assert (folder_of(home) / "logs" / "sweep-lr-lr1e+25-seed0.txt").exists()
    assert table_of(home)[1] | {"failed": "2", "completed": "0", "val_loss": ""} == table_of(home)[1]


def test_every_run_is_an_ordinary_one(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    from core.training.measured import cores

    home, _ = whole
    folder = home / "experiments" / "spaces"
    config = (folder / "out" / "sweep-lr-lr0.003-seed1" / "config.toml").read_text()
    assert f"threads = {max(1, cores() // 2)}\n" in config
    assert "seed = 1\n" in config
    summary = summaries(home)["sweep-lr-lr0.003-seed1"]
    assert (summary["status"], summary["seed"], summary["description"]) == ("completed", 1, "which <rate>?")
    assert summary["command"].startswith("python -m core.cli train spaces --run sweep-lr-lr0.003-seed1 ")
    log = (folder / "EXPERIMENT_LOG.md").read_text()
    assert all(f" {run} <!--" in log for run in RUNS)


@pytest.mark.slow
def test_killed_half_way_and_begun_again_it_ends_as_an_unbroken_one(
    whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    home = new_home(tmp_path / "killed")
    sweep = subprocess.Popen(*command(home), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    patience = time.monotonic() + 60
    while [entry["status"] for entry in entries_of(home).values()].count("completed") < 2:
        assert time.monotonic() < patience and sweep.poll() is None
        time.sleep(0.01)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    before = {run: summary["started"] for run, summary in summaries(home).items() if summary["status"] == "completed"}
    stamps = {run: (home / f"experiments/spaces/out/{run}/metrics.csv").stat().st_mtime_ns for run in before}
    assert 2 <= len(before) < 4

    again = subprocess.run(*command(home), capture_output=True, text=True, timeout=120, env=environment())
    assert again.returncode == 1, again.stderr  # of the absurd rate
    after = summaries(home)
    assert sorted(after) == sorted(RUNS)
    assert {run: after[run]["started"] for run in before} == before
    assert {run: (home / f"experiments/spaces/out/{run}/metrics.csv").stat().st_mtime_ns for run in before} == stamps
    assert table_of(home) == table_of(whole[0])
    assert {run: entry["error"] for run, entry in entries_of(home).items()} == {
        run: entry["error"] for run, entry in entries_of(whole[0]).items()
    }


def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    home = new_home(tmp_path)
    long = ("-s", "train.schedule.max_iters=100000", "--name", "long", "--jobs", "1")
    sweep = subprocess.Popen(*command(home, *long), env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    patience, path = time.monotonic() + 60, home / "experiments/spaces/out/sweep-long-lr0.001-seed0/checkpoints/last"
    while not path.exists():
        assert time.monotonic() < patience and sweep.poll() is None
        time.sleep(0.02)
    sweep.send_signal(signal.SIGTERM)
    told, said = sweep.communicate(timeout=60)
    assert sweep.returncode == 143
    assert "interrupted, and saved. Go on with: python -m core.cli sweep spaces --seeds 0..1" in said
    assert "[1/6] sweep-long-lr0.001-seed0: interrupted" in told
    assert "report so far: " in told
    assert "1 interrupted; 1 waiting" in (folder_of(home).with_name("long") / "report.md").read_text()
    points = json.loads((folder_of(home).with_name("long") / "sweep.json").read_text())["points"]
    assert [point["status"] for point in points[:2]] == ["interrupted", "waiting"]
    assert summaries(home)["sweep-long-lr0.001-seed0"]["status"] == "interrupted"
    assert summaries(home)["sweep-long-lr0.001-seed0"]["steps"] > 0


# Processes


TRACE = """
import json
import os
import sys
import time
from pathlib import Path


def on_train_start(run):
    told = {"folder": os.getcwd(), "environment": dict(os.environ), "argv": sys.argv, "process": os.getpid(),
            "session": os.getsid(0), "path": sys.path}
    Path(os.environ["TRACES"], f"{run.name}.json").write_text(json.dumps(told))
    print("printed by an experiment")
"""


def request(run: str, log: Path, *overrides: str, **more: Any) -> Request:
    """A run of `spaces` in the current folder."""
    return Request("spaces", "", overrides, Wish(run, command="by hand"), log, Share(1), **more)


def ended(asked: Request) -> tuple[int | None, str]:
    """The exit code of a run in a process of its own, and what it said."""
    process = start(asked)
    process.join(60)
    return process.exitcode, asked.log.read_text()


@pytest.mark.slow
def test_a_run_in_a_process_ends_with_the_code_of_train_and_its_log_says_why(spaces: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with (spaces / "prepare.py").open("a") as file:
        file.write(
            "\n\ndef on_train_start(run):\n    import warnings\n\n    print('printed')\n    warnings.warn('odd')\n"
        )
    code, said = ended(request("good", log))
    assert code == 0, said
    assert "training spaces/good: " in said and "trained spaces/good: best checkpoint at step " in said
    assert {"printed", "warning: odd"} <= set(said.splitlines())
    summary = json.loads((spaces / "out/good/summary.json").read_text())
    assert (summary["status"], summary["command"]) == ("completed", "by hand")
    assert (spaces / "out/good/report.html").is_file()

    code, said = ended(request("wrong", log, "train.model.kind=gtp"))
    assert code == 2 and 'error: train.model.kind: unknown model "gtp"' in said and not (spaces / "out/wrong").exists()
    code, said = ended(request("failing", log, f"{LR}=1e25", "train.optim.name=adamw"))
    assert code == 1 and "\nfailed: spaces/failing: the norm of the gradient is nan at step 2" in said
    assert json.loads((spaces / "out/failing/summary.json").read_text())["status"] == "failed"


def test_a_bug_of_an_experiment_leaves_its_traceback_in_the_log(spaces: Path, tmp_path: Path) -> None:
    with (spaces / "prepare.py").open("a") as file:
        file.write("\n\ndef on_train_start(run):\n    print('printed')\n    raise ZeroDivisionError('a bug')\n")
    code, said = ended(request("buggy", tmp_path / "log.txt"))
    assert code == 1 and "printed\n" in said
    assert "Traceback" in said and said.rstrip().endswith("ZeroDivisionError: a bug")
    sweep = planned(spaces, space_of(seeds="0"))
    assert workers.error_of(sweep, tmp_path / "log.txt", 1) == "ZeroDivisionError: a bug"


def test_a_process_is_stopped_as_train_is_or_before_it_begins(spaces: Path, tmp_path: Path) -> None:
    asked = request("long", tmp_path / "log.txt", "train.schedule.max_iters=1000000")
    at_once = start(asked)
    at_once.terminate()
    at_once.join(60)
    assert at_once.exitcode in workers.STOPPED and not (spaces / "out/long/checkpoints").exists()
    process, patience = start(asked), time.monotonic() + 60
    while not (spaces / "out/long/checkpoints/last").exists():
        assert time.monotonic() < patience and process.exitcode is None
        time.sleep(0.02)
    process.terminate()
    process.join(60)
    assert process.exitcode == 143 and asked.log.read_text().endswith("interrupted, and saved.\n")
    assert json.loads((spaces / "out/long/summary.json").read_text())["status"] == "interrupted"
    killed = start(asked)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    sweep = planned(spaces, space_of(seeds="0"))
    assert workers.error_of(sweep, asked.log, -signal.SIGKILL) == "ended by signal 9 (SIGKILL)"


@pytest.mark.slow
def test_elsewhere_a_process_that_imports_for_itself_does_the_same(
    spaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows: there the main module would be run again, and here that is pytest's."""
    monkeypatch.setattr(processes, "context", lambda: multiprocessing.get_context("spawn"))
    monkeypatch.setenv("OF_THE_CALLER", "here")
    with (spaces / "prepare.py").open("a") as file:
        file.write("\n\ndef on_train_start(run):\n    import os\n\n    print(os.environ['OF_THE_CALLER'])\n")
    code, said = ended(request("good", tmp_path / "log.txt"))
    assert code == 0 and "here\n" in said and "trained spaces/good: " in said, said
    process, patience = (
        start(request("long", tmp_path / "log.txt", "train.schedule.max_iters=1000000")),
        time.monotonic(),
    )
    while not (spaces / "out/long/checkpoints/last").exists():
        assert time.monotonic() < patience + 60
        time.sleep(0.02)
    process.terminate()
    process.join(60)
    assert process.exitcode == 143


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
@pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")
def test_a_run_that_nobody_saw_end_has_not_failed(
    spaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that runs are forked from is killed. The run goes on, and the next one gets another such process."""
    monkeypatch.setattr(Owner, "owned", True)  # as under the command line
    asked = request("long", tmp_path / "log.txt", "train.schedule.max_iters=1000000")
    process, patience = start(asked), time.monotonic() + 60
    while not (spaces / "out/long/checkpoints/last").exists():
        assert time.monotonic() < patience
        time.sleep(0.02)
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    process.join(60)
    assert process.exitcode == workers.LOST and workers.LOST in workers.STOPPED
    assert workers.user_of(spaces / "out/long").startswith(f"process {process.pid} since ")
    assert ended(request("short", tmp_path / "other.txt"))[0] == 0
    os.kill(process.pid or 0, signal.SIGTERM)
    while workers.user_of(spaces / "out/long"):
        assert time.monotonic() < patience
        time.sleep(0.02)
    assert asked.log.read_text().endswith("interrupted, and saved.\n")


@pytest.mark.parametrize("owned", [True, False])
def test_runs_have_the_folder_and_the_environment_that_the_caller_has_now(
    spaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owned: bool
) -> None:
    """Though the process that they are forked from was started before, somewhere else."""
    monkeypatch.setattr(Owner, "owned", owned)
    with (spaces / "prepare.py").open("a") as file:
        file.write(TRACE)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("TRACES", str(tmp_path))
    monkeypatch.setenv("ONLY_ONCE", "here")
    train_models({"experiment": str(spaces), "run": "first"}, seeds=[0])
    monkeypatch.delenv("ONLY_ONCE")
    monkeypatch.setenv("LATER", "here")
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    train_models({"experiment": str(spaces), "run": "second"}, seeds=[0])
    first, second = (json.loads((tmp_path / f"sweep-{name}-seed0.json").read_text()) for name in ("first", "second"))
    assert (first["folder"], second["folder"]) == (str(tmp_path), str(tmp_path / "other"))
    assert first["environment"]["ONLY_ONCE"] == "here" and "LATER" not in first["environment"]
    own = {"TORCHINDUCTOR_CACHE_DIR": str(files.cache_folder() / "compiled"), "TOKENIZERS_PARALLELISM": "true"}
    added = second["environment"].items() - dict(os.environ).items()  # set in the process of the run
    assert added <= own.items() and os.environ.items() <= second["environment"].items()
    assert str(tmp_path / "modules") in second["path"]
    assert second["process"] == second["session"] != os.getsid(0)  # Ctrl-C reaches the sweep alone


SCRIPT = """
import sys
from core import train_models

print("begun", flush=True)
runs = train_models({"experiment": "spaces", "train.runtime.threads": 1}, seeds=[1, 0], jobs=2)
for run in runs:
    print(run.name, run.summary["status"], run.summary["seed"])
print(sys.modules["__main__"].runs is runs)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_run_once(spaces: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for program in (("script.py",), ("-c", SCRIPT)):
        done = subprocess.run(
            [sys.executable, *program], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "begun", "sweep-seeds-seed1 completed 1", "sweep-seeds-seed0 completed 0", "True",
        ]  # fmt: skip
        assert done.stderr == ""


@pytest.mark.slow
def test_runs_at_once_have_the_bits_of_runs_in_turn_and_of_a_run_in_this_process(spaces: Path) -> None:
    settings = {
        "train.runtime.threads": 1, "train.runtime.attention": "explicit", "train.model.dropout": 0.2, "train.schedule.max_iters": 12,
    }  # fmt: skip
    before = torch.get_num_threads(), torch.get_rng_state(), sys.modules["__main__"], signal.getsignal(signal.SIGINT)
    named = {"experiment": "spaces", **settings}
    turns = train_models(named | {"run": "turns"}, seeds=[3, 0], jobs=1)
    together = train_models(named | {"run": "together"}, seeds=[3, 0], jobs=2)
    assert [run.name for run in together] == ["sweep-together-seed3", "sweep-together-seed0"]
    alone = [open_experiment("spaces", settings).train(f"alone-{seed}", seed=seed) for seed in (3, 0)]
    for name in ("last", "best"):
        weights = [
            [(run.folder / "checkpoints" / name / "model.safetensors").read_bytes() for run in runs]
            for runs in (turns, together, alone)
        ]
        assert weights[0] == weights[1] == weights[2]
        assert weights[0][0] != weights[0][1]
    assert [run.summary["seed"] for run in together] == [3, 0]
    after = torch.get_num_threads(), torch.get_rng_state(), sys.modules["__main__"], signal.getsignal(signal.SIGINT)
    assert (before[0], *before[2:]) == (after[0], *after[2:]) and torch.equal(before[1], after[1])


@pytest.mark.slow
def test_seeds_and_jobs_of_the_api(spaces: Path) -> None:
    numbers: Any = np.arange(2)
    begun_at: list[str] = []
    runs = train_models({"experiment": "spaces", "train.schedule.max_iters": 2}, seeds=numbers, jobs=2)
    assert [run.summary["seed"] for run in runs] == [0, 1]
    told = json.loads((spaces / "out/sweeps/seeds/sweep.json").read_text())
    assert told["command"] == (
        "train_models({'experiment': 'spaces', 'train.schedule.max_iters': 2}, seeds=[0, 1], jobs=2)"
    )
    assert {run.summary["command"] for run in runs} == {told["command"]}
    again = train_models({"experiment": "spaces", "train.schedule.max_iters": 2}, seeds=[0, 1])
    assert [run.summary["started"] for run in again] == [run.summary["started"] for run in runs]
    for more, said in (
        ({"seeds": [0], "jobs": 0}, "jobs: 0 runs at a time\n  Give 1 or more."),
        ({"seeds": []}, "seeds: there are no seeds\n  For example: seeds=[0, 1, 2]"),
        ({"seeds": [0, 1, np.int64(0)]}, "seeds: seed 0 is given 2 times\n  Give each seed once."),
        ({"seeds": [0.5]}, "`train.runtime.seed=0.5`: train.runtime.seed = 0.5: "),
    ):
        with pytest.raises(UserError) as caught:
            train_models({"experiment": "spaces"}, **more)
        assert str(caught.value).startswith(said)
    for retry in (False, False, True):
        with pytest.raises(
            RunFailed, match=r"1 of 1 runs of spaces/sweeps/bad have no result:\n  sweep-bad-seed0: failed: "
        ) as failed:
            train_models(
                {"experiment": "spaces", "run": "bad", "train.optim.name": "adamw", LR: 1e25}, seeds=[0], retry=retry
            )
        assert "`retry=True` trains failed runs again." in str(failed.value)
        begun_at.append(json.loads((spaces / "out/sweep-bad-seed0/summary.json").read_text())["started"])
        told = json.loads((spaces / "out/sweeps/bad/sweep.json").read_text())
        assert told["command"].endswith("jobs=1, retry=True)" if retry else "jobs=1)")
    assert begun_at[0] == begun_at[1]


def processes_with(variable: str) -> list[int]:
    """Processes whose environment has a variable."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def begun(home: Path, *more: str, mark: str = "") -> tuple[subprocess.Popen[str], Path]:
    """A sweep of long runs of which one trains, in a session of its own; and that run's folder."""
    long = ("-s", "train.schedule.max_iters=1000000", "--name", "long", "--jobs", "1", *more)
    sweep = subprocess.Popen(
        *command(home, *long), env=environment() | {"MARK_OF_THE_TEST": mark}, start_new_session=True,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    run, patience = home / "experiments/spaces/out/sweep-long-lr0.001-seed0", time.monotonic() + 60
    while not (run / "checkpoints/last").exists():
        assert time.monotonic() < patience and sweep.poll() is None
        time.sleep(0.02)
    return sweep, run


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_when_the_sweep_is_killed_its_runs_save_and_stop(tmp_path: Path) -> None:
    home, mark = new_home(tmp_path), f"killed-{os.getpid()}-{time.monotonic_ns()}"
    sweep, run = begun(home, mark=mark)
    assert len(processes_with(mark)) >= 3  # the sweep, what its runs are forked from, and a run
    sweep.kill()  # it can tell its run nothing
    sweep.communicate(timeout=60)
    patience = time.monotonic() + 60
    while processes_with(mark):
        assert time.monotonic() < patience
        time.sleep(0.05)
    summary = json.loads((run / "summary.json").read_text())
    saved = json.loads((run / "checkpoints/last/state.json").read_text())
    assert (summary["status"], summary["steps"]) == ("interrupted", saved["step"]) and saved["step"] > 0
    log = (folder_of(home).with_name("long") / "logs" / f"{run.name}.txt").read_text()
    assert log.endswith("interrupted, and saved.\n")
    assert workers.user_of(run) == workers.user_of(folder_of(home).with_name("long")) == ""  # nothing is in use


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_all_processes_of_a_terminal_stops_a_sweep_as_one_to_it_alone(tmp_path: Path, number: int) -> None:
    """Ctrl-C, and `timeout` as well: they reach the process that runs are forked from, too."""
    home = new_home(tmp_path)
    sweep, run = begun(home)
    os.killpg(sweep.pid, number)
    told, said = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + number, said
    assert "stopping 1 run; first, progress is saved" in told and f"[1/6] {run.name}: interrupted" in told
    assert said.startswith("interrupted, and saved. Go on with: ") and "Traceback" not in said
    points = json.loads((folder_of(home).with_name("long") / "sweep.json").read_text())["points"]
    assert [point["status"] for point in points[:2]] == ["interrupted", "waiting"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == json.loads((run / "checkpoints/last/state.json").read_text())["step"] > 0


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        (signal.SIGINT, 1.0),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((signal.SIGINT, 0.0), (signal.SIGTERM, 0.3), (signal.SIGTERM, 2.5))
        ),
    ],
)
def test_a_signal_while_the_first_process_starts_is_no_crash(tmp_path: Path, number: int, seconds: float) -> None:
    home = new_home(tmp_path)
    endless = ("-s", "train.schedule.max_iters=1_000_000")  # no run is to be complete before the signal
    sweep = subprocess.Popen(
        *command(home, *endless), env=environment(), start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    patience = time.monotonic() + 60
    while not (folder_of(home) / "sweep.json").exists():
        assert time.monotonic() < patience and sweep.poll() is None
        time.sleep(0.005)
    time.sleep(seconds)
    os.killpg(sweep.pid, number)
    _, said = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + number and "Traceback" not in said, said
    assert {entry["status"] for entry in entries_of(home).values()} <= {"waiting", "interrupted"}


# What is there already


@pytest.fixture
def finished(whole: tuple[Path, subprocess.CompletedProcess[str]], lab: Path) -> Path:
    """A copy of the unbroken sweep's experiment, in the current folder."""
    shutil.copytree(whole[0] / "experiments" / "spaces", lab / "spaces")
    return lab / "spaces"


def test_a_finished_sweep_is_told_again(finished: Path, terrarium: Terrarium) -> None:
    result = terrarium(*SWEEP, "--json")
    assert result.exit_code == 1
    assert "6 runs, 6 of them done" in result.stderr
    told = json.loads(result.stdout)
    assert [setting["completed"] for setting in told["settings"]] == [2, 0, 2]
    assert {run["status"] for run in told["runs"]} == {"completed", "failed"}
    quiet = terrarium(*SWEEP, "--quiet")
    assert quiet.stdout == ""


def test_fewer_values_make_the_same_sweep_smaller(finished: Path, terrarium: Terrarium) -> None:
    smaller = [part.replace("1e-3,1e25,3e-3", "3e-3,1e-3") for part in SWEEP]
    result = terrarium(*smaller)
    assert result.exit_code == 0
    rows = list(csv.DictReader(io.StringIO((finished / "out/sweeps/lr/results.csv").read_text())))
    assert [(row[LR], row["completed"]) for row in rows] == [("0.003", "2"), ("0.001", "2")]
    remark = "2 runs of this sweep are left out, as this command does not ask for them."
    assert remark in result.stdout
    assert remark in (finished / "out/sweeps/lr/report.md").read_text()
    again = terrarium(*SWEEP)
    assert "6 runs, 6 of them done" in again.stdout  # the failures too: --retry was not given
    assert "left out" not in again.stdout


def test_another_sweep_needs_another_name(finished: Path, terrarium: Terrarium) -> None:
    result = terrarium(*SWEEP, "-s", "train.model.n_layer=2")
    assert result.exit_code == 2
    assert "the sweep 'lr' was started with other overrides" in result.stderr
    assert "--name NAME" in result.stderr


def test_a_config_that_has_changed_since_is_told(finished: Path, terrarium: Terrarium) -> None:
    path = finished / "config.toml"
    path.write_text(path.read_text().replace("batch_size = 4", "batch_size = 5"))
    result = terrarium(*SWEEP)
    assert result.exit_code == 2
    assert (
        "the run 'sweep-lr-lr0.001-seed0' of this sweep was made with other settings: train.data.batch_size"
        in result.stderr
    )


def test_a_damaged_state_is_told(finished: Path, terrarium: Terrarium) -> None:
    path = finished / "out/sweeps/lr/sweep.json"
    path.write_text(path.read_text()[:100])
    result = terrarium(*SWEEP)
    assert result.exit_code == 2
    assert "the state of the sweep is damaged" in result.stderr
    path.unlink()
    assert terrarium(*SWEEP[:4], "--grid", f"{LR}=1e-3,3e-3", *SWEEP[6:]).exit_code == 0


def test_a_sweep_that_was_copied_along_is_left_alone(finished: Path, terrarium: Terrarium) -> None:
    copy = shutil.copytree(finished, finished.with_name("mine"))
    result = terrarium("sweep", "mine", *SWEEP[2:6], *SWEEP[8:], "-s", "train.schedule.max_iters=0")
    assert result.exit_code == 2  # the config, and nothing is touched before it is good
    assert (copy / "out/sweeps/lr").exists()
    sweep = planned(copy, space_of(seeds="0"), name="lr")
    state = open_state(sweep, dict.fromkeys((point.run for point in sweep.points), NO_DATA), retry=False)
    assert (copy / "out/sweeps/lr-of-spaces-1/results.csv").exists()
    assert [standing.status for standing in state.standings.values()] == ["waiting"]


def test_two_sweeps_of_one_name_exclude_each_other(finished: Path, terrarium: Terrarium) -> None:
    with files.lock(finished / "out/sweeps/.lr.lock", "it"):
        result = terrarium(*SWEEP)
    assert result.exit_code == 2
    assert "sweep spaces/sweeps/lr is in use by process" in result.stderr


def test_a_run_that_another_process_trains_is_waited_for(finished: Path) -> None:
    from core.sweeps.workers import user_of

    run = finished / "out" / RUNS[0]
    assert user_of(run) == ""
    with files.lock(finished / "out" / f".{RUNS[0]}.lock", "it"):
        assert user_of(run).startswith(f"process {os.getpid()} since ")


def test_a_run_whose_stages_another_process_takes_is_waited_for(spaces: Path) -> None:
    """Between two stages only the lock of the run is held."""
    said: list[str] = []
    sweep = SimpleNamespace(out=spaces / "out")
    launcher = SimpleNamespace(shares=[], is_here=False)
    crew = workers.Crew(
        cast(Any, SimpleNamespace(sweep=sweep)), cast(Any, launcher), show=print, ended=print, say=said.append
    )
    point = Point("p0", {}, (), None, Config(), ("base", "chat"))
    assert crew.may_start(point)
    with files.lock(spaces / "out" / ".p0.lock", "it"):
        assert not crew.may_start(point) and said[0].startswith(f"p0 is still in use by process {os.getpid()} since ")
    assert crew.may_start(point)


def test_points_that_prepare_otherwise_have_datasets_of_their_own(spaces: Path) -> None:
    points = planned(spaces, space_of("prepare.size=1000,2000", "train.model.n_layer=1,2", seeds="0..1")).points
    assert [point.config.prepare.dataset_dir for point in points] == ["datasets/basic-size1000"] * 4 + [
        "datasets/basic-size2000"
    ] * 4


def test_a_failure_may_be_tried_once_more(finished: Path) -> None:
    sweep = planned(finished, space_of(f"{LR}=1e-3,1e25,3e-3", seeds="0..1"), *GIVEN)
    datasets = dict.fromkeys(RUNS, dataset_of(finished))
    assert open_state(sweep, datasets, retry=False).left() == []
    again = open_state(sweep, datasets, retry=True)
    assert [point.run for point in again.left()] == [run for run in RUNS if "1e+25" in run]


def test_the_table_on_a_terminal_shows_what_runs_and_what_waits(finished: Path) -> None:
    from rich.console import Console

    from core.sweeps.live import MOST_ROWS, drawn, sentence

    shutil.rmtree(finished / "out/sweeps")
    state = state_of(finished, space_of(f"{LR}=1e-3", seeds="0..49"))
    points = state.sweep.points
    point = points[40]
    state.set(point, Standing("running"))
    process: Any = None
    job = workers.Job(point, process, Share(), Path(), [Path()], rows=[{"step": 12, "val_loss": 1.5}])
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(drawn(state, [job]))
    text = console.export_text()
    assert "2 completed, 47 waiting, 1 running" in text
    assert any(line.split()[:4] == ["lr0.001-seed40", "running", "12/24", "1.5000"] for line in text.splitlines())
    assert text.count("\nlr0.001-seed") == MOST_ROWS
    assert sentence(state, points[0], 1.25).startswith("[2/50] sweep-lr-lr0.001-seed0: completed, val loss ")


def test_what_is_said_above_the_table_has_the_words_of_the_command_line(finished: Path) -> None:
    from core.cli.phrasing import phrased
    from core.sweeps.live import Screen, live_table

    stream = io.StringIO()
    with live_table(state_of(finished, THREE), Screen(stream, phrased)) as (_, say):
        say("[1/6] a run: failed: error: broken. Train it again with `fresh=True` `train.data.batch_size=4`.")
    assert "Train it again with --fresh -s train.data.batch_size=4.\n" in stream.getvalue()


NO_DATA: Any = None  # of runs that are not there yet


def dataset_of(folder: Path) -> Dataset:
    """That of the finished runs."""
    return load_dataset(folder / "datasets" / "basic")


def state_of(folder: Path, space: Space, **more: Any) -> State:
    """A sweep in the folder of the finished runs, begun anew, which finds them."""
    sweep = planned(folder, space, *GIVEN, name="lr", **more)
    return open_state(sweep, {point.run: dataset_of(folder) for point in sweep.points}, retry=False)


THREE = space_of(f"{LR}=1e-3,1e25,3e-3", seeds="0..1")


def test_what_an_earlier_command_left_unfinished_has_not_ended(finished: Path) -> None:
    from core.sweeps.live import sentence

    shutil.rmtree(finished / "out/sweeps")
    state = state_of(finished, THREE)  # the absurd runs have begun, and nobody knows that they failed
    first, _, third, fourth, *_ = state.sweep.points
    assert state.standings[third.run].status == state.standings[fourth.run].status == "interrupted"
    assert sentence(state, first, 1.0).startswith("[4/6] ")
    state.set(third, Standing("running"))
    assert sentence(state, first, 1.0).startswith("[4/6] ")
    state.set(third, Standing("interrupted"))
    assert sentence(state, third, 1.0).startswith("[5/6] ")


def test_a_report_that_cannot_be_written_does_not_hide_an_interrupt(finished: Path) -> None:
    from core.sweeps.running import report_so_far

    told = Said()
    state = open_state(
        plan(open_folder(str(finished), "", GIVEN, told), THREE, name="lr"),
        dict.fromkeys(RUNS, dataset_of(finished)),
        retry=False,
    )
    (finished / "out" / RUNS[0] / "summary.json").write_text("{")
    report_so_far(state)
    assert told.lines and told.lines[-1].startswith("the report so far could not be written: ")


class Said(Silent):
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


# No home folder


def test_a_sweep_does_not_tell_where_the_home_folder_is(
    spaces: Path, terrarium: Terrarium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    grid = f"prepare.raw_dir={tmp_path}/raw,{tmp_path}/other"
    sweep = ("sweep", "spaces", "--grid", grid, *SWEEP[8:12], "-s", f"{LR}=1e25", "-s", "train.schedule.max_iters=24", "--description", f"of {tmp_path}/raw")  # fmt: skip
    result = terrarium(*sweep)
    assert result.exit_code == 1, result.stderr
    folder = spaces / "out/sweeps/raw_dir"
    found = json.loads((folder / "sweep.json").read_text())
    assert found["grid"] == {"prepare.raw_dir": ["~/raw", "~/other"]}
    assert len(list((folder / "logs").iterdir())) == 2
    kept = [
        path
        for path in (spaces / "out").rglob("*")
        if path.suffix in (".json", ".csv", ".md", ".html", ".txt", ".toml")
    ]
    assert [path for path in kept if str(tmp_path) in path.read_text()] == []
    assert [path.name for path in (spaces / "out").rglob("*") if names.safe(str(tmp_path)) in path.name] == []
    again = terrarium(*sweep)
    assert "2 runs, 2 of them done" in again.stdout, again.stderr
    tilde = terrarium(*(part.replace(str(tmp_path), "~") for part in sweep))
    assert "2 runs, 2 of them done" in tilde.stdout, tilde.stderr


def test_a_log_that_is_kept_has_no_home_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.private import hide_home_in

    monkeypatch.setenv("HOME", str(tmp_path))
    log = tmp_path / "log.txt"
    log.write_text(f'File "{tmp_path}/a.py", line 1\n')
    hide_home_in(log)
    assert log.read_text() == 'File "~/a.py", line 1\n'
    hide_home_in(tmp_path / "none.txt")


# Pictures


def spots(keys: dict[str, list[Any]]) -> list[Spot]:
    settings = [dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())]
    return [Spot(each, [1.0 + index, 1.2 + index], best=index == 0) for index, each in enumerate(settings)]


def test_one_key_is_a_line_on_a_logarithmic_axis_where_it_spans_much() -> None:
    figure = picture([LR], spots({LR: [1e-3, 1e-2, 1e-1]}))
    assert figure is not None
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([1.1, 2.1, 3.1])
    near = picture([LR], spots({LR: [1e-3, 2e-3]}))
    assert near is not None
    assert near.axes[0].get_xscale() == "linear"


def test_two_keys_are_a_heat_map_with_an_empty_cell_where_nothing_came_out() -> None:
    found = spots({LR: [1, 2, 3], "train.model.preset": ["gpt2", "$x$"]})
    figure = picture([LR, "train.model.preset"], [*found[:-1], Spot(found[-1].settings, [])])
    assert figure is not None
    (ax,) = figure.axes
    cells = ax.images[0].get_array()
    assert cells is not None
    assert cells.shape == (2, 3)
    assert cells[0, 1] == pytest.approx(3.1)
    assert [text.get_text() for text in ax.texts].count("-") == 1
    assert png(figure)


def test_drawn_points_and_many_keys_are_a_panel_each_and_seeds_one() -> None:
    keys: dict[str, list[Any]] = {LR: [1e-3, 2e-3], "train.model.n_layer": [1, 2], "train.model.bias": [True, False]}
    for scattered, count in ((True, 2), (False, 3)):
        chosen = dict(itertools.islice(keys.items(), count))
        figure = picture(list(chosen), spots(chosen), scattered=scattered)
        assert figure is not None
        assert len(figure.axes) == count
        assert png(figure)
    alone = picture([], [Spot({"seed": 0}, [1.0]), Spot({"seed": None}, [2.0])])
    assert alone is not None
    assert [label.get_text() for label in alone.axes[0].get_xticklabels()] == ["0", "default"]
    assert picture([LR], [Spot({LR: 1}, [])]) is None


# The log has one writer at a time


def test_processes_take_turns(tmp_path: Path) -> None:
    add = (
        "import sys, pathlib; from core import files; path = pathlib.Path(sys.argv[1])\n"
        "for _ in range(200):\n"
        "    with files.turn(path.parent): path.write_text(str(int(path.read_text()) + 1))"
    )
    count = tmp_path / "count"
    count.write_text("0")
    both = [subprocess.Popen([sys.executable, "-c", add, str(count)], env=environment()) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert count.read_text() == "400"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_settings_with_other_tokens_are_ranked_by_bits_of_the_same_text() -> None:
    from core.sweeps.results import Result as OfSetting
    from core.sweeps.results import comparable_measure

    def result(encoder: str, loss: float, bits: float, text: str | None) -> OfSetting:
        point = Point(encoder, {"prepare.encoder": encoder}, 0, (), resolve(Config()))
        summary = {
            "status": "completed",
            "best_val_loss": loss,
            "bits_per_byte": bits,
            "data_hash": encoder,
            "val_text": text,
        }
        return OfSetting(point.settings, [(point, Standing("completed"), summary)])

    assert comparable_measure([result("char", 1.0, 2.0, "t"), result("bpe", 3.0, 1.0, "t")]) == "bits_per_byte"
    assert comparable_measure([result("char", 1.0, 2.0, "t"), result("bpe", 3.0, 1.0, "u")]) is None
    assert comparable_measure([result("char", 1.0, 2.0, None), result("bpe", 3.0, 1.0, None)]) is None
    assert comparable_measure([result("char", 1.0, 2.0, "t"), result("char", 3.0, 1.0, "t")]) == "val_loss"


# Halving


def test_the_worse_half_is_stopped_at_a_rung_also_after_a_kill(spaces: Path) -> None:
    pytest.importorskip("optuna")
    from core.sweeps.halving import Halving

    steps = ("train.schedule.max_iters=80", "train.runtime.eval_interval=10")
    sweep = planned(spaces, space_of(seeds="0..3"), *steps, halving=True)
    state = open_state(sweep, dict.fromkeys((point.run for point in sweep.points), NO_DATA), retry=False)
    first, second, third, _ = sweep.points
    halving = Halving(state)
    rows = [{"step": step, "val_loss": 2 - step / 80} for step in range(10, 80, 10)]
    assert halving.watch(first, rows[:1]) is None
    assert halving.watch(second, [{"step": 10, "val_loss": 3.0}]) == Standing("stopped", step=10, val_loss=3.0)
    assert halving.watch(first, rows) is None
    again = Halving(state)
    assert again.watch(first, rows) is None
    assert again.watch(third, [{"step": 5}, {"step": 10, "val_loss": 1.0}]) is None
    stopped = again.watch(third, [{"step": 10, "val_loss": 1.0}, {"step": 20, "val_loss": 2.5}])
    assert stopped == Standing("stopped", step=20, val_loss=2.5)
    assert len(again.study.trials) == 3


def test_the_seeds_that_halving_kept_do_not_speak_for_their_setting(finished: Path) -> None:
    from core.sweeps.report import write_results
    from core.sweeps.results import KEPT, NO_BEST, remarks, table

    shutil.rmtree(finished / "out/sweeps")
    state = state_of(finished, space_of(f"{LR}=1e-3,3e-3", seeds="0..1"), halving=True)
    low, high = state.sweep.points[0], state.sweep.points[2]
    state.set(low, Standing("stopped", step=8, val_loss=3.0))
    results, _ = write_results(state)
    kept = state.loss(state.sweep.points[1])
    first, second = table(state.sweep, results).rows
    assert [first[1], first[3]] == ["1 of 2", f"{kept:.4f}*"] and first[-1] == "1 stopped at step 8"
    assert "±" in second[3] and second[-1] == "best"
    rows = list(csv.DictReader(io.StringIO((finished / "out/sweeps/lr/results.csv").read_text())))
    assert [(row["val_loss"] != "", row["stopped"]) for row in rows] == [(False, "1"), (True, "0")]
    page = (finished / "out/sweeps/lr/report.md").read_text()
    assert "too good" in page and "What the runs support" not in page  # with whom should the other be compared?
    assert remarks(state, results) == [KEPT]
    state.set(high, Standing("stopped", step=8, val_loss=3.0))
    results, _ = write_results(state)
    assert not any(result.best for result in results)
    assert remarks(state, results) == [KEPT, NO_BEST]
    assert not (finished / "out/sweeps/lr/results.png").exists()  # that of the first time would mislead

    for point in (low, high):
        path = finished / "out" / point.run / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    fewer = state_of(finished, space_of(f"{LR}=1e-3", seeds="1"), halving=True)
    assert list(fewer.standings) == [RUNS[1]]
    again = state_of(finished, state.sweep.space, halving=True)
    assert again.standings == state.standings  # who was stopped stays so


def test_halving_without_optuna_says_what_to_install(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = terrarium("sweep", "spaces", "--seeds", "0", "--halving")
    assert result.exit_code == 2
    assert "pip install -c constraints.txt -e '.[sweep]'" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("train.runtime.max_minutes=1",), "halving needs a number of steps, but this run is limited by time"),
        (
            ("train.runtime.eval_interval=4",),
            "with an evaluation every 4 steps there is none in the first half of 6 steps",
        ),
    ],
)
def test_halving_needs_steps_to_judge_at(
    spaces: Path, terrarium: Terrarium, options: tuple[str, ...], said: str
) -> None:
    pytest.importorskip("optuna")
    result = terrarium(
        "sweep", "spaces", "--seeds", "0", "--halving", *(part for text in options for part in ("-s", text))
    )
    assert result.exit_code == 2
    assert said in result.stderr


def test_halving_compares_no_losses_over_other_tokens(spaces: Path, terrarium: Terrarium) -> None:
    pytest.importorskip("optuna")
    done = terrarium("sweep", "spaces", "--grid", "train.data.mask_prompt=true,false", "--halving")
    assert done.exit_code == 2
    assert (
        "losses, and those of these settings are means over other tokens (train.data.mask_prompt is true and"
        in done.output
    )
    assert "Sweep without halving. Exact match is compared at the end." in done.output


@pytest.mark.slow
def test_halving_takes_fewer_steps_and_keeps_its_study(spaces: Path, terrarium: Terrarium) -> None:
    pytest.importorskip("optuna")
    steps = ("-s", "train.schedule.max_iters=1600", "-s", "train.runtime.eval_interval=100", "-s", "train.runtime.checkpoint_interval=200")  # fmt: skip
    sweep = ("sweep", "spaces", "--grid", f"{LR}=1e-2,1e-3,3e-3,1e-5", *steps, "--halving")
    result = terrarium(*sweep)
    assert result.exit_code == 0, result.stderr
    runs = [json.loads(path.read_text()) for path in (spaces / "out").glob("*/summary.json")]
    assert len(runs) == 4
    assert sum(run["steps"] for run in runs) < 4 * 1600 * 0.75
    folder = spaces / "out/sweeps/halving-lr"
    points = json.loads((folder / "sweep.json").read_text())["points"]
    stopped = [point for point in points if point["status"] == "stopped"]
    assert len(stopped) >= 2
    assert all(point["step"] % 100 == 0 and point["val_loss"] > 0 for point in stopped)
    assert (folder / "study.db").stat().st_size > 0
    assert f"stopped at step {stopped[0]['step']}" in result.stdout
    again = terrarium(*sweep)
    assert "4 runs, 4 of them done" in again.stdout


def test_a_process_that_ends_before_it_begins_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    sweep: Any = SimpleNamespace(experiment=SimpleNamespace(folder=tmp_path))
    assert workers.error_of(sweep, tmp_path / "no.txt", 1) == "exit code 1"
    (tmp_path / "log.txt").write_text("told before\nerror: no such thing\n  Do it.\n")
    assert workers.error_of(sweep, tmp_path / "log.txt", 2) == "error: no such thing Do it."


def test_damaged_metrics_of_one_run_do_not_end_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val_loss\n1,abc\n")
    job: Any = SimpleNamespace(folders=[tmp_path], size=0, rows=[])
    assert not workers.Job.look(job)
    assert job.rows == []
