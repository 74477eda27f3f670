"""What the live view's page can do: start, stop, go on, note, prune; and models that are opened when they are asked."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from live import LiveServer, showing, write_experiment, write_run

from core import files
from core.errors import UserError
from core.plugins.discovery import Experiment
from core.serve.errors import Refused
from core.serve.live import stopping
from core.serve.live.words import words_again, words_for
from core.tracking.notes import read_notes, write_notes
from core.tracking.run import lock_file

ROOT = Path(__file__).parents[1]
ID = "experiments/spaces"
Terrarium = Callable[..., Result]


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What a condition gives when it holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_a_run_is_started_watched_stopped_and_taken_up_again(
    lab: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment(lab / "spaces")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with showing() as server:
        body = {
            "lab": "experiments",
            "experiment": "spaces",
            "command": "train",
            "name": "mine",
            "settings": ["max_iters=200000"],
        }
        started = server.post("start", body | {"options": {"description": "-s x --fresh"}}).json
        assert started["run"] == f"{ID}/mine"
        row = until(lambda: running(server))
        assert row["description"] == "-s x --fresh" and row["length"] == 200_000
        [first, *_] = until(lambda: server.get(f"samples?id={ID}/mine").json["evaluations"])
        assert first["step"] == 3 and first["answers"][0]["truth"].strip()
        assert server.post("go_on", {"id": f"{ID}/mine"}).status == 409
        assert server.post("prune", {"ids": [f"{ID}/mine"]}).json["removed"] == []
        assert server.post("stop", {"id": f"{ID}/mine"}).status == 200
        job = until(lambda: ended(server))
        assert job["exit"] == 130 and "interrupted, and saved" in job["lines"][-1]
        stopped = until(lambda: row_of(server)["status"] == "interrupted" and row_of(server))
        assert server.post("stop", {"id": f"{ID}/mine"}).status == 409
        assert server.post("go_on", {"id": f"{ID}/mine"}).status == 200
        until(lambda: running(server) and row_of(server)["step"] > stopped["step"])
        assert "$ python -m core.cli train spaces --run=mine" in server.get(f"log?id={ID}/mine").json["text"]
        server.post("stop", {"id": f"{ID}/mine"})
        until(lambda: ended(server))
        bad = server.post("start", body | {"name": "bad", "settings": ["n_embdd=3"]})
        assert bad.status == 200
        job = until(lambda: ended(server))
        assert job["exit"] == 2 and "unknown key 'n_embdd'" in "".join(job["lines"])


def row_of(server: LiveServer) -> Any:
    """The row of the run that was started."""
    rows = server.get("runs?text=mine").json["rows"]
    return rows[0] if rows else None


def running(server: LiveServer) -> Any:
    """The same, if it is being trained and has written metrics."""
    row = row_of(server)
    return row if row and row["status"] == "running" and row["train_loss"] else None


def ended(server: LiveServer) -> Any:
    """The newest job, if it has ended."""
    job = server.get("jobs").json["jobs"][0]
    return job if job["status"] == "ended" else None


def test_notes_are_kept_shown_and_checked(lab: Path, terrarium: Terrarium) -> None:
    folder = write_run(write_experiment(lab / "spaces"), "a", description="from the start")
    with showing() as server:
        for action, note in (
            ("describe", {"description": "Does <b>width</b> help?"}),
            ("star", {"starred": True}),
            ("tag", {"tags": ["wide", "für später"]}),
            ("hide", {"hidden": True}),
        ):
            row = server.post(action, {"id": f"{ID}/a", **note}).json["row"]
            assert {name: row[name] for name in note} == note
        assert (
            server.get("runs").json["total"] == 0 and server.get("runs?hidden=1&tag=wide&starred=1").json["total"] == 1
        )
        for action, wrong in (("tag", {"tags": ["a\nb"]}), ("tag", {"tags": ["x"] * 30}), ("star", {"starred": 1}),
                              ("describe", {"description": "x" * 3000})):  # fmt: skip
            assert server.post(action, {"id": f"{ID}/a", **wrong}).status == 400
    assert read_notes(folder)["tags"] == ["wide", "für später"]
    assert "Does <b>width</b> help?" in terrarium("runs", "spaces").stdout  # the command line shows it, too
    with pytest.raises(UserError, match="is not a note of a run"):
        write_notes(folder, {"colour": "red"})


def test_runs_are_pruned_by_the_rules_of_runs(lab: Path) -> None:
    experiment = write_experiment(lab / "spaces")
    for name in ("default", "old", "busy"):
        write_run(experiment, name)
    with showing() as server:
        assert server.post("prune", {"ids": [f"{ID}/default"]}).status == 409
        with lock_file(experiment / "out" / "busy").open("a+") as held:
            assert files.take(held) is None
            asked = {"ids": [f"{ID}/old", f"{ID}/busy"]}
            would = server.post("prune", asked | {"dry": True}).json
            assert would["would"] == [f"{ID}/old"] and would["bytes"] > 1000 and "in use" in would["kept"][0]
            assert server.post("prune", asked).json["removed"] == [f"{ID}/old"]
    assert sorted(path.name for path in (experiment / "out").glob("[!.]*")) == ["busy", "default"]


def test_only_the_process_that_trains_a_run_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that names another process stops nobody: not one that reuses the number, and not this server."""
    sent: list[tuple[int, int]] = []
    folder = tmp_path / "run"
    lock = lock_file(folder)
    monkeypatch.setattr(os, "kill", lambda number, what: sent.append((number, what)) if what else None)
    with pytest.raises(Refused, match="nothing works on"):
        stopping.stop(folder, "run")
    holder = os.fork()
    if not holder:  # holds the lock, but the name of another process comes into it
        with files.lock(lock, "run"):
            lock.write_text("process 1 since 2026-01-01 00:00:00")
            signal.pause()
    try:
        until(lambda: lock.exists() and "process 1 " in lock.read_text())
        with pytest.raises(Refused, match="may not be the one that trains it"):
            stopping.stop(folder, "run")
        lock.write_text(f"process {holder} since 2026-01-01 00:00:00")
        assert stopping.stop(folder, "run") == holder and [number for number, what in sent if what] == [holder]
    finally:
        monkeypatch.undo()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


def test_a_value_cannot_become_an_option() -> None:
    experiment = Experiment(Path("/lab/spaces"))
    words = words_for(
        "train", experiment, "-x", ["a=--fresh"], {"description": "--json", "resume": True, "fresh": False}
    )
    assert words == ["train", "spaces", "--run=-x", "--description=--json", "--resume", "-s", "a=--fresh"]
    odd = Experiment(Path("/lab/-x"), "/lab/-x")
    assert words_for("sweep", odd, "n", [], {"seeds": "0..4", "grid": ["a=1,2"], "jobs": 2}) == [
        "sweep", "/lab/-x", "--name=n", "--seeds=0..4", "--grid=a=1,2", "--jobs=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ("python -m core.cli train spaces --run x -s a=1 b=2 --fresh -q", ["train", "spaces", "--run=y", "-s", "a=1", "-s", "b=2"]),
        ("terrarium loop spaces --description='it is' --variant wide", ["loop", "spaces", "--run=y", "--description=it is", "--variant=wide"]),
        ("terrarium sweep spaces --seeds 0..2 --grid a=1,2 --grid b=3 --jobs 2 --retry", ["sweep", "spaces", "--name=y", "--seeds=0..2", "--grid=a=1,2", "--grid=b=3", "--jobs=2", "--retry"]),
    ],
)  # fmt: skip
def test_the_same_command_goes_on(recorded: str, words: list[str]) -> None:
    """Without what would begin anew, and with the name that the run has now."""
    assert words_again(recorded, Experiment(Path("/lab/spaces")), "y") == words


def test_a_model_is_opened_when_it_is_asked(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few are open at once; one whose run has newer weights is opened again, and one whose run is gone is closed."""
    assert terrarium("train", "spaces").exit_code == 0
    for name in "abc":
        shutil.copytree(spaces / "out" / "default", spaces / "out" / name)
    with showing() as server:
        listed = server.ask("/v1/models").json["data"][-1]
        assert listed["id"] == "spaces/default" and listed["meta"]["opened"] is False
        opened = server.ask("/v1/models/spaces/default").json
        assert opened["meta"]["n_vocab"] and "opened" not in opened["meta"]
        said = server.ask("/v1/completions", {"model": "spaces/default", "prompt": "ab: ", "max_tokens": 3})
        assert said.status == 200 and server.ask("/v1/models/spaces/none").status == 404
        assert server.ask("/v1/completions", {"prompt": "ab: "}).status == 400

        opened = []
        monkeypatch.setattr("core.serve.models.open_model", counting(opened))

        def ask(name: str) -> int:
            return server.ask(f"/v1/models/spaces/{name}").status

        assert ask("default") == 200 and opened == []
        assert ask("a") == 200 and ask("b") == 429 and opened == ["spaces/a"]
        monkeypatch.setattr("core.serve.live.shelf.JUST_FOUND", 0.0)
        assert ask("b") == 200 and ask("c") == 200 and opened == ["spaces/a", "spaces/b", "spaces/c"]
        assert server.ask("/metrics").body.count(b"requests_waiting{") == 2
        os.utime(spaces / "out" / "c" / "checkpoints" / "best" / "state.json")
        assert ask("c") == 200 and opened[3:] == ["spaces/c"] and ask("c") == 200 and len(opened) == 4
        shutil.rmtree(spaces / "out" / "c")
        monkeypatch.setattr("core.serve.live.catalog.YOUNG", 0)
        until(lambda: ask("c") == 404)


def counting(opened: list[str]) -> Callable[..., Any]:
    """open_model, which notes the names."""
    from core.serve.models import open_model

    def noting(known: str, *arguments: Any) -> Any:
        opened.append(known)
        return open_model(known, *arguments)

    return noting
