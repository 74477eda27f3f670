"""The choice of precision, attention and threads by timing: the fastest wins, once per machine and shape, and a run keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch
from core.cli.lab import Lab
from core.cli.settle import Rehearsal, is_long

from core.cli.console import Console
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
    assert measured.recall("a")["way"] == {
        "dtype": "float32", "attention": "sdpa", "threads": 1, "compile": False,
    }  # fmt: skip


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
    assert {key: runtime[key] for key in ("dtype", "attention", "compile", "threads")} == {
        key: value for key, value in choices.items() if key != "milliseconds"
    }
    assert runtime["dtype"] in ("bfloat16", "float32") and runtime["compile"] is False

    def other(*_: Any) -> tuple[Way, dict[str, float]]:
        return Way("float32" if runtime["dtype"] == "bfloat16" else "bfloat16", "sdpa32", 1), {"timed": 1.0}

    monkeypatch.setattr("core.cli.settle.fastest_way", other)  # another day, another answer
    result = terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=4")
    assert result.exit_code == 0, result.output
    after = choices_of(folder)
    assert {**after, "milliseconds": 0} == {**choices, "milliseconds": 0}
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4


def test_nothing_is_timed_where_everything_is_given(
    spaces: Path, terrarium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.cli.settle.fastest_way", lambda *_: pytest.fail("timed"))
    settings = ("dtype='float32'", "attention='sdpa'", "threads=1")
    result = terrarium(
        "train", "spaces", "-s", "train.schedule.max_iters=2", *(
            part for setting in settings for part in ("-s", f"train.runtime.{setting}")
        ),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert choices_of(spaces / "out" / "default") == {
        "dtype": "float32", "attention": "sdpa", "compile": False, "threads": 1, "milliseconds": {},
    }  # fmt: skip


def test_being_timed_changes_no_draw_of_the_run(spaces: Path, terrarium: Any) -> None:
    """The first run is timed, the second finds the choice: both end with the same weights, dropout's draws included."""
    settings = ("-s", "train.schedule.max_iters=3", "-s", "train.model.dropout=0.2", "-s", "train.runtime.dtype='auto'")
    for name in ("first", "second"):
        assert terrarium("train", "spaces", "--run", name, *settings).exit_code == 0
    first, second = (spaces / "out" / name / "checkpoints" / "last" for name in ("first", "second"))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.fixture
def rehearsal(spaces: Path, terrarium: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Rehearsal, list[int]]]:
    """A rehearsal of 32 rows, and the rows of each step that it takes; a step takes 10 ms and 20 ms for each row."""
    assert terrarium("prepare", "spaces").exit_code == 0
    lab = Lab.open("spaces", "", ["train.data.batch_size=32"], Console(quiet=True))
    threads, taken, clock = torch.get_num_threads(), list[int](), Clock()

    def step(model: Any, optimizer: Any, optim: Any, machine: Any, inputs: Any, targets: Any, forward: Any) -> None:
        taken.append(inputs.shape[1])
        clock.now += 0.010 + 0.020 * inputs.shape[1]

    monkeypatch.setattr("core.cli.settle.step_of", step)
    monkeypatch.setattr(tuning, "time", clock)
    machine = choose_machine("cpu", "float32", False, 1)
    yield Rehearsal(lab.config.train, lab.prepare(), lab.code, machine), taken
    torch.set_num_threads(threads)


def test_all_ways_are_timed_with_the_same_rows(rehearsal: tuple[Rehearsal, list[int]]) -> None:
    """One row takes 30 ms, so six are tried, which take 130 ms, so nine are taken: 190 of the 200 ms allowed."""
    one, taken = rehearsal
    for way in (FIRST, Way("float32", "sdpa", 1)):
        one.step(way)()
    assert taken == [1, 1, 6, 6, 9, 9]


def test_what_a_run_takes(rehearsal: tuple[Rehearsal, list[int]]) -> None:
    one, taken = rehearsal
    one.config.schedule.max_iters, one.config.data.grad_accum_steps = 100, 3
    assert one.run_seconds(0.050) == pytest.approx(100 * 3 * 0.050)
    one.config.runtime.max_minutes = 2.5
    assert one.run_seconds(0.050) == 150 and not taken


def test_what_is_compiled_is_compiled_for_all_rows(rehearsal: tuple[Rehearsal, list[int]]) -> None:
    one, taken = rehearsal
    one.whole_step(FIRST)()
    assert taken == [32]


def test_few_steps_and_short_budgets_are_never_compiled(rehearsal: tuple[Rehearsal, list[int]]) -> None:
    config = rehearsal[0].config
    for steps, minutes, cpu, gpu in (
        (999, None, False, True), (1000, None, True, True), (1, 1.0, True, True), (5000, 0.9, False, False),
    ):  # fmt: skip
        config.schedule.max_iters, config.runtime.max_minutes = steps, minutes
        assert is_long(config, torch.device("cpu")) is cpu and is_long(config, torch.device("cuda")) is gpu
        assert not is_long(config, torch.device("mps"))


def test_the_key_tells_shapes_and_open_choices_apart(rehearsal: tuple[Rehearsal, list[int]]) -> None:
    one, _ = rehearsal
    keys = {
        one.key("step", FIRST, {}), one.key("step", FIRST, {"threads": [2, 1]}), one.key("compile", FIRST, {}),
        one.key("step", Way("float32", "sdpa", 1), {}),
    }  # fmt: skip
    one.config.data.batch_size = 31
    keys.add(one.key("step", FIRST, {}))
    one.config.model.n_layer = 7
    keys.add(one.key("step", FIRST, {}))
    one.config.optim.name = "adamw"
    keys.add(one.key("step", FIRST, {}))
    assert len(keys) == 7


def test_evaluation_uses_what_the_run_chose(spaces: Path, terrarium: Any) -> None:
    assert terrarium("train", "spaces", "-s", "train.runtime.dtype='auto'").exit_code == 0
    runtime = tomli.loads((spaces / "out" / "default" / "config.toml").read_text())
    for key in ("dtype", "attention", "threads", "compile", "device"):
        assert runtime["sample"]["runtime"][key] == runtime["train"]["runtime"][key]
