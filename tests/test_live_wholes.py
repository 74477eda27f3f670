"""The live view of sweeps and of runs with stages: what is told of them, what can be done with them, and their page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from browser import Browser, Page
from chat_page import texts
from live import TOKEN, LiveServer, showing, until, waiting_commands, write_experiment, write_run
from test_live_page import READY, press_button

from core import files
from core.tracking.run import lock_file

ID = "experiments/spaces"
ROOT, PYTHON = Path(__file__).parent.parent, sys.executable
STAGES = '\n[[stages]]\nname = "base"\n[[stages]]\nname = "chat"\n'


@pytest.fixture
def server(lab: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """A sweep that was interrupted, one of a study, and a run with stages, of two experiments. Commands only say their words, and wait."""
    experiment, staged = write_experiment(lab / "spaces"), write_experiment(lab / "staged")
    out = experiment / "out"
    for name, command, points in (
        ("lr", "terrarium sweep . --name lr --seeds 0,1 -smax_iters=9 --jobs 2", ["p0", "p1", "p2"]),
        ("deep", "terrarium sweep spaces --study one -q", ["p9"]),
    ):
        (out / "sweeps" / name).mkdir(parents=True)
        listed = [{"run": run, "seed": at, "status": "waiting"} for at, run in enumerate(points)]
        values = {"experiment": "spaces", "command": command, "description": "How fast?", "points": listed}
        (out / "sweeps" / name / "sweep.json").write_text(json.dumps(values))
    (out / "sweeps" / "lr" / "report.html").write_text("<p>hello</p>")
    for name in ("p0", "p1"):
        write_run(experiment, name, status="completed" if name == "p0" else "interrupted")
    (staged / "config.toml").write_text((staged / "config.toml").read_text() + STAGES)
    whole = staged / "out" / "whole"
    whole.mkdir(parents=True)
    for stage, status in (("base", "completed"), ("chat", "interrupted")):
        write_run(staged, stage, status=status, command="terrarium loop staged --run whole").rename(whole / stage)
    (whole / "pipeline.json").write_text(json.dumps({"stages": ["base", "chat"], "table": {"val_loss": {"base": 0.5}}}))
    with showing() as running, waiting_commands(running, tmp_path):
        yield running


@pytest.mark.parametrize(
    ("kind", "id", "words"),
    [
        ("sweep", f"{ID}/sweeps/lr", "sweep spaces --name=lr --seeds=0,1 --jobs=2 -s max_iters=9"),
        ("sweep", f"{ID}/sweeps/deep", "sweep spaces --study=one"),
        ("pipeline", "experiments/staged/whole", "loop staged --run=whole"),
    ],
)
def test_a_whole_goes_on_is_stopped_and_has_a_log(server: LiveServer, kind: str, id: str, words: str) -> None:
    before = server.get(f"{kind}?id={id}").json
    assert (before["row"]["status"], before["busy"]) == ("interrupted", False)
    assert server.post("go_on", {"id": id}).json["about"] == id
    found = server.get(f"{kind}?id={id}").json
    assert (found["row"]["status"], found["busy"]) == ("running", True)
    assert server.get(f"log?id={id}").json["text"].splitlines()[0] == f"$ python -m core.cli {words}"
    assert server.post("go_on", {"id": id}).status == 409
    assert server.post("stop", {"id": id}).status == 200


def test_a_free_name_is_offered_to_start_one_again(server: LiveServer, lab: Path) -> None:
    """A sweep of a study has the study's name."""
    for name in ("p0", "wide", "wide-2", "wide-x", "batch-64"):
        if name != "p0":
            write_run(
                lab / "spaces", name, command="unknown" if name == "wide-x" else f"terrarium train spaces --run {name}"
            )
    asked = {"p0": "p0-2", "wide": "wide-3", "wide-2": "wide-3", "wide-x": "wide-x-2", "batch-64": "batch-64-2", "sweeps/lr": "lr-2"}  # fmt: skip
    assert {name: server.get(f"again?id={ID}/{name}").json["name"] for name in asked} == asked
    assert "name" not in server.get(f"again?id={ID}/sweeps/deep").json
    assert server.get("again?id=experiments/staged/whole/chat").json["name"] == "whole-2"
    body = {"lab": "experiments", "experiment": "spaces", "command": "train", "name": "wide-3"}
    assert server.post("start", body).status == 200
    assert server.get(f"again?id={ID}/wide").json["name"] == "wide-4"  # it has no folder yet


def test_a_sweep_that_was_started_elsewhere_is_busy_as_long_as_it_works(server: LiveServer, lab: Path) -> None:
    """Its last file is written before it lets go: after that, nothing but the lock changes."""
    lock = lock_file(lab / "spaces" / "out" / "sweeps" / "lr")
    assert server.get(f"sweep?id={ID}/sweeps/lr").json["busy"] is False
    holder = os.fork()
    if not holder:
        with files.lock(lock, "sweep"):
            signal.pause()
    try:
        until(lambda: server.get(f"sweep?id={ID}/sweeps/lr").json["busy"], 10)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    until(lambda: not server.get(f"sweep?id={ID}/sweeps/lr").json["busy"], 10)


def test_a_run_with_stages_is_busy_between_two_of_them(server: LiveServer, lab: Path) -> None:
    """Whoever takes it through its stages has its lock, also while none of them trains."""
    id, stage = "experiments/staged/whole", "experiments/staged/whole/base"
    holder = os.fork()
    if not holder:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with files.lock(lock_file(lab / "staged" / "out" / "whole"), "run"):
            signal.pause()
    try:
        until(lambda: server.get(f"pipeline?id={id}").json["busy"], 10)
        assert server.get(f"pipeline?id={id}").json["row"]["status"] == "running"
        assert server.get(f"run?id={stage}").json["busy"] is True
        for each in (id, stage):
            assert server.post("go_on", {"id": each}).error == f"{each} is running"
        assert server.post("prune", {"ids": [stage], "dry": True}).error == f"{stage} is a stage of a run that trains"
        assert server.post("stop", {"id": stage}).json["process"] == holder
        assert os.waitpid(holder, 0)[0] == holder
        holder = 0
    finally:
        if holder:
            os.kill(holder, signal.SIGKILL)
            os.waitpid(holder, 0)
    until(lambda: not server.get(f"pipeline?id={id}").json["busy"], 10)


LOOP = """
import sys
from core.lab import pipeline

def evaluate(model):
    print("evaluating", flush=True)
    sys.stdin.readline()

pipeline.evaluate = evaluate
sys.argv[1:] = ["loop", "staged", "--run", "real"]
from core.cli.main import main
main()
"""


@pytest.mark.slow
def test_a_loop_in_a_terminal_is_stopped_between_two_stages(server: LiveServer, lab: Path) -> None:
    id = "experiments/staged/real"
    with subprocess.Popen(
        [PYTHON, "-c", LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=lab.parent, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as loop:  # fmt: skip
        assert loop.stdout and any(line == "evaluating\n" for line in loop.stdout)
        found = until(lambda: server.get(f"pipeline?id={id}").json, 10)
        assert (found["busy"], found["row"]["status"]) == (True, "running")
        assert server.post("go_on", {"id": id}).status == 409
        assert server.post("stop", {"id": id}).json["process"] == loop.pid
        assert loop.wait(60) == 130
    found = until(lambda: (found := server.get(f"pipeline?id={id}").json)["busy"] is False and found, 10)
    assert found["row"]["status"] == "interrupted"


def test_the_stages_that_are_removed_leave_nothing_of_the_run(server: LiveServer, lab: Path) -> None:
    id = "experiments/staged/whole"
    for stage in ("base", "chat"):
        assert server.get(f"pipeline?id={id}").status == 200
        assert server.post("prune", {"ids": [f"{id}/{stage}"]}).json["removed"] == [f"{id}/{stage}"]
    assert server.get(f"pipeline?id={id}").status == 404
    assert not list((lab / "staged" / "out").glob("[!.]*"))


def test_a_whole_has_a_row_and_notes(server: LiveServer) -> None:
    sweep = server.get(f"sweep?id={ID}/sweeps/lr").json
    assert [sweep["row"][name] for name in ("run", "done", "of", "description")] == ["lr", 1, 3, "How fast?"]
    assert [row["run"] for row in sweep["rows"]] == ["p0", "p1"] and sweep["command"].startswith("terrarium sweep . ")
    pipeline = server.get("pipeline?id=experiments/staged/whole").json
    assert (pipeline["row"]["done"], pipeline["row"]["of"], len(pipeline["rows"])) == (1, 2, 2)
    for kind, id in (("sweep", f"{ID}/sweeps/lr"), ("pipeline", "experiments/staged/whole")):
        assert server.post("describe", {"id": id, "description": "<b>why</b>"}).status == 200
        assert server.get(f"{kind}?id={id}").json["row"]["description"] == "<b>why</b>"
    for id in ("experiments/staged/whole/base", f"{ID}/p0", f"{ID}/sweeps/none"):
        assert server.get(f"sweep?id={id}").status == server.get(f"pipeline?id={id}").status == 404


def test_stages_of_a_run_that_goes_on_are_kept(server: LiveServer) -> None:
    stage = "experiments/staged/whole/base"
    server.post("go_on", {"id": "experiments/staged/whole"})
    refused = server.post("prune", {"ids": [stage]})
    assert refused.status == 409 and refused.error == f"{stage} is a stage of a run that trains"


def jobs_of(server: LiveServer) -> dict[str, str]:
    """What the jobs are about, and what that is."""
    return {job["about"]: job["kind"] for job in server.get("jobs").json["jobs"]}


def test_stages_of_a_variant_are_known(server: LiveServer, lab: Path) -> None:
    """A variant may have stages where its experiment has none, or others, or none where it has some."""
    (lab / "spaces" / "config.two.toml").write_text(STAGES)
    (lab / "spaces" / "config.wide.toml").write_text("[train.model]\nn_layer = 1\n")
    (lab / "staged" / "config.flat.toml").write_text("stages = []\n")
    until(lambda: server.get("lab").json["experiments"][0]["variants"])
    told = {one["name"]: (one["stages"], one["stages_of_variants"]) for one in server.get("lab").json["experiments"]}
    assert told == {"spaces": ([], {"two": ["base", "chat"]}), "staged": (["base", "chat"], {"flat": []})}


def test_a_job_leads_to_what_there_is(server: LiveServer, lab: Path) -> None:
    whole = lab / "spaces" / "out" / "w"
    asked = {"lab": "experiments", "experiment": "spaces", "command": "loop", "name": "w"}
    assert server.post("start", asked).status == 200
    for id in (f"{ID}/p1", f"{ID}/sweeps/lr", "experiments/staged/whole"):
        assert server.post("go_on", {"id": id}).status == 200
    many = {"command": "sweep", "name": "none", "options": {"seeds": "0,1"}}
    assert server.post("start", asked | many).status == 200
    known = {f"{ID}/p1": "run", f"{ID}/sweeps/lr": "sweep", "experiments/staged/whole": "pipeline"}
    assert jobs_of(server) == known | {f"{ID}/w": "", f"{ID}/sweeps/none": ""}
    write_run(lab / "spaces", "base").rename(lab / "spaces" / "base")
    whole.mkdir()
    (lab / "spaces" / "base").rename(whole / "base")
    (whole / "pipeline.json").write_text(json.dumps({"stages": ["base", "chat"]}))
    until(lambda: jobs_of(server)[f"{ID}/w"] == "pipeline")


@pytest.fixture
def page(chromium: Browser, server: LiveServer) -> Iterator[Page]:
    found = chromium.page(f"http://127.0.0.1:{server.port}/#token={TOKEN}")
    found.until(READY)
    yield found
    assert found.complaints() == []


def test_the_page_of_a_sweep(page: Page) -> None:
    page.run(f"location.hash = 'run={quote(f'{ID}/p1', safe='')}'")
    press_button(page, "Sweep")
    page.until("document.querySelector('.panel p a')?.textContent === 'The whole sweep'")
    page.run("document.querySelector('.panel p a').click()")
    page.until("document.querySelector('.run h1')?.textContent.startsWith('sweep spaces/lr')")
    page.until("document.querySelectorAll('.points tbody tr').length === 3")
    assert texts(page, ".run [role=tab]") == ["Sweep", "Log", "Report"]
    buttons = ["Go on", "Copy command", "Run again…", "☆ Star", "Describe…", "Tags…", "Hide", "Remove…"]
    assert texts(page, ".run .buttons > *") == buttons
    press_button(page, "☆ Star")
    page.until("document.querySelector('.run h1').textContent.startsWith('★ ')")
    press_button(page, "Tags…")
    page.until("document.querySelector('dialog[open] input')")
    page.run("document.querySelector('dialog[open] input').value = 'fast'")
    press_button(page, "Keep them")
    page.until("[...document.querySelectorAll('#runs .tag')].length === 2")
    press_button(page, "Run again…")
    page.until("document.querySelector('dialog[open] code')?.textContent === 'python -m core.cli sweep spaces --seeds=0,1 --name=lr-2 -s max_iters=9 --jobs=2'")  # fmt: skip
    press_button(page, "Cancel")
    press_button(page, "Go on")
    page.until("document.querySelector('.run .buttons').textContent.startsWith('Stop')")
    press_button(page, "Log")
    page.until("document.querySelector('.log')?.textContent.includes('--name=lr')")
    press_button(page, "Report")
    page.until("document.querySelector('.panel iframe')")
    press_button(page, "Stop")
    press_button(page, "Stop it")
    page.until("document.querySelector('.run .state').textContent.includes('interrupted')")


def test_the_page_of_a_run_with_stages_and_a_job_that_is_stopped(page: Page) -> None:
    page.run(f"location.hash = 'pipeline={quote('experiments/staged/whole', safe='')}'")
    page.until("document.querySelector('.matrix')?.textContent.includes('validation loss')")
    assert texts(page, ".run [role=tab]") == ["Stages", "Log"] and texts(page, ".facts dd")[0] == "1 of 2 done"
    press_button(page, "Go on")
    page.until("document.querySelector('#jobs').textContent === '1 job running'")
    press_button(page, "1 job running")
    page.until("document.querySelector('dialog[open] .job a')")
    assert page.run("document.querySelector('dialog[open] .job a').hash") == "#pipeline=experiments%2Fstaged%2Fwhole"
    page.run("document.querySelector('dialog[open] .job p button').click()")
    press_button(page, "Close")
    page.until("document.querySelector('#jobs').textContent === 'Jobs'")
    page.until("document.querySelector('.run .state').textContent.includes('interrupted')")


def test_a_run_with_stages_of_a_variant(page: Page, lab: Path) -> None:
    experiment = lab / "spaces"
    (experiment / "config.two.toml").write_text(STAGES)
    whole = experiment / "out" / "w"
    write_run(experiment, "base", variant="two", command="terrarium loop spaces --variant two --run w").rename(
        experiment / "base"
    )
    whole.mkdir()
    (whole / "pipeline.json").write_text(json.dumps({"stages": ["base", "chat"], "table": {"val_loss": {"base": 0.5}}}))
    (experiment / "base").rename(whole / "base")
    page.until("[...document.querySelectorAll('#runs .name a')].some((one) => one.textContent.includes('w/base'))")
    page.run(f"location.hash = 'run={quote(f'{ID}/w/base', safe='')}'")
    press_button(page, "Stages")
    page.until("document.querySelector('.panel p a')?.textContent === 'All stages together'")
    here = page.run("location.href")
    page.open("about:blank")
    page.open(here)  # an open page hears of a new variant within ten seconds
    press_button(page, "Run again…")
    page.until(
        "document.querySelector('dialog[open] code')?.textContent === 'python -m core.cli loop spaces --variant=two --stage=base --run=w-2'"
    )
    assert {"base", "chat"} <= set(texts(page, "dialog[open] option"))
    press_button(page, "Cancel")
