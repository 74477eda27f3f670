"""What the live view's page can do: start, stop, go on, note, prune; and models that are opened when they are asked."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import pytest
from click.testing import Result

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from live import READ, LiveServer, showing, until, waiting_commands, write_experiment, write_run

from core import files
from core.errors import UserError
from core.plugins.discovery import Experiment
from core.serve.errors import Refused
from core.serve.live import stopping
from core.serve.live.jobs import Jobs, StartedCommand
from core.serve.live.words import read_recorded, words_again, words_for
from core.tracking.notes import read_notes, write_notes
from core.tracking.run import lock_file

ROOT = Path(__file__).parents[1]
ID = "experiments/spaces"
Terrarium = Callable[..., Result]


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
        assert started["about"] == f"{ID}/mine"
        row = until(lambda: running(server))
        assert row["description"] == "-s x --fresh" and row["length"] == 200_000
        [first, *_] = until(lambda: server.get(f"samples?id={ID}/mine").json["evaluations"])
        assert first["step"] == 3 and first["answers"][0]["truth"].strip()
        assert server.post("go_on", {"id": f"{ID}/mine"}).status == 409
        assert server.post("prune", {"ids": [f"{ID}/mine"]}).json["removed"] == []
        assert server.post("stop", {"id": f"{ID}/mine"}).status == 200
        job = until(lambda: ended(server))
        assert (job["exit"], job["status"]) == (130, "stopped") and "interrupted, and saved" in job["lines"][-1]
        stopped = until(lambda: row_of(server)["status"] == "interrupted" and row_of(server))
        assert server.post("stop", {"id": f"{ID}/mine"}).status == 409
        assert server.post("go_on", {"id": f"{ID}/mine"}).status == 200
        until(lambda: running(server) and row_of(server)["step"] > stopped["step"])
        assert (
            "$ python -m core.cli train spaces '--description=-s x --fresh' --run=mine"
            in server.get(f"log?id={ID}/mine").json["text"]
        )
        server.post("stop", {"id": f"{ID}/mine"})
        until(lambda: ended(server))
        bad = server.post("start", body | {"name": "bad", "settings": ["n_embdd=3"]})
        assert bad.status == 400 and "unknown key 'n_embdd'" in bad.error


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
    return job if job["status"] != "running" else None


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
    options = {"run": "-x", "description": "--json", "resume": True, "fresh": False}
    words, name = words_for(READ, experiment, "train", ["prepare.params.a=--fresh"], options)
    assert words == [
        "train",
        "spaces",
        "--run=-x",
        "--description=--json",
        "--resume",
        "-s",
        "prepare.params.a=--fresh",
    ]
    assert name == "-x"
    odd = Experiment(Path("/lab/-x"), "/lab/-x")
    options = {"name": "n", "seeds": "0..4", "grid": ["n_layer=1,2"], "jobs": 2}
    assert words_for(READ, odd, "sweep", [], options) == (
        ["sweep", "/lab/-x", "--name=n", "--seeds=0..4", "--grid=n_layer=1,2", "--jobs=2"],
        "n",
    )


@pytest.mark.parametrize(
    ("command", "options", "more", "name"),
    [
        ("train", {}, "", "default"),
        ("train", {"variant": "wide"}, "", "wide"),
        ("loop", {"variant": "basic"}, "--run 'a b' max_iters=3", "a b"),
        ("sweep", {"seeds": "0..2"}, "", "seeds"),
        ("sweep", {"variant": "wide"}, "--random 3 --range learning_rate=1e-4..1e-2:log --jobs 2 --halving", "wide-halving-random-lr"),
        ("sweep", {"study": "one"}, "--retry", "one"),
    ],
)  # fmt: skip
def test_what_a_command_makes_is_known(command: str, options: dict[str, Any], more: str, name: str) -> None:
    assert words_for(READ, Experiment(Path("/lab/spaces")), command, [], options, more)[1] == name


@pytest.mark.parametrize(
    ("command", "options", "more", "why"),
    [
        ("train", {}, "--runs x", "--runs"),
        ("train", {}, "--variant a --variant=b", "--variant is given more than once"),
        ("train", {"variant": True}, "", "requires an argument"),
        ("train", {"variant": True, "description": True}, "", "no value of an option"),
        ("train", {"resume": "yes"}, "", "does not take a value"),
        ("train", {}, "learning_rat=1", "unknown key 'learning_rat'. Did you mean 'learning_rate'?"),
        ("train", {}, "other", "other has no meaning here"),
        ("train", {}, "'a", "cannot be read: No closing quotation"),
        ("sweep", {"jobs": "0"}, "", "Invalid value for '--jobs'"),
        ("sweep", {"seeds": "1..0"}, "", "seeds are whole numbers, or ranges of them"),
        ("sweep", {"grid": ["n_layr=1"]}, "", "unknown key 'n_layr'"),
    ],
)  # fmt: skip
def test_what_the_command_line_refuses_is_refused(command: str, options: dict[str, Any], more: str, why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        words_for(READ, Experiment(Path("/lab/spaces")), command, [], options, more)


OF_RUN = [
    ("python -m core.cli train spaces --run x -s max_iters=1 n_layer=2 --fresh -q", ["train", "spaces", "--run=y", "-s", "max_iters=1", "-s", "n_layer=2"]),
    ("terrarium loop spaces --description='it is' --variant wide", ["loop", "spaces", "--description=it is", "--variant=wide", "--run=y"]),
    ("terrarium train . --set=max_iters=1 -qs n_layer=2 -sn_head=3", ["train", "spaces", "--run=y", "-s", "max_iters=1", "-s", "n_layer=2", "-s", "n_head=3"]),
    ("terrarium train ~/lab/spaces/ --learning_rate=0.1", ["train", "spaces", "--run=y", "-s", "learning_rate=0.1"]),
    ("terrarium train spaces --stage a --run=x --exact", ["train", "spaces", "--stage=a", "--run=y", "--exact"]),
]  # fmt: skip
OF_SWEEP = [
    ("terrarium sweep spaces --seeds 0..2 --grid n_layer=1,2 --grid n_head=2 --jobs 2 --retry", ["sweep", "spaces", "--seeds=0..2", "--grid=n_layer=1,2", "--grid=n_head=2", "--jobs=2", "--retry", "--name=y"]),
    ("terrarium sweep spaces --study one --on ray --address auto", ["sweep", "spaces", "--study=one", "--on=ray", "--address=auto"]),
]  # fmt: skip


@pytest.mark.parametrize(("recorded", "words"), [*OF_RUN, *OF_SWEEP])
def test_the_same_command_goes_on(recorded: str, words: list[str]) -> None:
    """Without what would begin anew, with the name that the run has now, and with the experiment that it lies in."""
    kinds = ["sweep"] if "sweep" in recorded else ["train", "loop"]
    assert words_again(READ, recorded, kinds, Experiment(Path("/lab/spaces")), "y") == words


def test_a_run_again_has_all_of_its_settings(lab: Path) -> None:
    experiment = write_experiment(lab / "spaces")
    said = "terrarium train ./experiments/spaces --run w -ss.old=1 max_iters=3 --learning_rate=0.01 --set='a.b=it'\\''s' -q --exact --variant=x"
    write_run(experiment, "w", command=said)
    write_run(experiment, "api", command="open_experiment('spaces').train()")
    with showing() as server:
        assert server.get(f"again?id={ID}/w").json == {
            "command": "train",
            "name": "w-2",
            "options": {"exact": True, "variant": "x"},
            "settings": ["s.old=1", "max_iters=3", "learning_rate=0.01", "a.b=it's"],
        }
        assert "but by: open_experiment" in server.get(f"again?id={ID}/api").json["problem"]
        asked = {
            "lab": "experiments",
            "experiment": "spaces",
            "command": "train",
            "settings": ["max_iters=3"],
            "dry": True,
        }
        told = server.post("start", asked | {"options": {"variant": "a b"}, "more": "--exact"}).json
        assert told == {"command": "python -m core.cli train spaces '--variant=a b' -s max_iters=3 --exact"}
        told = server.post("start", asked | {"more": "max_itrs=3"}).json
        assert told == {
            "problem": "`max_itrs`: unknown key 'max_itrs'. Did you mean 'max_iters'? A parameter of documents() is set as prepare.params.max_itrs."
        }
        assert server.get("jobs").json == {"jobs": []}


TEAMS = [
    "torchrun --standalone --nproc-per-node 2 -m -- core.cli train spaces --run x -s max_iters=3 --fresh",
    "torchrun --rdzv-id terrarium --nproc-per-node=2 --no-python -- /usr/bin/terrarium train spaces --run x -s max_iters=3",
    "python -m torch.distributed.run --nproc-per-node=2 -m -- core.cli train spaces --run x -s max_iters=3",
]


@pytest.mark.parametrize("recorded", TEAMS)
def test_a_run_of_a_team_is_started_again_but_goes_on_in_a_terminal_only(recorded: str) -> None:
    parts = read_recorded(READ, recorded)
    assert (parts.command, list(parts.settings), parts.options["run"]) == ("train", ["max_iters=3"], "x")
    with pytest.raises(Refused, match="It was started by torchrun; give its command in a terminal"):
        words_again(READ, recorded, ["train", "loop"], Experiment(Path("/lab/spaces")), "y")
    with pytest.raises(Refused, match="not started by sweep"):
        read_recorded(READ, recorded, ["sweep"])


def test_that_a_run_of_a_team_has_one_process_here_is_told(lab: Path) -> None:
    write_run(write_experiment(lab / "spaces"), "w", command=TEAMS[0])
    with showing() as server:
        told = server.get(f"again?id={ID}/w").json
        assert (told["command"], told["settings"]) == ("train", ["max_iters=3"]) and "one process" in told["problem"]
        refused = server.post("go_on", {"id": f"{ID}/w"})
        assert refused.status == 409 and refused.error.startswith("It was started by torchrun")


def test_an_experiment_of_a_class_is_called_by_its_path(tmp_path: Path) -> None:
    """The command that is shown is the one that is started, and it can be typed in any folder."""
    experiment = write_experiment(tmp_path / "anna" / "spaces")
    with showing(str(tmp_path / "anna")) as server:
        asked = {"lab": "anna", "experiment": "spaces", "command": "train", "dry": True}
        assert server.post("start", asked).json == {"command": f"python -m core.cli train {experiment}"}


def test_a_variant_is_known_however_it_was_asked_for(lab: Path) -> None:
    """It stands in the run's config, so runs of the page and of Python have it, too."""
    experiment = write_experiment(lab / "spaces")
    (experiment / "config.wide.toml").write_text("[train.model]\nn_layer = 1\n")
    for name, variant in (("none", ""), ("basic", "basic"), ("wide", "wide")):
        write_run(experiment, name, variant=variant, command="open_experiment('spaces').train()")
    (experiment / "config.gone.toml").write_text("")
    write_run(experiment, "gone", variant="gone")
    (experiment / "config.gone.toml").unlink()
    with showing() as server:
        found = {row["run"]: row["variant"] for row in server.get("runs").json["rows"]}
    assert found == {"none": "", "basic": "", "wide": "wide", "gone": ""}


def jobs_of(server: LiveServer) -> dict[str, Any]:
    """The jobs by their ids."""
    return {job["job"]: job for job in server.get("jobs").json["jobs"]}


def test_a_job_without_a_run_is_stopped(lab: Path, tmp_path: Path) -> None:
    """A loop that prepares, evaluates or reports holds no lock of a run."""
    write_run(write_experiment(lab / "spaces"), "seen")
    asked = {"lab": "experiments", "experiment": "spaces", "command": "loop"}
    with showing() as server, waiting_commands(server, tmp_path):
        begun = server.post("start", asked).json
        assert begun["about"] == f"{ID}/default"
        until(lambda: jobs_of(server)[begun["job"]]["lines"][1:])  # it waits
        assert server.post("stop", {"id": begun["job"]}).status == 200
        job = until(lambda: (found := jobs_of(server)[begun["job"]])["status"] != "running" and found)
        assert (job["status"], job["exit"]) == ("stopped", 130)
        assert server.post("stop", {"id": begun["job"]}).status == 404
        again = server.post("start", asked | {"name": "seen"}).json
        until(lambda: jobs_of(server)[again["job"]]["lines"][1:])
        assert server.get(f"run?id={ID}/seen").json["busy"] is True
        assert server.post("go_on", {"id": f"{ID}/seen"}).status == 409
        assert server.post("stop", {"id": f"{ID}/seen"}).status == 200
        until(lambda: jobs_of(server)[again["job"]]["status"] == "stopped")
        assert server.post("stop", {"id": f"{ID}/seen"}).status == 409
        assert server.get(f"run?id={ID}/seen").json["busy"] is False


def test_what_goes_on_without_the_server_is_said(lab: Path) -> None:
    jobs = Jobs()
    assert jobs.going_on() == ""
    for about, experiment in {"spaces/sweeps/rates": "spaces", "spaces/wide": "spaces", "my idea/x": "my idea"}.items():
        command = SimpleNamespace(poll=lambda: None)
        jobs.known.append(StartedCommand("1", (), f"lab/{about}", lab, None, experiment, cast(Any, command)))
        if len(jobs.known) == 1:
            assert jobs.going_on() == "1 job goes on: spaces/sweeps/rates (`python -m core.cli runs spaces --watch`)"
    assert jobs.going_on() == (
        "3 jobs go on: spaces/sweeps/rates, spaces/wide, my idea/x "
        "(`python -m core.cli runs spaces --watch`, `python -m core.cli runs 'my idea' --watch`)"
    )


def test_each_job_has_a_log_of_its_own(lab: Path, tmp_path: Path) -> None:
    experiment = write_experiment(lab / "spaces")
    for name in ("für", "fär"):
        write_run(experiment, name)
    asked = {"lab": "experiments", "experiment": "spaces", "command": "train"}
    wanted = [asked | {"name": "für"}, asked | {"name": "für"}, asked | {"name": "fär"}, asked | {"command": "sweep", "options": {"seeds": "0,1"}}]  # fmt: skip
    with showing() as server, waiting_commands(server, tmp_path):
        begun = [server.post("start", each).json for each in wanted]
        assert [each["about"] for each in begun] == [f"{ID}/für", f"{ID}/für", f"{ID}/fär", f"{ID}/sweeps/seeds"]
        until(lambda: all(len(job["lines"]) > 1 for job in jobs_of(server).values()))
        jobs = jobs_of(server)
        for each, words in zip(begun, ("--run=für", "--run=für", "--run=fär", "--seeds=0,1"), strict=True):
            assert [words in line for line in jobs[each["job"]]["lines"]] == [True, True]
        assert server.get(f"log?id={quote(f'{ID}/fär')}").json["text"].count("--run=fär") == 2
    logs = experiment / "out" / ".live"
    assert sorted(path.parent.name for path in logs.rglob("*.log")) == ["fär", "für", "für", "seeds"]


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
        assert ask("a") == 200 and opened == ["spaces/a"]
        assert ask("b") == 200 and ask("c") == 200 and opened == ["spaces/a", "spaces/b", "spaces/c"]
        assert server.ask("/metrics").body.count(b"requests_waiting{") == 2
        for name in ("a", "b", "c") * 5:  # whoever has an answer does not use its model any longer
            asked = {"model": f"spaces/{name}", "prompt": "ab: ", "max_tokens": 2, "stream": name == "a"}
            assert server.ask("/v1/completions", asked).status == 200, name
        opened.clear()
        os.utime(spaces / "out" / "c" / "checkpoints" / "best" / "state.json")
        assert ask("c") == 200 and opened == ["spaces/c"] and ask("c") == 200 and len(opened) == 1
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
