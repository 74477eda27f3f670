"""Steps that a run keeps on its way: which, what they hold, how they survive kills, and what can be asked of them."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from copies import Lab, tiny
from cutting import CUT, Forks, outcome

from core import open_experiment
from core.errors import UserError
from core.lab.moments import Moments
from core.lab.opened import open_folder
from core.look import principal_plane, token_embeddings
from core.training import checkpoints, ladder

Terrarium = Callable[..., Result]
KEEP = ("-s", "train.runtime.keep_checkpoints=4")
KEPT = [0, 1, 2, 6]  # of the six steps of `spaces`


def test_the_arithmetic_of_the_ladder() -> None:
    assert ladder.shares(0) == () and ladder.shares(1) == (1.0,) and ladder.shares(2) == (0.0, 1.0)
    assert ladder.shares(3) == (0.0, 0.01, 1.0)
    assert ladder.shares(5) == pytest.approx((0.0, 0.01, 0.0464159, 0.2154435, 1.0), abs=1e-6)
    assert ladder.steps(2000, 5) == (0, 20, 93, 431, 2000)
    assert ladder.steps(1600, 10) == (0, 16, 28, 51, 90, 160, 285, 506, 900, 1600)
    assert [ladder.passed(ladder.shares(3), gone) for gone in (0.0, 0.009, 0.01, 0.5, 1.0)] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("length", [1, 2, 6, 99, 5000])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 200])
def test_every_ladder_begins_at_the_beginning_and_ends_at_the_end(length: int, count: int) -> None:
    steps = ladder.steps(length, count)
    assert list(steps) == sorted(set(steps)) and len(steps) == min(count, length + 1)
    assert steps[-1:] == ((length,) if count else ()) and (count < 2 or steps[0] == 0)
    assert (np.diff(ladder.shares(count)[1:], n=2) > 0).all()  # always wider apart


def bits(run: Path) -> dict[str, bytes]:
    """All files of the steps that a run has kept."""
    return {
        f"{folder.name}/{path.name}": path.read_bytes()
        for folder in run.joinpath("checkpoints").glob("step-*")
        for path in folder.iterdir()
    }


def test_a_run_keeps_weights_and_is_the_run_that_it_would_be_without(spaces: Path, terrarium: Terrarium) -> None:
    for name, more in {"kept": KEEP, "plain": ()}.items():
        assert terrarium("train", "spaces", "--run", name, *more).exit_code == 0
    kept, plain = spaces / "out" / "kept", spaces / "out" / "plain"
    found = {run: outcome(run) for run in (kept, plain)}
    assert sorted(found[kept].pop("kept")) == KEPT and found[plain].pop("kept") == {}
    assert found[kept] | {"log": []} == found[plain] | {"log": []}
    last = checkpoints.read(kept / "checkpoints" / "last")
    end = checkpoints.read(kept / "checkpoints" / "step-000006")
    assert end.model.keys() == last.model.keys() and all((end.model[name] == last.model[name]).all() for name in end.model)  # fmt: skip
    assert end.optimizer == {} and sorted(path.name for path in end.folder.iterdir()) == ["model.safetensors", "state.json"]  # fmt: skip
    start = checkpoints.read(kept / "checkpoints" / "step-000000")
    assert any((start.model[name] != end.model[name]).any() for name in end.model)
    # It is only shown: the same run goes on with another number.
    assert "is finished" in terrarium("train", "spaces", "--run", "kept", "-s", "train.runtime.keep_checkpoints=9").stdout  # fmt: skip


def test_a_run_that_ends_early_keeps_its_end_and_a_longer_one_goes_on(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", *KEEP, "-s", "train.runtime.stop_when=val_loss > 0").exit_code == 0
    folder = spaces / "out" / "default" / "checkpoints"
    assert ladder.kept_steps(folder) == [0, 1, 2, 3]
    longer = ("-s", "train.schedule.max_iters=60", "--resume", "-s", "train.runtime.stop_when=val_loss < 0")
    result = terrarium("train", "spaces", *KEEP, *longer)
    assert result.exit_code == 0, result.output
    assert ladder.kept_steps(folder) == [0, 1, 2, 3, 6, 60]


def test_a_run_of_minutes_keeps_shares_of_its_time(spaces: Path, terrarium: Terrarium) -> None:
    short = ("-s", "train.runtime.max_minutes=0.01", "-s", "train.runtime.eval_interval=1000000")
    result = terrarium("train", "spaces", *KEEP, *short)
    assert result.exit_code == 0, result.output
    steps = ladder.kept_steps(spaces / "out" / "default" / "checkpoints")
    assert steps[0] == 0 and steps[-1] == json.loads((spaces / "out/default/summary.json").read_text())["steps"]
    assert 3 <= len(steps) <= 4


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Lab:
    """Four steps, of which all but the third are kept."""
    return Lab(tiny(tmp_path_factory.mktemp("kept"), 4, "keep_checkpoints = 4\n"), forks)


def killed_at(kept: Lab, number: int) -> None:
    """End a run at an operation and train it again: nothing is lost, and each kept step has its bytes, state.json too."""
    folder = kept.copy()
    run = folder / "experiments" / "tiny" / "out" / "default"
    assert kept.forks.start(folder, "train", "tiny", cut=number).wait()[0] == CUT
    before = bits(run)
    code, printed = kept.forks.run(folder, "train", "tiny")
    assert code == 0, printed
    after = bits(run)
    assert len(after) == 8 and {name: after[name] for name in before if ".tmp" not in name} == before
    assert kept.outcome(folder) == kept.unbroken and not list(folder.rglob(".tmp-*"))
    shutil.rmtree(folder)


@pytest.mark.parametrize("part", [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_a_killed_run_keeps_the_same_steps_with_the_same_bytes(kept: Lab, part: float) -> None:
    assert sorted(kept.unbroken["kept"]) == [0, 1, 2, 4]
    killed_at(kept, int(part * kept.operations))


@pytest.mark.slow
def test_a_run_killed_at_any_operation_keeps_the_same_steps(kept: Lab) -> None:
    for number in range(kept.operations):
        killed_at(kept, number)


def test_steps_of_a_try_that_came_further_are_forgotten(tmp_path: Path) -> None:
    for step in (0, 5, 20, 1_000_000):
        checkpoints.save(tmp_path, ladder.kept_name(step), {}, None, {"step": step})
    checkpoints.save(tmp_path, "last", {}, {}, {"step": 5})
    (tmp_path / ".tmp-step-000030").mkdir()
    assert ladder.kept_steps(tmp_path) == [0, 5, 20, 1_000_000]
    checkpoints.forget(tmp_path, after=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step-000000", "step-000005"]


@pytest.fixture
def trained(spaces: Path) -> Any:
    """A run that has kept KEPT."""
    return open_experiment("spaces", {"train.runtime.keep_checkpoints": 4}).train()


def test_the_api_loads_kept_steps(trained: Any) -> None:
    assert trained.moments == KEPT
    assert [trained.load(step).step for step in KEPT] == KEPT and trained.load("step-000002").step == 2
    with pytest.raises(UserError, match="default has not kept step 3") as error:
        trained.load(3)
    assert "a kept step: 0, 1, 2, 6." in error.value.remedy
    with pytest.raises(UserError, match="a run has no checkpoint 'final'"):
        trained.load("final")


def test_what_a_kept_step_is_found_to_be_does_not_stand_for_the_run(trained: Any) -> None:
    assert trained.load(0).evaluate()["step"] == 0
    assert not (trained.folder / "evaluation.json").exists()
    trained.load().evaluate()
    assert (trained.folder / "evaluation.json").exists()


def test_all_steps_are_looked_at_in_the_same_way(trained: Any) -> None:
    found = trained.over_time("ab: ")
    assert [moment.step for moment in found.moments] == KEPT and found.truth is None
    for moment in found.moments:
        model = trained.load(moment.step)
        assert moment.answer == model.complete(["ab: "], temperature=0, max_new_tokens=64)[0]
    first, *_, last = found.moments
    assert {tuple(moment.tokens) for moment in found.moments} == {tuple(first.tokens)}
    assert first.asked == 4 and first.weights != last.weights and len(first.weights[0]) == 2
    embeddings = token_embeddings(trained.load(6).module, trained.load(6).encoder)
    assert embeddings is not None
    points, shares = principal_plane(embeddings.rows)
    assert np.allclose(last.points, points, atol=1e-4) and np.allclose(last.shares, shares, atol=1e-3)
    # Between neighbouring steps points move by little: a basis of each step's own could turn and flip.
    moved = [np.abs(np.subtract(one.points, other.points)).max() for one, other in zip(found.moments, found.moments[1:3], strict=False)]  # fmt: skip
    assert max(moved) < np.abs(points).max()
    assert found.as_json()["moments"][0]["embedding"]["labels"] == list(embeddings.labels)
    assert "which wants" not in str(found) and open_experiment("spaces").run().over_time().truth is not None


def test_models_are_loaded_once_and_few_stay(trained: Any, terrarium: Terrarium) -> None:
    moments = Moments(open_folder("spaces"))
    one = moments.at(1, "a: ")
    models = list(moments.models.values())
    assert [model.step for model in models] == [6, 1] and moments.at(1, "a: ") == one
    assert list(moments.models.values()) == models
    moments.at(2, "a: ")
    assert [model.step for model in moments.models.values()] == [1, 2]
    # A run that was trained anew has other weights under the same names.
    assert terrarium("train", "spaces", *KEEP, "--fresh", "-s", "train.runtime.seed=2").exit_code == 0
    assert moments.at(1, "a: ").points != one.points


def test_look_over_time(trained: Any, terrarium: Terrarium) -> None:
    result = terrarium("look", "spaces", "--over-time", "--prompt", "ab: ")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "spaces/default after 'ab: ':" and [line.split()[1] for line in lines[1:]] == ["0", "1", "2", "6"]  # fmt: skip
    values = json.loads(terrarium("look", "spaces", "--over-time", "--json").stdout)
    assert (values["experiment"], values["run"]) == ("spaces", "default") and values["truth"]
    answers = [moment["answer"] for moment in values["moments"]]
    shown = terrarium("look", "spaces", "--over-time").stdout.splitlines()[1:]
    assert [" * " in line for line in shown] == [False, *(one != other for one, other in itertools.pairwise(answers))]  # fmt: skip
    assert not (trained.folder / "look.json").exists()


def test_what_cannot_be_looked_at_over_time(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    result = terrarium("look", "spaces", "--over-time")
    assert result.exit_code == 2 and "default has kept no steps on its way" in result.stderr
    remedy = "python -m core.cli train spaces --run default-kept -s train.runtime.keep_checkpoints=10"
    assert f"Train another run, which keeps some: {remedy}\n" in result.stderr
    assert terrarium(*remedy.split()[3:]).exit_code == 0
    assert terrarium("look", "spaces", "--over-time", "--run", "default-kept").exit_code == 0
    result = terrarium("sample", "spaces", "--checkpoint", "2")
    assert result.exit_code == 2 and "default has not kept step 2" in result.stderr
    assert terrarium("train", "spaces", *KEEP, "--fresh").exit_code == 0
    result = terrarium("look", "spaces", "--over-time", "--prompt", "X")
    assert result.exit_code == 2 and result.stdout == "" and "character 'X'" in result.stderr
    assert "was trained without it" in result.stderr


def test_commands_know_kept_steps(trained: Any, terrarium: Terrarium) -> None:
    evaluated = json.loads(terrarium("evaluate", "spaces", "--checkpoint", "1", "--json").stdout)
    assert evaluated["step"] == 1
    texts = [
        terrarium("sample", "spaces", "--checkpoint", step, "--start", "ab: ", "--temperature", "0").stdout
        for step in ("0", "last")
    ]
    assert texts[0] != texts[1]
    checked = terrarium("check", "spaces", "--no-timing", *KEEP)
    assert "kept steps\n  0, 1, 2, 6; the last one is the run's end\n  4 x 13.1 kB of the disk" in checked.stdout
    assert "kept steps" not in terrarium("check", "spaces", "--no-timing").stdout


def test_a_stage_keeps_its_own_steps(spaces: Path, terrarium: Terrarium) -> None:
    with (spaces / "config.toml").open("a") as file:
        file.write('\n[[stages]]\nname = "one"\n\n[[stages]]\nname = "two"\nfrom = "one"\n')
    result = terrarium("train", "spaces", *KEEP)
    assert result.exit_code == 0, result.output
    folders = [spaces / "out" / "default" / stage / "checkpoints" for stage in ("one", "two")]
    assert [ladder.kept_steps(folder) for folder in folders] == [KEPT, KEPT]
    result = terrarium("look", "spaces", "--over-time", "--stage", "one", "--prompt", "a: ")
    assert result.stdout.startswith("spaces/default/one after 'a: '"), result.output
