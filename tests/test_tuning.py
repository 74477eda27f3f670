"""The choice of precision, attention and threads by timing: the fastest wins, once per machine and shape, and a run keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch

from core.config import Train, replaced
from core.lab import settle
from core.lab.opened import open_folder, prepared
from core.lab.rehearsal import Rehearsal
from core.training import measured, tuning
from core.training.machine import choose_machine
from core.training.tuning import SECONDS, Way, fastest_way, thread_counts

FIRST = Way("bfloat16", "explicit", 2)
CHOICES: dict[str, list[Any]] = {
    "dtype": ["bfloat16", "float32"],
    "attention": ["explicit", "sdpa", "sdpa32"],
    "threads": [2, 1],
}


class Clock:
    """Seconds that pass only where a step says so."""

    def __init__(self) -> None:
        self.now, self.steps = 100.0, 0

    def perf_counter(self) -> float:
        return self.now

    def steps_of(self, seconds: Callable[[Way], float], making: float = 0.0) -> Callable[[Way], Callable[[], None]]:
        def step(way: Way) -> Callable[[], None]:
            self.now += making

            def take() -> None:
                assert torch.get_num_threads() == way.threads
                self.now += seconds(way)
                self.steps += 1

            return take

        return step


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock, threads = Clock(), torch.get_num_threads()
    monkeypatch.setattr(tuning, "time", clock)
    yield clock
    torch.set_num_threads(threads)


def cost(way: Way) -> float:
    """float32, sdpa and one thread are best, each by itself."""
    return 0.010 * (2 if way.dtype == "bfloat16" else 1) * (1 if way.attention == "sdpa" else 1.5) * way.threads


def test_the_fastest_of_each_choice_is_taken_and_remembered(clock: Clock) -> None:
    way, timings = fastest_way("a", FIRST, CHOICES, clock.steps_of(cost))
    assert way == Way("float32", "sdpa", 1) and torch.get_num_threads() == 1
    assert timings == {
        "bfloat16, explicit attention, 2 threads": 60.0,
        "float32, explicit attention, 2 threads": 30.0,
        "float32, sdpa attention, 2 threads": 20.0,
        "float32, sdpa32 attention, 2 threads": 30.0,
        "float32, sdpa attention, 1 thread": 10.0,
    }
    steps = clock.steps
    assert fastest_way("a", FIRST, CHOICES, clock.steps_of(lambda way: 1.0)) == (way, timings)
    assert clock.steps == steps
    assert fastest_way("another shape", FIRST, CHOICES, clock.steps_of(lambda way: 0.001))[0] == FIRST


def test_a_gain_within_the_noise_changes_nothing(clock: Clock) -> None:
    assert fastest_way("a", FIRST, CHOICES, clock.steps_of(lambda way: 0.0100 if way == FIRST else 0.0098))[0] == FIRST


def test_a_neighbour_that_wakes_up_does_not_decide(clock: Clock) -> None:
    """The machine is ten times slower from the fourth step on: both ways are timed in turn, so both suffer."""

    def seconds(way: Way) -> float:
        return (0.010 if way.dtype == "bfloat16" else 0.012) * (10 if clock.steps > 3 else 1)

    assert fastest_way("a", FIRST, {"dtype": CHOICES["dtype"]}, clock.steps_of(seconds))[0] == FIRST


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.7, 5.0])
def test_it_takes_two_seconds_at_most_and_one_step_more(clock: Clock, seconds: float) -> None:
    way, _ = fastest_way("a", FIRST, CHOICES, clock.steps_of(lambda way: seconds, making=seconds))
    assert way == FIRST
    assert clock.now - 100 <= SECONDS + 3 * seconds
    assert torch.get_num_threads() == 2
    if seconds > 0.05:
        assert measured.recall("a") is None  # not all was compared: the next run may find the time


@pytest.mark.parametrize(
    "stored",
    [
        3,
        {"way": {"dtype": "bfloat16"}, "milliseconds": {}},
        {"way": {"dtype": "bfloat16", "attention": "auto", "threads": 16}, "milliseconds": {}},
        {"way": {"dtype": "bfloat16", "attention": "sdpa", "threads": 2}, "milliseconds": {"a": "b"}},
        {"way": {"dtype": "bfloat16", "attention": "sdpa", "threads": 2}},
    ],
)
def test_what_was_remembered_wrongly_is_timed_again(clock: Clock, stored: Any) -> None:
    measured.remember("a", stored)
    assert fastest_way("a", FIRST, CHOICES, clock.steps_of(cost))[0] == Way("float32", "sdpa", 1)
    assert measured.recall("a")["way"] == {"dtype": "float32", "attention": "sdpa", "threads": 1}


@pytest.mark.parametrize(("most", "counts"), [(1, [1]), (2, [2, 1]), (6, [6, 3, 1]), (16, [16, 8, 4, 2, 1])])
def test_thread_counts(most: int, counts: list[int]) -> None:
    assert list(thread_counts(most)) == counts


def choices_of(folder: Path) -> dict[str, Any]:
    choices: dict[str, Any] = json.loads((folder / "summary.json").read_text())["choices"]
    return choices


def test_a_run_says_what_was_chosen_and_a_resume_uses_it_again(
    spaces: Path, terrarium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert terrarium("train", "spaces", "-s", "train.schedule.max_iters=2").exit_code == 0
    folder = spaces / "out" / "default"
    choices, runtime = choices_of(folder), tomli.loads((folder / "config.toml").read_text())["train"]["runtime"]
    keys = ("dtype", "attention", "compile", "cuda_graphs", "threads")
    assert {key: runtime[key] for key in keys} == {key: choices[key] for key in keys}
    assert runtime["dtype"] in ("bfloat16", "float32") and runtime["compile"] is False

    def other(*_: Any) -> tuple[Way, dict[str, float]]:
        return Way("float32" if runtime["dtype"] == "bfloat16" else "bfloat16", "sdpa32", 1), {"timed": 1.0}

    monkeypatch.setattr(settle, "fastest_way", other)  # another day, another answer
    result = terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=4")
    assert result.exit_code == 0, result.output
    after = choices_of(folder)
    assert {**after, "milliseconds": 0} == {**choices, "milliseconds": 0}
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4


def test_nothing_is_timed_where_everything_is_given(
    spaces: Path, terrarium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "fastest_way", lambda *_: pytest.fail("timed"))
    settings = ("dtype='float32'", "attention='sdpa'", "threads=1")
    result = terrarium(
        "train", "spaces", "-s", "train.schedule.max_iters=2", *(
            part for setting in settings for part in ("-s", f"train.runtime.{setting}")
        ),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert choices_of(spaces / "out" / "default") == {
        "backend": "torch", "dtype": "float32", "attention": "sdpa", "compile": False, "cuda_graphs": False, "threads": 1, "processes": 1, "parallel": "ddp", "restarts": 0, "milliseconds": {},
    }  # fmt: skip


def test_being_timed_changes_no_draw_of_the_run(spaces: Path, terrarium: Any) -> None:
    """The first run is timed, the second finds the choice: both end with the same weights, dropout's draws included."""
    settings = ("-s", "train.schedule.max_iters=3", "-s", "train.model.dropout=0.2", "-s", "train.runtime.dtype='auto'")
    for name in ("first", "second"):
        assert terrarium("train", "spaces", "--run", name, *settings).exit_code == 0
    first, second = (spaces / "out" / name / "checkpoints" / "last" for name in ("first", "second"))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


class Rows:
    """Stands in for the step of a run: 10 ms and 20 ms for each row. `taken`: the rows of each one."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.taken, self.clips = clock, list[int](), set[Any]()

    def __call__(
        self, model: Any, optimizer: Any, machine: Any, grad_clip: float | None, objective: Any
    ) -> Callable[[Any, Any], None]:
        def take(inputs: Any, targets: Any) -> None:
            self.taken.append(inputs.shape[1])
            self.clock.now += 0.010 + 0.020 * inputs.shape[1]

        self.clips.add(grad_clip)
        return take


@pytest.fixture
def rehearsing(spaces: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable[..., Rehearsal], Rows]]:
    """Makes the rehearsal of a run of 32 rows, with more keys of its config, and what its steps are timed by."""
    opened, dataset = prepared(open_folder("spaces", overrides=["train.data.batch_size=32"]))
    threads, clock = torch.get_num_threads(), Clock()
    rows = Rows(clock)
    monkeypatch.setattr("core.lab.rehearsal.Step", rows)
    monkeypatch.setattr(tuning, "time", clock)
    machine = choose_machine("cpu", "float32", False, 1)

    def rehearsal(**changes: Any) -> Rehearsal:
        config: Train = replaced(opened.config.train, {key.replace("__", "."): value for key, value in changes.items()})
        return Rehearsal(config, dataset, opened.plugins, machine)

    yield rehearsal, rows
    torch.set_num_threads(threads)


Rehearsing = tuple[Callable[..., Rehearsal], Rows]


def test_all_ways_are_timed_with_the_same_rows(rehearsing: Rehearsing) -> None:
    """One row takes 30 ms, so six are tried, which take 130 ms, so nine are taken: 190 of the 200 ms allowed."""
    rehearsal, rows = rehearsing
    one = rehearsal(optim__grad_clip=0.5)
    for way in (FIRST, Way("float32", "sdpa", 1)):
        one.step(way)()
    assert rows.taken == [1, 1, 6, 6, 9, 9] and rows.clips == {0.5}


def test_the_key_tells_shapes_and_open_choices_apart(rehearsing: Rehearsing) -> None:
    rehearsal, _ = rehearsing
    one = rehearsal()
    keys = {one.key(FIRST, {}), one.key(FIRST, {"threads": [2, 1]}), one.key(Way("float32", "sdpa", 1), {})}
    keys |= {
        rehearsal(**{key: value}).key(FIRST, {})
        for key, value in (("data__batch_size", 31), ("model__n_layer", 7), ("optim__name", "adamw"))
    }
    assert len(keys) == 6
    same = {"schedule__max_iters": 5000, "runtime__seed": 3, "runtime__out_dir": "elsewhere", "model__init_from": "a"}
    assert rehearsal(**same).key(FIRST, {}) == one.key(FIRST, {})


def test_what_is_given_is_not_open(rehearsing: Rehearsing) -> None:
    rehearsal, _ = rehearsing
    given = {"runtime__dtype": "float32", "runtime__threads": 1}
    assert rehearsal(**given).choices() == {"attention": ["explicit", "sdpa", "sdpa32"]}
    assert rehearsal(**given, runtime__attention="sdpa").choices() == {}
    assert rehearsal(**given, model__dropout=0.2).choices() == {}


def test_evaluation_uses_what_the_run_chose(spaces: Path, terrarium: Any) -> None:
    assert terrarium("train", "spaces", "-s", "train.runtime.dtype='auto'").exit_code == 0
    runtime = tomli.loads((spaces / "out" / "default" / "config.toml").read_text())
    for key in ("dtype", "attention", "threads", "compile", "device"):
        assert runtime["sample"]["runtime"][key] == runtime["train"]["runtime"][key]
