"""The live view's answers: what they say of real files, and how they follow them."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

import uvicorn
from live import READ, TOKEN, LiveServer, showing, write_experiment, write_run

from core import process
from core.serve.limits import Limits
from core.serve.live.answering import ANSWERS
from core.serve.live.catalog import Catalog
from core.serve.live.labs import Lab
from core.serve.live.tables import MetricsTable, Tables, thinned
from core.serve.live.view import View
from core.serve.server import Address, Server, connection_type
from core.serve.setting_up import set_up
from core.tracking.answers import keep_answers, write_answers
from core.tracking.notes import write_notes

ID = "experiments/spaces"


@pytest.fixture
def runs(lab: Path) -> Path:
    """Four runs of an experiment: two settings with two seeds each."""
    experiment = write_experiment(lab / "spaces")
    for seed in (0, 1):
        write_run(experiment, f"a{seed}", seed=seed, accuracy=0.5 + seed / 100, prompts=200, side="test")
    write_run(experiment, "b", seed=0, status="failed", accuracy=None, description="Does it help?")
    write_notes(experiment / "out" / "b", {"tags": ["Wide", "long"]})
    return experiment


def test_the_table_of_runs_is_filtered_and_sorted(runs: Path) -> None:
    with showing() as server:
        lab = server.get("lab").json
        assert [(one["name"], one["runs"]) for one in lab["experiments"]] == [("spaces", 3)] and not lab["can_act"]
        assert lab["tags"] == ["long", "Wide"]
        assert server.get("lab", Authorization=f"Bearer {TOKEN}").json["can_act"]
        found = server.get("runs?sort=accuracy&descending=1").json
        assert [row["run"] for row in found["rows"]] == ["a1", "a0", "b"]  # what is not known stands last
        assert found["rows"][0] | {"progress": 1.0, "unit": "steps", "val_loss": 0.5, "seed": 1} == found["rows"][0]
        assert server.get("runs?limit=1&offset=1&sort=run").json["rows"][0]["run"] == "a1"
        for query, total in (("status=failed", 1), ("text=does%20HELP", 1), ("starred=1", 0), ("experiment=other", 0)):
            assert server.get(f"runs?{query}").json["total"] == total, query
        for wrong in ("sort=nothing", "limit=x", "offset=-1", "limit=1001"):
            assert server.get(f"runs?{wrong}").status == 400, wrong


def test_a_run_its_curves_and_what_differs(runs: Path) -> None:
    with showing() as server:
        about = server.get(f"run?id={ID}/a0").json
        assert about["settings"]["train.model.n_embd"] == 16 and about["problems"] == []
        curves = server.get(f"curves?id={ID}/a0&id={ID}/b&metric=val_loss&x=seconds").json
        assert curves["metrics"] == ["train_loss", "val_loss", "val_accuracy"] and curves["curves"][1]["x"][0] == 0.5
        bands = server.get(f"bands?id={ID}/a0&id={ID}/a1").json["groups"]
        assert len(bands) == 1 and bands[0]["mean"] == curves["curves"][0]["y"]
        keys = server.get(f"settings?id={ID}/a0&id={ID}/a1").json["keys"]
        assert [key["key"] for key in keys if key["differs"]] == ["train.runtime.seed"]
        compared = server.get(f"compare?id={ID}/a0&id={ID}/a1").json
        assert "nothing to compare yet" in compared["sentences"][0] and compared["gone"] == []
        for ids, gone in ((f"id={ID}/a0&id={ID}/x", [f"{ID}/x"]), (f"id={ID}/x", [f"{ID}/x"])):  # removed meanwhile
            assert server.get(f"settings?{ids}").json["gone"] == server.get(f"compare?{ids}").json["gone"] == gone
        assert server.get("run?id=").status == 404
        for name, key in (
            ("curves", "curves"),
            ("bands", "groups"),
        ):  # a run that was removed does not take the others with it
            found = server.get(f"{name}?id={ID}/none&id={ID}/a0").json
            assert found["gone"] == [f"{ID}/none"] and len(found[key]) == 1
        assert server.get("curves?x=moon&id=x").status == server.get("curves").status == 400


def test_what_grows_is_read_on_and_told(runs: Path) -> None:
    folder = runs / "out" / "a0"
    summary = json.loads((folder / "summary.json").read_text()) | {"status": "interrupted"}
    (folder / "summary.json").write_text(json.dumps(summary))
    with showing() as server:
        before = server.get(f"curves?id={ID}/a0&metric=train_loss").json["curves"][0]
        with (folder / "metrics.csv").open("a") as file:
            file.write("500,600,20,0.25,,\n501,601")  # the second line is half written
        with server.socket() as viewer, viewer.makefile("rb") as events:  # what came before the viewer is told, too
            viewer.sendall(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert any(line == b": hello\n" for line in events)
            line = next(line for line in events if line.startswith(b"data: "))
            assert json.loads(line[6:]) == {"changed": [f"{ID}/a0"]}
        time.sleep(1.0)
        after = server.get(f"curves?id={ID}/a0&metric=train_loss").json["curves"][0]
        assert after["x"] == [*before["x"], 500.0] and after["y"][-1] == 0.25


def test_the_server_ends_at_once_beside_viewers(runs: Path) -> None:
    """A stream of events would go on for ever, and a server waits some seconds for answers on their way."""
    site, limits, stop = set_up([], "", (), Limits(), Address(), read=READ), Limits(), process.StopRequest()
    with socket.create_server(("127.0.0.1", 0)) as found:
        config = uvicorn.Config(site.app, http=connection_type(limits), ws="none", lifespan="on", log_level="critical", timeout_graceful_shutdown=10)  # fmt: skip
        thread = threading.Thread(target=Server(config, stop, site.closing).run, kwargs={"sockets": [found]})
        thread.start()
        with socket.create_connection(found.getsockname(), 30) as viewer, viewer.makefile("rb") as events:
            viewer.sendall(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert any(line == b": hello\n" for line in events)
            begun = time.monotonic()
            stop.number = 2
            thread.join()
            assert time.monotonic() - begun < 5 and events.read().endswith(b"0\r\n\r\n")  # the stream is whole


def test_answers_of_sweeps_and_stages_follow_their_files(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run changes meanwhile; a new variant of the experiment and a kept step are seen, too."""
    monkeypatch.setattr("core.serve.live.catalog.THOROUGH", 0.0)
    monkeypatch.setattr("core.serve.live.catalog.YOUNG", 0)  # what is young is read again anyway
    folder, sweep = runs / "out", runs / "out" / "sweeps" / "lr" / "sweep.json"
    sweep.parent.mkdir(parents=True)
    points = [{"run": "a0", "status": "waiting"}]
    sweep.write_text(json.dumps({"experiment": "spaces", "points": points}))
    write_run(runs, "moved", run="staged/base", status="interrupted")
    (folder / "staged" / "base" / "checkpoints").mkdir(parents=True)
    for path in (folder / "moved").iterdir():
        path.rename(folder / "staged" / "base" / path.name)
    (folder / "moved").rmdir()
    (folder / "staged" / "pipeline.json").write_text('{"stages": ["base"], "table": {}}')
    base = f"{ID}/staged/base"
    with showing() as server:

        def answers() -> list[Any]:
            told = [server.get(f"sweep?id={ID}/sweeps/lr").json["points"][0]["error"], server.get(f"pipeline?id={ID}/staged").json["table"]]  # fmt: skip
            return [*told, server.get("lab").json["experiments"][0]["variants"], server.get(f"run?id={base}").json["checkpoints"]]  # fmt: skip

        assert answers() == ["", {}, [], []]
        sweep.write_text(json.dumps({"experiment": "spaces", "points": [points[0] | {"error": "no memory"}]}))
        (folder / "staged" / "pipeline.json").write_text('{"stages": ["base"], "table": {"val_loss": {"base": 1.0}}}')
        (runs / "config.wide.toml").write_text("")
        (folder / "staged" / "base" / "checkpoints" / "step-000003").mkdir()
        time.sleep(1.1)
        assert answers() == ["no memory", {"val_loss": {"base": 1.0}}, ["wide"], ["step-000003"]]


def test_samples_are_read_on_from_where_they_ended(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.serve.live.samples.PART", 1000)
    folder, asked = runs / "out" / "a0", f"samples?id={ID}/a0"

    def answered(step: int, text: str) -> None:
        write_answers(folder, step, [("ab: ", "a b", text, text == "a b")])

    for step in range(100):
        answered(step, "a")
    with showing() as server:
        first = server.get(asked).json
        steps = [one["step"] for one in first["evaluations"]]
        assert first["is_new"] and not first["more"] and steps == list(range(steps[0], 100)) and 10 < len(steps) < 20
        assert first["evaluations"][0]["answers"] == [{"prompt": "ab: ", "truth": "a b", "answer": "a", "right": False}]

        def go_on(last: Any) -> Any:
            return server.get(f"{asked}&file={last['file']}&next={last['next']}").json

        assert go_on(first)["evaluations"] == [] and go_on(first)["next"] == first["next"]
        for step in range(100, 120):
            answered(step, "a b")
        with (folder / "answers.jsonl").open("a") as file:
            file.write('{"step": 120, "ans')  # half a line waits
        second = go_on(first)
        assert second["more"] and not second["is_new"] and second["evaluations"][0]["step"] == 100
        third = go_on(second)
        assert [one["step"] for one in second["evaluations"] + third["evaluations"]] == list(range(100, 120))
        assert not third["more"] and go_on(third)["evaluations"] == []
        keep_answers(folder, 50)  # the run goes on from there: another file
        fourth = go_on(third)
        assert fourth["is_new"] and fourth["evaluations"][-1]["step"] == 50
        (folder / "answers.jsonl").unlink()
        (folder / "samples.json").write_text('{"samples": [{"start": "ab: ", "text": "a b", "truth": "a b"}]}')
        at_the_end = go_on(fourth)
        assert at_the_end["is_new"] and at_the_end["evaluations"][0]["answers"][0]["right"] is True
        (folder / "samples.json").write_text("5")
        assert go_on(fourth)["problem"] == "samples.json: not the samples of a run"


def test_removed_runs_are_forgotten() -> None:
    view = View(Catalog(list), READ)
    view.short_rows["x/y/z"] = cast(Any, (None, {}))
    assert view.rows() == [] and view.short_rows == {}


def test_half_a_line_waits_and_a_new_file_is_read_anew(tmp_path: Path) -> None:
    path, tables = tmp_path / "metrics.csv", Tables()
    path.write_text("step,loss\n1,0.5\n2,0.")
    assert tables.of(path).curve("loss", "step")[1].tolist() == [0.5]
    with path.open("a") as file:
        file.write("25\n3,nan\n4,inf\nx,1\n5,,,\n6,7\n")
    x, y = tables.of(path).curve("loss", "step")
    assert (x.tolist(), y.tolist()) == ([1, 2, 6], [0.5, 0.25, 7])
    (tmp_path / "new").write_text("step,loss,extra\n1,2,3\n")
    os.replace(tmp_path / "new", path)  # noqa: PTH105
    assert tables.of(path).metrics == ["loss", "extra"]
    path.unlink()
    assert tables.of(path).metrics == []


def test_only_new_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n" + "".join(f"{n},{n}\n" for n in range(1, 100_001)))
    table = MetricsTable(path)
    table.update()
    size = table.read_to
    with path.open("a") as file:
        file.write("100001,5\n")
    table.update()
    assert len(table.table) == 100_001 and table.read_to == size + 9


def test_what_has_not_changed_is_made_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one run grows, answers about others stay, and of several together only its part is made anew."""
    from core.serve.live import board, drawing, tables, view

    made: list[str] = []
    summary = json.loads((runs / "out" / "b" / "summary.json").read_text())
    summary |= {"status": "interrupted", "best_val_loss": None}  # as a run has it until it ends
    (runs / "out" / "b" / "summary.json").write_text(json.dumps(summary))
    for path in runs.rglob("*"):
        os.utime(path, (1e9, 1e9))  # nothing is young
    curves, thin, whole, groups = drawing.about_curves, tables.thinned, view.whole_row, board.found_groups
    monkeypatch.setattr("core.serve.live.board.found_groups", lambda entries: made.append("groups") or groups(entries))
    monkeypatch.setattr("core.serve.live.tables.thinned", lambda *of: made.append("thinned") or thin(*of))
    monkeypatch.setattr("core.serve.live.view.whole_row", lambda entry: made.append(entry.run) or whole(entry))
    monkeypatch.setitem(ANSWERS, "curves", lambda *of: made.append("curves") or curves(*of))
    with showing() as server:
        asked = (
            f"curves?id={ID}/a0&id={ID}/a1",
            f"curves?id={ID}/a0&id={ID}/b",
            "runs",
            "board",
            "board?by=target&target=0.5",
        )
        for query in asked:
            server.get(query)
        assert made == ["curves", "thinned", "thinned", "curves", "thinned", "a0", "a1", "b", "groups"]
        made.clear()
        with (runs / "out" / "b" / "metrics.csv").open("a") as file:
            file.write("500,600,20,0.25,0.5,\n")
        time.sleep(1.1)
        answers = [server.get(query).json for query in asked]
        assert made == ["curves", "thinned", "b"] and answers[1]["curves"][1]["x"][-1] == 500
        assert [row["step"] for row in answers[2]["rows"] if row["run"] == "b"] == [500]


def test_a_thinned_curve_keeps_its_peaks() -> None:
    x = np.arange(100_000, dtype=np.float64)
    y = np.sin(x / 9000)
    y[54_321], y[77_777] = 50.0, -50.0
    found = thinned(x, y, 1000)
    assert len(found["x"]) == 1000 and max(found["high"]) == 50.0 and min(found["low"]) == -50.0
    assert found["x"][-1] == 99_999 and abs(found["y"][10] - np.sin(1050 / 9000)) < 0.01
    few = thinned(x[:5], y[:5], 1000)
    assert few["y"] == few["low"] == y[:5].tolist()
    assert thinned(np.ones(50), np.arange(50.0), 10)["high"] == [49.0]  # all at one x


def test_tables_forget_what_was_looked_at_longest_ago(tmp_path: Path) -> None:
    tables = Tables(room=2000)
    for name in "abc":
        (tmp_path / name).write_text("step,loss\n" + "1,2\n" * 60)
        tables.of(tmp_path / name)
    assert [path.name for path in tables.known] == ["b", "c"]


def test_the_catalog_sees_new_changed_and_removed_runs(lab: Path) -> None:
    experiment = write_experiment(lab / "spaces")
    catalog = Catalog(lambda: [Lab("experiments", lab, False)])
    catalog.update()
    assert catalog.entries == {}
    folder = write_run(experiment, "x")
    catalog.update()
    version = catalog.version
    assert list(catalog.entries) == [f"{ID}/x"]
    write_notes_of(folder)
    catalog.update()
    assert catalog.changed_since(version) == {f"{ID}/x"} and catalog.entries[f"{ID}/x"].notes == {"starred": True}
    version = catalog.version
    catalog.update()
    assert catalog.version == version
    folder.rename(experiment / "out" / "y")
    catalog.update()
    assert catalog.changed_since(version) == {f"{ID}/x", f"{ID}/y"}


def write_notes_of(folder: Path) -> None:
    write_notes(folder, {"starred": True})


def test_stages_and_sweeps(lab: Path) -> None:
    experiment = write_experiment(lab / "spaces")
    out = experiment / "out"
    for stage in ("base", "chat"):
        folder = write_run(experiment, f"{stage}-flat", run=f"whole/{stage}")
        (out / "whole").mkdir(exist_ok=True)
        folder.rename(out / "whole" / stage)
    table = {"stages": ["base", "chat"], "table": {"val_loss": {"base": 0.5}}, "seconds": {}, "tokens": {}}
    (out / "whole" / "pipeline.json").write_text(json.dumps(table))
    (out / "sweeps" / "lr").mkdir(parents=True)
    points = [{"run": "p0", "settings": {"k": 1}, "seed": 0, "status": "completed"}, {"run": "p1", "status": "waiting"}]
    points += [{"run": "p2"}, {"run": "p3"}]
    (out / "sweeps" / "lr" / "sweep.json").write_text(json.dumps({"experiment": "spaces", "points": points}))
    (out / "sweeps" / "lr" / "report.html").write_text("<p>hello</p>")
    write_run(experiment, "p0", accuracy=0.75, side="test")
    stopped = {"status": "interrupted", "best_val_loss": 0.25, "accuracy": 0.5, "val_accuracy": 0.5, "side": "val"}
    write_run(experiment, "p2", steps=186, **stopped)
    write_run(experiment, "p3", status="interrupted", best_val_loss=None, steps=None)  # killed
    with showing() as server:
        rows = {row["id"]: row for row in server.get("runs").json["rows"]}
        assert set(rows) == {f"{ID}/{name}" for name in ("whole/base", "whole/chat", "p0", "p2", "p3")}
        figures = [tuple(rows[f"{ID}/{name}"][key] for key in ("step", "val_loss", "val_accuracy")) for name in ("p2", "p3")]  # fmt: skip
        assert figures == [(186, 0.25, 0.5), (200, 4 / 21, 20 / 21)]  # of best, and the latest
        assert rows[f"{ID}/p0"]["sweep"] == f"{ID}/sweeps/lr" and rows[f"{ID}/whole/chat"]["parent"] == f"{ID}/whole"
        pipeline = server.get(f"pipeline?id={ID}/whole").json
        assert pipeline["ids"] == {"base": f"{ID}/whole/base", "chat": f"{ID}/whole/chat"} and pipeline["table"]
        sweep = server.get(f"sweep?id={ID}/sweeps/lr").json
        assert [(point["id"], point["status"]) for point in sweep["points"]] == [
            (f"{ID}/p0", "completed"),
            (None, "waiting"),
            (f"{ID}/p2", "interrupted"),
            (f"{ID}/p3", "interrupted"),
        ]
        figures = [(point["value"], point["accuracy"], point["side"]) for point in sweep["points"]]
        assert figures == [(0.5, 0.75, "test"), (None, None, None), (0.25, 0.5, "val"), (4 / 21, 20 / 21, "val")]
        assert sweep["side"] is None  # each figure says its own
        assert server.ask(sweep["report"]).body == b"<p>hello</p>"
        assert server.get(f"sweep?id={ID}/sweeps/..").status == server.get(f"pipeline?id={ID}/p0").status == 404


def test_a_board_is_not_won_by_a_lucky_seed(tmp_path: Path) -> None:
    """Of three settings, one has three good seeds, one a single better one, and one two that differ much."""
    for name, accuracies in (("anna", [0.9, 0.91, 0.92]), ("ben", [0.99]), ("cleo", [0.5, 1.0])):
        experiment = write_experiment(tmp_path / name / "experiments" / "spaces")
        for seed, accuracy in enumerate(accuracies):
            of = {"environment": {"git_commit": ("aaa+x", "bbb", None)[seed]}} if name == "anna" else {}
            write_run(experiment, f"s{seed}", seed=seed, accuracy=accuracy, prompts=100, side="test", **of)
    write_run(tmp_path / "cleo" / "experiments" / "spaces", "s9", seed=9, status="failed")
    with showing(*(str(tmp_path / name) for name in ("anna", "ben", "cleo"))) as server:
        assert [one["name"] for one in server.get("lab").json["labs"]] == ["anna", "ben", "cleo"]
        [ranking] = server.get("board").json["rankings"]
        board = ranking["entries"]
        assert (ranking["experiment"], ranking["data"], ranking["side"]) == ("spaces", "d", "test")
        assert [(entry["lab"], entry["place"]) for entry in board] == [("anna", 1), ("ben", None), ("cleo", None)]
        assert board[0]["seeds"] == [0, 1, 2] and board[0]["low"] < 0.91 < board[0]["high"]
        assert board[2]["without"] == 1  # its failed seed counts: it keeps the others from a place
        assert board[0]["commits"] == ["aaa+x", "bbb", None] and board[1]["commits"] == [
            None
        ]  # seeds may be of other code
        assert board[1]["low"] is None and board[0]["command"].startswith("python -m core.cli train spaces")
        [timed] = server.get("board?by=target&target=0.5").json["rankings"]
        assert {entry["value"] for entry in timed["entries"]} == {5.5}
        assert server.get("board?target=2").status == 400
        assert server.get("board?by=target&target=1").json["rankings"] == []


def fast(folder: Path, seconds: float, share: float = 0.95) -> None:
    """Metrics of a run that has reached a share at some second."""
    (folder / "metrics.csv").write_text(f"step,val_accuracy,seconds\n0,0.0,0.1\n10,{share},{seconds}\n")


def entries_of(server: LiveServer, query: str) -> list[Any]:
    """The entries of all rankings."""
    return [entry for ranking in server.get(f"board?{query}").json["rankings"] for entry in ranking["entries"]]


def test_a_seed_counts_once_however_often_it_is_run(tmp_path: Path) -> None:
    anna, ben = (write_experiment(tmp_path / name / "experiments" / "spaces") for name in ("anna", "ben"))
    for at, name in enumerate("abc"):
        facts = {"prompts": 100, "side": "test"}
        fast(write_run(anna, name, seed=7, accuracy=0.99, **facts), 3.0 + at)
        fast(write_run(ben, name, seed=at, accuracy=0.9 - at / 100, **facts), 10.0 + at)
    with showing(str(tmp_path / "anna"), str(tmp_path / "ben")) as server:
        for by, worst in (("target", 5.0), ("accuracy", 0.99)):
            first, last = entries_of(server, f"by={by}")
            assert (first["lab"], first["place"], first["seeds"]) == ("ben", 1, [0, 1, 2]), by
            assert (last["place"], last["seeds"], last["value"], last["low"]) == (None, [7], worst, None), by


def test_a_seed_that_is_stopped_is_not_left_out(tmp_path: Path) -> None:
    """Two lucky seeds beside six that were stopped before they failed have no place; a slow one counts where it has reached the target."""
    anna, ben = (write_experiment(tmp_path / name / "experiments" / "spaces") for name in ("anna", "ben"))
    facts = {"prompts": 100, "side": "test"}
    for seed in range(8):
        lucky = seed < 2
        told = {"accuracy": 0.99} if lucky else {"accuracy": None, "status": "interrupted"}
        fast(write_run(anna, f"s{seed}", seed=seed, **facts, **told), 3.0 + seed, 0.95 if lucky else 0.2)
        if lucky:
            fast(write_run(ben, f"s{seed}", seed=seed, accuracy=0.9, **facts), 20.0 + seed)
    with showing(str(tmp_path / "anna"), str(tmp_path / "ben")) as server:
        for by in ("target", "accuracy"):
            first, last = entries_of(server, f"by={by}")
            assert (first["lab"], first["place"]) == ("ben", 1) and (last["place"], last["without"]) == (None, 6), by


def test_other_data_is_another_ranking(tmp_path: Path) -> None:
    """An easier prepare.py, another task or another side is never ranked with the others."""
    for name, experiment, facts in (("anna", "spaces", {"data_hash": "easy"}), ("ben", "spaces", {}), ("cleo", "sums", {}), ("dan", "spaces", {"side": "val"})):  # fmt: skip
        place = write_experiment(tmp_path / name / "experiments" / experiment)
        for seed in (0, 1):
            write_run(place, f"s{seed}", **({"seed": seed, "accuracy": 0.5, "prompts": 100, "side": "test"} | facts))
    with showing(*(str(tmp_path / name) for name in ("anna", "ben", "cleo", "dan"))) as server:
        found = server.get("board").json["rankings"]
        assert [(one["experiment"], one["data"], one["side"]) for one in found] == [
            ("spaces", "d", "test"), ("spaces", "d", "val"), ("spaces", "easy", "test"), ("sums", "d", "test"),
        ]  # fmt: skip
        assert all(len(one["entries"]) == 1 and one["entries"][0]["place"] == 1 for one in found)
        assert len(server.get("board?by=target&target=0.5").json["rankings"]) == 3  # of time, the side does not matter


def test_a_setting_has_one_name_on_the_whole_board(tmp_path: Path) -> None:
    """Also where a lab has no other setting that it could be told from."""
    for name, widths in (("anna", (16, 32)), ("ben", (32,))):
        experiment = write_experiment(tmp_path / name / "experiments" / "spaces")
        for width in widths:
            write_run(experiment, f"s{width}", (f"train.model.n_embd={width}",), accuracy=0.5, prompts=100, side="test")
    with showing(*(str(tmp_path / name) for name in ("anna", "ben"))) as server:
        found = {(entry["lab"], entry["name"]) for entry in entries_of(server, "by=accuracy")}
    assert found == {("anna", "n_embd=16"), ("anna", "n_embd=32"), ("ben", "n_embd=32")}


def test_named_models_come_first_and_their_runs_are_at_live(runs: Path) -> None:
    """The chat page stays at / where models are named; without names it is at /chat. Both pages are open without a token."""
    with showing(token="secret") as server:
        assert server.ask("/chat").status == 200 and server.ask("/").status in (200, 500)
        assert server.get("lab").status == 401 and server.get("lab", Authorization="Bearer secret").status == 200
        (runs / "out" / "a0" / "report.html").write_text("<script>alert(1)</script>")
        report = server.get(f"run?id={quote(ID)}/a0", Authorization="Bearer secret").json["report"]
        page = server.ask(report)
        assert page.status == 200 and "sandbox; default-src 'none'" in page.headers["content-security-policy"]
        assert server.ask(report.partition("?")[0]).status == 401
    with showing(read_only=True) as server:
        assert (
            server.get("lab").json["read_only"]
            and server.post("star", {"id": f"{ID}/a0", "starred": True}).status == 403
        )
