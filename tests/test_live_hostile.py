"""The live view against hostile files and requests: refused, or shown as text; nothing is executed, and nothing fails."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from live import TOKEN, LiveServer, showing, write_experiment, write_run

ID = "experiments/spaces/bad"  # a run that is not there
NUMBER = itertools.count()
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
EVERY = ("run?id={}", "samples?id={}", "log?id={}", "curves?id={}", "runs?hidden=1", "lab", "board", "jobs",
         *(f"{name}?id={{}}&id=experiments/spaces/good" for name in ("settings", "bands", "compare", "curves")))  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    experiment = write_experiment(folder / "experiments" / "spaces")
    write_run(experiment, "good", seed=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
        yield experiment


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[LiveServer]:
    with showing() as running:
        yield running


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def replaced(name: str, data: bytes) -> Callable[[Path], object]:
    """Writes a file of a run."""
    return lambda run: (run / name).write_bytes(data)


def changed(**values: object) -> Callable[[Path], object]:
    """Changes fields of summary.json."""
    return lambda run: (run / "summary.json").write_text(
        json.dumps(json.loads((run / "summary.json").read_text()) | values)
    )


def linked(name: str) -> Callable[[Path], object]:
    """Makes a file of a run a link to one that is nobody's business."""

    def link(run: Path) -> None:
        secret = run.parents[3] / "secret"
        secret.write_text("step,val_loss\nTOPSECRET,1\n")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret)

    return link


def pipe(name: str) -> Callable[[Path], object]:
    """Makes a file of a run a pipe, from which reading would never end."""

    def make(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return make


FILES = {
    "scripts in the description": changed(description=SCRIPT, command=SCRIPT, warnings=[SCRIPT, 3, {}]),
    "numbers that are not finite": lambda run: (run / "summary.json").write_text(
        '{"experiment": "spaces", "run": "bad", "status": "completed", "best_val_loss": NaN, "steps": Infinity, "accuracy": 1e999}'
    ),
    "numbers without end": changed(steps=10**400, seed=10**30, best_val_loss=-1e308),
    "a summary that is half written": replaced("summary.json", b'{"experiment": "spaces", "status": "comp'),
    "a summary that is a list": replaced("summary.json", b"[1, 2]"),
    "a summary that is deep": replaced("summary.json", b'{"experiment": "spaces", "x":' + b"[" * 100_000),
    "a summary that is huge": replaced("summary.json", b'{"experiment": "spaces"}' + b" " * (5 << 20)),
    "fields of other types": changed(environment=[1], accuracy_by_group={"a": "b"}, held_out={"accuracy": "x"}, tags=3),
    "no config": lambda run: (run / "config.toml").unlink(),
    "a config that is no TOML": replaced("config.toml", b"[[[ \xff\xfe"),
    "a config with other types": replaced("config.toml", b'train = 3\n[prepare]\nsize = "x"\n'),
    "a config that is huge": replaced("config.toml", b"# " + b"x" * (5 << 20)),
    "metrics that are no numbers": replaced("metrics.csv", b"step,val_loss\n1,<script>\nx,y\n,,,,\n2,nan\n3,inf\n"),
    "metrics that are binary": replaced("metrics.csv", bytes(range(256)) * 500),
    "metrics with one long line": replaced("metrics.csv", b"step," * 100_000 + b"\n" + b"1," * 200_000 + b"\n"),
    "metrics with a quote that never ends": replaced("metrics.csv", b'step,val_loss\n1,"2\n' + b"3,4\n" * 50_000),
    "notes that are broken": replaced("notes.json", b'{"tags": [1, {}], "description": 3, "starred": "yes"'),
    "notes of other types": replaced("notes.json", b'{"tags": [1, {}], "description": 3, "starred": "yes"}'),
    "samples that are broken": replaced("samples.json", b'{"samples": [{"start": 3}]}'),
    "answers that are broken": replaced(
        "answers.jsonl", b'{"step": "x"}\n[]\nnull\n{"step": 1, "answers": [[1,2]]}\n{"st'
    ),
    "metrics that are a link": linked("metrics.csv"),
    "a report that is a link": linked("report.html"),
    "answers that are a link": linked("answers.jsonl"),
    "a summary that is a pipe": pipe("summary.json"),
    "metrics that are a pipe": pipe("metrics.csv"),
    "notes that are a pipe": pipe("notes.json"),
    "a config that is a pipe": pipe("config.toml"),
}


@pytest.mark.parametrize("damage", FILES.values(), ids=FILES)
def test_whatever_a_run_folder_holds_is_text_or_a_note(
    server: LiveServer, place: Path, damage: Callable[[Path], object]
) -> None:
    run = write_run(place, f"bad{next(NUMBER)}")
    id = f"experiments/spaces/{run.name}"
    try:
        damage(run)
        is_run = (run / "summary.json").is_file()
        for path in (each.format(id) for each in EVERY):
            found = server.get(path)
            assert found.status in ((200, 409) if is_run else (404, 200)), (path, found.body[:500])
            assert found.headers["content-type"].startswith("application/json"), path
            assert b"TOPSECRET" not in found.body
            json.loads(found.body, parse_constant=refuse_constant)
        assert not is_run or server.get(f"run?id={id}").status == 200
        assert server.ask(f"/live/report/{id}").status == 404
        assert server.get("curves?id=experiments/spaces/good").json["curves"][0]["y"]
    finally:
        shutil.rmtree(run)


PATHS = ["..", "../..", "experiments/../../etc/passwd", "/etc/passwd", "experiments/spaces/../spaces/good", "experiments\\x",
         "experiments/spaces/good/..", "experiments/spaces/good\0", "%2e%2e", "experiments/spaces/.live", "experiments//spaces/good"]  # fmt: skip


@pytest.mark.parametrize("id", PATHS)
def test_an_id_is_never_a_path(server: LiveServer, id: str) -> None:
    from urllib.parse import quote

    for name in ("run", "log", "pipeline", "sweep"):
        assert server.get(f"{name}?id={quote(id, safe='')}").status == 404, name
    for name, nothing in (("curves", {"curves": [], "metrics": []}), ("bands", {"groups": []})):
        assert server.get(f"{name}?id={quote(id, safe='')}").json == {"metric": "val_loss", "x": "step", "gone": [id], **nothing}  # fmt: skip
    assert server.get(f"settings?id={quote(id, safe='')}").json == {"keys": [], "gone": [id]}
    assert server.get(f"compare?id={quote(id, safe='')}").json["gone"] == [id]
    for path in (f"/live/report/{quote(id, safe='')}", f"/live/page/{quote(id, safe='')}", f"/live/report/{quote(id)}"):
        assert server.ask(path).status in (404, 405), path
    for action, more in (("star", {"starred": True}), ("stop", {}), ("go_on", {}), ("describe", {"description": "x"})):
        assert server.post(action, {"id": id, **more}).status == 404, action
    assert server.post("prune", {"ids": [id]}).status == 404


START = {"lab": "experiments", "experiment": "spaces", "command": "train"}
BODIES = [
    START | {"command": "serve"}, START | {"command": "runs"}, START | {"command": "--help"}, START | {"command": ""},
    START | {"name": "../up"}, START | {"name": "a/b/c"}, START | {"name": ".hidden"}, START | {"name": "a\nb"}, START | {"name": "a\0b"},
    START | {"settings": ["--fresh"]}, START | {"settings": ["-s"]}, START | {"settings": ["; rm -rf ~"]}, START | {"settings": "a=1"},
    START | {"settings": ["=3"]}, START | {"settings": ["a=1\0"]}, START | {"settings": [3]},
    START | {"options": {"run": "../x"}}, START | {"options": {"description": 3.5}}, START | {"options": {"fresh": "yes"}},
    START | {"more": "--run=../x"}, START | {"more": "--name x"}, START | {"more": "a=1 '"}, START | {"more": "other"}, START | {"more": "--help"},
    START | {"options": {"-s": "x"}}, START | {"options": {"help": True}}, START | {"more": 1}, START | {"experiment": "../spaces"},
    START | {"experiment": "/etc"}, START | {"lab": ""}, START | {"command": "sweep", "options": {"jobs": True}},
    START | {"command": "sweep", "options": {"on": ["slurm"]}}, START | {"command": "sweep", "options": {"grid": [1]}}, [], None, "x",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: json.dumps(body)[-60:])
def test_what_may_not_be_started_is_refused(server: LiveServer, body: object) -> None:
    found = server.post("start", json.dumps(body).encode())
    assert found.status in (400, 404) and found.error
    assert server.get("jobs").json == {"jobs": []}


@pytest.mark.parametrize("action", ["describe", "start", "tag", "prune"])
def test_half_a_character_is_refused(server: LiveServer, action: str) -> None:
    bodies = {"describe": {"id": "experiments/spaces/good", "description": "\ud800"}, "start": START | {"name": "\ud800"},
              "tag": {"id": "experiments/spaces/good", "tags": ["a\udfff"]}, "prune": {"ids": ["\ud800"]}}  # fmt: skip
    found = server.post(action, bodies[action])
    assert found.status == 400 and "surrogates not allowed" in found.error


COMMANDS = [
    "rm -rf /", "python -m core.cli export spaces --to hf /tmp/x", "python -m core.cli runs spaces --prune --yes", "python -c 'x'", "",
    "python -m core.cli train spaces --exec x", "python -m core.cli train spaces 'a", "train spaces",
    "open_experiment('spaces').train()", "python -m core.cli train spaces other", "python -m core.cli sweep spaces --on slurm",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recorded_command_is_not_trusted(server: LiveServer, place: Path, command: str) -> None:
    run = write_run(place, f"bad{next(NUMBER)}", status="interrupted", command=command)
    try:
        assert server.post("go_on", {"id": f"experiments/spaces/{run.name}"}).status in (400, 409)
        assert server.get("jobs").json == {"jobs": []}
    finally:
        shutil.rmtree(run)


@pytest.mark.parametrize("action", ["start", "stop", "go_on", "describe", "star", "tag", "hide", "prune"])
def test_actions_need_the_token_and_our_own_page(server: LiveServer, action: str) -> None:
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "ä"):
        assert (
            server.ask(
                f"/live/{action}", {}, headers={"Authorization": f"Bearer {token}".encode().decode("latin-1")}
            ).status
            == 401
        )
    assert server.post(action, {}, Origin="http://evil.example").status == 403
    assert server.post(action, {}, Host="evil.example").status == 403
    assert server.post(action, {}).status == 400
    assert server.get(action).status == 405


def test_other_origins_and_names_see_nothing(server: LiveServer) -> None:
    for path in ("/", "/chat", "/live", "/live/lab", "/live/runs", "/live/events", f"/live/report/{ID}"):
        assert server.ask(path, headers={"Host": "evil.example"}).status == 403, path
        assert server.ask(path, headers={"Origin": "http://evil.example"}).status == 403, path
    found = server.get("lab").headers
    assert "default-src 'self'" in found["content-security-policy"] and found["x-content-type-options"] == "nosniff"
    for path in ("/page/dom.js", "/live/page/live.js"):  # else the modules of two versions would mix
        assert server.ask(path).headers["cache-control"] == "no-cache", path


NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pictures_and_frames_of_other_sites_see_nothing(server: LiveServer, site: str) -> None:
    """A picture or a script of another site is asked for without Origin, but says where it stands."""
    for path in ("/", "/live/lab", "/live/moment?id=x&step=0&prompt=a", "/v1/models", "/v1/models/x", "/page/dom.js", "/health", f"/live/report/{ID}"):  # fmt: skip
        found = server.ask(path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})
        assert found.status == 403 and found.headers["cross-origin-resource-policy"] == "same-origin", path
    for path, status in (("/", 200), ("/live", 200), ("/chat", 200), ("/live/lab", 403), (f"/live/report/{ID}", 403)):
        assert server.ask(path, headers={"Sec-Fetch-Site": site, **NAVIGATION}).status == status, path
    for own in ("same-origin", "none"):
        assert server.get("lab", **{"Sec-Fetch-Site": own}).status == 200


def test_the_code_of_others_is_run_for_the_token_only(tmp_path: Path) -> None:
    """To open a model of a folder that was given by name runs its prepare.py, also to look at it over time."""
    given = write_experiment(tmp_path / "class" / "spaces")
    (given / "prepare.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (write_run(given, "mine") / "checkpoints" / "best").mkdir(parents=True)
    body = {"model": "spaces/mine", "prompt": "a"}

    def asked(server: LiveServer, **headers: str) -> list[int]:
        return [
            server.get("moment?id=class/spaces/mine&step=0&prompt=a", **headers).status,
            server.ask("/v1/models/spaces/mine", headers=headers).status,
            server.ask("/v1/completions", body, headers=headers).status,
            server.ask("/tokenize", {"model": "spaces/mine", "content": "a"}, headers=headers).status,
        ]

    own = {"Authorization": f"Bearer {TOKEN}"}
    with showing(str(tmp_path / "class")) as server:
        assert asked(server) == [403] * 4 and asked(server, Authorization="Bearer wrong") == [403] * 4
        assert server.ask("/v1/models").status == 200 and not (tmp_path / "ran").exists()
    with showing(str(tmp_path / "class"), read_only=True) as server:
        assert asked(server, **own) == [403] * 4 and not (tmp_path / "ran").exists()
    with showing(str(tmp_path / "class")) as server:
        assert asked(server, **own) == [400] * 4  # opened, as far as its checkpoint can be


@pytest.mark.parametrize(
    "text", ["5", '{"stages": 5}', '{"stages": null}', '{"stages": {"a": 1}}', '{"stages": [[]]}', "[" * 100_000]
)
def test_a_damaged_pipeline_hides_no_run(server: LiveServer, place: Path, text: str) -> None:
    """Not its own stages, and not the runs behind it in the alphabet."""
    staged, behind = place / "out" / f"bad{next(NUMBER)}", write_run(place, f"zz{next(NUMBER)}")
    try:
        staged.mkdir()
        write_run(place, "moved", run=f"{staged.name}/base").rename(staged / "base")
        (staged / "pipeline.json").write_text(text)
        assert server.get(f"run?id=experiments/spaces/{behind.name}").status == 200  # found anew
        rows = {row["run"] for row in server.get("runs?limit=1000").json["rows"]}
        assert {staged.name, behind.name, "good"} <= rows
        assert server.get(f"pipeline?id=experiments/spaces/{staged.name}").json["ids"].keys() == {"base"}
    finally:
        shutil.rmtree(staged)
        shutil.rmtree(behind)


def test_a_lab_that_goes_away_has_a_problem_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other labs stay, and viewers hear of what changes after it."""
    monkeypatch.setattr("core.serve.live.catalog.THOROUGH", 0.0)
    for name in ("anna", "ben"):
        write_run(write_experiment(tmp_path / name / "experiments" / "spaces"), "x")
    with showing(*(str(tmp_path / name) for name in ("anna", "ben"))) as server, listening(server) as changes:
        (tmp_path / "ben").rename(tmp_path / "away")
        assert "ben/spaces/x" in next(changes)
        labs = server.get("lab").json["labs"]
        assert [one["problem"] for one in labs] == [
            "",
            f"{tmp_path}/ben/experiments cannot be read: No such file or directory",
        ]
        assert [row["id"] for row in server.get("runs").json["rows"]] == ["anna/spaces/x"]
        assert server.get("board").status == server.ask("/v1/models").status == 200
        (tmp_path / "away").rename(tmp_path / "ben")
        assert "ben/spaces/x" in next(changes)
        assert [one["problem"] for one in server.get("lab").json["labs"]] == ["", ""]


def test_one_place_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where reading a stranger's folder fails in a way that nobody has foreseen."""
    from core.serve.live import catalog

    def failing(place: catalog.Place, *arguments: object) -> object:
        if place.lab.name == "ben":
            raise KeyError("a bug")
        return read_entry(place, *arguments)

    read_entry: Any = catalog.read_entry
    monkeypatch.setattr(catalog, "read_entry", failing)
    for name in ("anna", "ben"):
        write_run(write_experiment(tmp_path / name / "spaces"), "x")
    with showing(str(tmp_path / "anna"), str(tmp_path / "ben")) as server:
        assert [row["id"] for row in server.get("runs").json["rows"]] == ["anna/spaces/x"]
        assert ["a bug" in one["problem"] for one in server.get("lab").json["experiments"]] == [False, True]


@contextmanager
def listening(server: LiveServer) -> Iterator[Iterator[list[str]]]:
    """The ids that a viewer of the events is told of, event by event."""
    with server.socket() as viewer, viewer.makefile("rb") as events:
        viewer.sendall(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert any(line == b": hello\n" for line in events)
        time.sleep(1.2)
        yield (found for line in events if line.startswith(b"data: ") if (found := json.loads(line[6:])["changed"]))


def test_a_name_that_is_no_text_is_left_out_with_a_note(tmp_path: Path) -> None:
    """On many disks a name may be any bytes. The stream of events goes on."""
    experiment = write_experiment(tmp_path / "class" / "spaces")
    write_run(experiment, "good")
    odd = os.fsencode(experiment / "out") + b"/bad\xff"
    with showing(str(tmp_path / "class")) as server, listening(server) as changes:
        shutil.copytree(os.fsencode(experiment / "out" / "good"), odd)
        shutil.copytree(experiment / "out" / "good", experiment / "out" / "new")
        assert "class/spaces/new" in next(changes)
        assert [row["run"] for row in server.get("runs?sort=run").json["rows"]] == ["good", "new"]
        assert "bad\\udcff" in server.get("lab").json["experiments"][0]["problem"]


def test_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path / "class" / "spaces")
    write_run(experiment, "mine")
    for name in ("config.toml", "Readme.md"):
        (experiment / name).unlink(missing_ok=True)
        os.mkfifo(experiment / name)
    write_experiment(tmp_path / "class" / "other")
    (tmp_path / "class" / "other" / "prepare.py").unlink()
    os.mkfifo(tmp_path / "class" / "other" / "prepare.py")
    with showing(str(tmp_path / "class")) as server:
        assert [one["summary"][:11] for one in server.get("lab").json["experiments"]] == ["", "Put a space"]
        assert server.get("runs").json["total"] == 1


def test_no_link_is_followed_in_a_lab_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to files nor to folders, to read them or to write; also where the link is not the last part of a path."""
    monkeypatch.setattr("core.serve.live.catalog.YOUNG", 10**12)
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in (
        "Readme.md",
        "config.toml",
        "prepare.py",
        "answers.jsonl",
        "report.html",
        "mine.log",
        "metrics.csv",
        "summary.json",
    ):
        (secret / name).write_text('"""TOPSECRET"""')
    (secret / "notes.json").write_text('{"description": "TOPSECRET"}')
    (secret / "sweep.json").write_text('{"points": [], "description": "TOPSECRET"}')
    (secret / "samples.json").write_text('{"samples": [{"start": "a", "text": "TOPSECRET"}]}')
    (secret / "pipeline.json").write_text('{"stages": [], "table": {"TOPSECRET": {}}}')
    (secret / "config.toml").write_text('[train.schedule]\nmax_iters = 777777\n[[stages]]\nname = "TOPSECRET"\n')
    (secret / "checkpoints" / "TOPSECRET").mkdir(parents=True)
    experiment = write_experiment(tmp_path / "class" / "spaces")
    runs = [write_run(experiment, name, status="interrupted") for name in ("mine", "yours")]
    (out := experiment / "out").joinpath("sweeps").mkdir()
    (out / "sweeps" / "x").symlink_to(secret)
    (out / ".live").symlink_to(secret)
    (out / "staged" / "base").mkdir(parents=True)
    (out / "staged" / "base" / "summary.json").write_text((runs[0] / "summary.json").read_text())
    for name in (
        "notes.json",
        "answers.jsonl",
        "samples.json",
        "report.html",
        "metrics.csv",
        "config.toml",
        "checkpoints",
    ):
        (runs[0] / name).unlink(missing_ok=True)
        (runs[0] / name).symlink_to(secret / name)
    (runs[1] / "summary.json").unlink()
    (runs[1] / "summary.json").symlink_to(secret / "summary.json")
    (out / "staged" / "pipeline.json").symlink_to(secret / "pipeline.json")
    for name in ("Readme.md", "config.toml", "prepare.py"):
        (experiment / name).unlink(missing_ok=True)
        (experiment / name).symlink_to(secret / name)
    whole = write_experiment(tmp_path / "class" / "whole")
    (whole / "out").symlink_to(out)
    with showing(str(tmp_path / "class")) as server:
        ids = [row["id"] for row in server.get("runs").json["rows"]]
        assert sorted(ids) == ["class/spaces/mine", "class/spaces/staged/base", "class/spaces/yours"]
        asked = ["lab", "runs", "board", "sweep?id=class/spaces/sweeps/x", "pipeline?id=class/spaces/staged"]
        asked += [
            f"{name}?id={id}" for name in ("run", "samples", "log", "curves", "settings", "moments") for id in ids
        ]
        for path in asked:
            found = server.get(path)
            assert found.status in (200, 404, 409) and b"TOPSECRET" not in found.body and b"777777" not in found.body, (
                path
            )
        assert server.get("sweep?id=class/spaces/sweeps/x").status == 404
        for id in ("class/spaces/mine", "class/spaces/sweeps/x"):
            assert server.ask(f"/live/report/{id}").status == 404
        problem = {row["run"]: row["problem"] for row in server.get("runs").json["rows"]}["yours"]
        assert problem == "summary.json cannot be read: it is a link, which is not followed here"
        assert server.post("go_on", {"id": "class/spaces/mine"}).status in (400, 409)
        start = {"lab": "class", "experiment": "spaces", "command": "train", "name": "mine"}
        assert "it is a link" in server.post("start", start).error or server.post("start", start).status == 409
        assert (secret / "mine.log").read_text() == '"""TOPSECRET"""'
        row = server.post("star", {"id": "class/spaces/mine", "starred": True}).json["row"]
        assert row["starred"] and row["description"] == ""
        assert json.loads((runs[0] / "notes.json").read_text()) == {"starred": True}


def test_a_link_leads_nowhere_in_a_lab_that_was_given(tmp_path: Path) -> None:
    """In class mode a folder may be a stranger's: links to others' runs, and an out folder elsewhere, are not followed."""
    own = write_experiment(tmp_path / "teacher" / "spaces")
    write_run(own, "secret")
    given = write_experiment(tmp_path / "class" / "spaces")
    write_run(given, "mine")
    (given / "out" / "theirs").symlink_to(own / "out" / "secret")
    (tmp_path / "class" / "other").symlink_to(own)
    away = write_experiment(tmp_path / "class" / "away")
    (away / "config.toml").write_text(f'[train.runtime]\nout_dir = "{own / "out"}"\n')
    with showing(str(tmp_path / "class")) as server:
        assert [row["id"] for row in server.get("runs").json["rows"]] == ["class/spaces/mine"]
