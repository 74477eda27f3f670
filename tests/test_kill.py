"""Killed anywhere, a run that is trained again ends as an unbroken one does: same metrics, same bits."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest
from copies import Lab, tiny
from cutting import CUT, Forks


def cut_everywhere(lab: Lab, *, only_saves: bool, last_save: int) -> int:
    """End a run at one operation after another, up to those of a save. Returns how many there were."""
    for number in range(10_000):
        folder = lab.copy()
        job = lab.forks.start(folder, "train", "tiny", cut=number, only_saves=only_saves)
        code, printed = job.wait()
        if code == CUT and job.saves <= last_save:
            lab.finish(folder)
            continue
        shutil.rmtree(folder)
        assert code == (CUT if job.saves > last_save else 0), printed
        return number
    raise AssertionError("no end")


@pytest.mark.slow
def test_a_run_that_ends_at_any_operation_of_a_save_goes_on(short: Lab) -> None:
    cuts = cut_everywhere(short, only_saves=True, last_save=3)
    print(f"{cuts} operations of three saves, an end before each, and inside each write")
    assert cuts > 45


@pytest.mark.slow
def test_a_run_that_ends_at_any_operation_at_all_goes_on(short: Lab) -> None:
    cuts = cut_everywhere(short, only_saves=False, last_save=10_000)
    print(f"{cuts} operations of a whole run, an end before each, and inside each write")
    assert cuts == short.operations


def kill_at_random(lab: Lab, kills: int, seed: int) -> None:
    """Kill runs until there were so many kills, each run up to three times; 30 % of them must be inside saves."""
    chance, killed, inside = random.Random(seed), 0, 0
    while killed < kills:
        folder = lab.copy()
        for _ in range(3):
            job = lab.forks.start(folder, "train", "tiny")
            if chance.random() < 0.5:
                time.sleep(chance.uniform(0, lab.seconds))
            else:  # near some save
                save, patience = chance.randint(1, lab.saves), time.monotonic() + lab.seconds
                while job.saves < save and time.monotonic() < patience:
                    time.sleep(0.0005)
                time.sleep(chance.uniform(0, lab.seconds / lab.saves / 2))
            job.kill()
            code, printed = job.wait()
            if code == 0:  # it was faster
                break
            assert code == -9, printed
            killed += 1
            inside += job.saving
        lab.finish(folder)
    print(f"{killed} kills, {inside} of them ({inside / killed:.0%}) inside a save")
    assert inside >= 0.3 * killed


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Lab:
    """Twelve steps, of which a save follows each."""
    return Lab(tiny(tmp_path_factory.mktemp("long"), 12), forks)


@pytest.mark.slow
def test_a_run_killed_at_random_goes_on(long: Lab) -> None:
    kill_at_random(long, 100, seed=1)


@pytest.mark.slow
def test_a_run_killed_at_random_goes_on_3000_times(long: Lab) -> None:
    kill_at_random(long, 3000, seed=2)


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a dataset; its dataset.json holds times of files, too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "dataset.json"}


@pytest.mark.slow
def test_a_prepare_that_ends_at_any_operation_leaves_the_old_dataset_or_the_new(short: Lab) -> None:
    other = ("prepare", "tiny", "-s", "prepare.seed=2")
    folder, again = short.copy(), short.copy()
    made = folder / "experiments" / "tiny" / "datasets" / "basic"
    old = contents(made)
    assert short.forks.run(again, *other)[0] == 0
    new = contents(again / "experiments" / "tiny" / "datasets" / "basic")
    assert old != new
    for number in range(10_000):
        code, printed = short.forks.run(folder, *other, cut=number)
        # Between two renames the old one has another name; whoever comes next, under the lock, gives it back.
        found = made if made.exists() else made.with_name(".old-basic")
        assert contents(found) in (old, new)
        done, printed_then = short.forks.run(folder, "prepare", "tiny")
        assert (done, contents(made)) == (0, old), printed_then
        if code == 0:
            break
        assert code == CUT, printed
    print(f"{number} operations of prepare, an end before each, and inside each write")
    assert sorted(path.name for path in made.parent.iterdir()) == [".lock-basic", "basic"]
    assert number > 30


def test_everything_that_is_saved_goes_through_the_module(short: Lab) -> None:
    folder = short.copy()
    code, printed = short.forks.run(folder, "train", "tiny", "-s", "prepare.seed=2", audit=True)
    assert code == 0, printed
    changed = [line.split()[1:] for line in printed.splitlines() if line.startswith("AUDIT ")]
    assert {(event, Path(path).name) for event, path in changed} == {("open", ".lock-basic"), ("open", ".default.lock")}
