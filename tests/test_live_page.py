"""The live page in a real browser, with the real server. Skipped without Chromium."""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

import uvicorn
from browser import CHROMIUM, Browser, Page
from chat_page import IDLE, say, texts
from conftest import PREPARE, TINY
from live import READ
from preparing import write

from core.lab.loop import loop
from core.lab.opened import open_folder
from core.lab.training import Wish
from core.serve.limits import Limits
from core.serve.server import Address, connection_type
from core.serve.setting_up import set_up

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
EVIL = "<script>document.title = 'bad'</script><img src=x onerror=\"document.title = 'bad'\">"
READY = "document.body?.classList.contains('ready')"
ROWS = "#runs .name a"


@dataclass(frozen=True)
class Shown:
    """A server with the live page. folder: what it was started in."""

    folder: Path
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def whole(self) -> str:
        """The address with the token, as it is printed."""
        return f"{self.url}#token={self.token}"

    @property
    def out(self) -> Path:
        return self.folder / "experiments" / "spaces" / "out"


@contextmanager
def showing(folder: Path, port: int = 0) -> Iterator[Shown]:
    """The server of a folder, in a thread."""
    site = set_up([], "", (), Limits(), Address("127.0.0.1", port), read=READ)
    config = uvicorn.Config(
        site.app,
        http=connection_type(Limits()),
        ws="none",
        lifespan="on",
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    found.listen(128)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
    thread.start()
    try:
        yield Shown(folder, found.getsockname()[1], site.token)
    finally:
        server.should_exit = True
        thread.join()
        found.close()


def another(out: Path, name: str, *, seed: int = 1337, width: int = 16, started: str = "2026-01-01T00:00:00") -> None:
    """A run with other figures, copied from `default`."""
    folder = out / name
    shutil.copytree(out / "default", folder, ignore=shutil.ignore_patterns("checkpoints", "*.png", "*.html"))
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"run": name, "seed": seed, "started": started, "best_val_loss": width / 10 + seed / 1000}
    (folder / "summary.json").write_text(json.dumps(summary))
    config = (folder / "config.toml").read_text()
    config = re.sub(r"(\[train\.runtime\][^\[]*?\nseed = )\d+", rf"\g<1>{seed}", config).replace(
        "n_embd = 16", f"n_embd = {width}"
    )
    (folder / "config.toml").write_text(config)


def train_first(folder: Path) -> Path:
    """A lab with an experiment `spaces` that has a run `default`. Returns its folder of runs."""
    home = write(folder / "experiments" / "spaces", PREPARE, TINY)
    loop(
        open_folder(str(home)),
        Wish(
            description=f"The first run. {EVIL}",
            command="terrarium loop spaces -s a.b=1 max_iters=3 --description 'not -s this' -s 'c=it '\\''is'\\'' x'",
        ),
    )
    return home / "out"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Five runs, of which two pairs differ by their seed alone."""
    folder = tmp_path_factory.mktemp("live")
    out = train_first(folder)
    write(folder / "experiments" / "addition", PREPARE, TINY)  # the first one, of which nothing was trained
    for width in (8, 24):
        for seed in (1, 2):
            another(out, f"width{width}-{seed}", width=width, seed=seed, started=f"2026-01-0{seed}T00:00:0{width % 8}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
        with showing(folder) as running:
            yield running


@pytest.fixture
def page(chromium: Browser, shown: Shown) -> Iterator[Page]:
    """The page, opened by the address with the token; at the end its console is empty, and it has asked no other machine."""
    found = chromium.page("about:blank")
    found.call("Network.enable")
    found.call("Page.navigate", url=shown.whole)
    found.until(READY)
    found.until("document.querySelectorAll('#runs .name').length")
    yield found
    assert found.complaints() == []
    asked = found.asked
    assert len(asked) > 10 and all(url.startswith((shown.url, "data:")) for url in asked), asked


def press_button(page: Page, words: str) -> None:
    """Click the button with these words."""
    found = f"[...document.querySelectorAll('button')].findLast((one) => one.textContent === {json.dumps(words)} && one.checkVisibility())"
    page.until(found)
    page.run(f"{found}.click()")


def key(page: Page, name: str) -> None:
    page.run(f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{ key: {json.dumps(name)}, bubbles: true, cancelable: true }}))")  # fmt: skip


def tick(page: Page, *names: str) -> None:
    for name in names:
        page.run(f"[...document.querySelectorAll('#runs .row')].find((row) => row.querySelector('.name a').textContent === {json.dumps(name)}).querySelector('input').click()")  # fmt: skip


def fill_in(page: Page, values: dict[str, str]) -> None:
    """Fill fields of the open question, by the beginnings of their labels."""
    page.until("document.querySelector('dialog[open] .field')")
    for label, value in values.items():
        page.run(f"""(() => {{
            const named = [...document.querySelectorAll('dialog[open] .field')].find((one) => one.firstChild.textContent.startsWith({json.dumps(label)}));
            const field = named.querySelector('input, textarea, select');
            field.value = {json.dumps(value)};
            field.dispatchEvent(new Event('input', {{ bubbles: true }}));
        }})()""")


def state(page: Page, wanted: str, seconds: float = 60) -> None:
    """Wait until the open run has a state."""
    page.until(f"document.querySelector('.run .state')?.textContent.includes({wanted!r})", seconds)


def test_runs_are_listed_and_one_is_opened_by_keys(page: Page, shown: Shown) -> None:
    assert page.run("location.href") == shown.url  # the token is out of sight
    assert set(texts(page, ROWS)) == {"default", "width8-1", "width8-2", "width24-1", "width24-2"}
    assert texts(page, ROWS)[0] == "default" and texts(page, "#count") == ["5 runs"]
    page.until("document.querySelector('#connection').textContent === '● live'")
    page.run("document.querySelector('#runs').focus()")
    key(page, "Enter")
    page.until("document.querySelector('#pane h1')?.textContent.includes('spaces/default')")
    assert EVIL in texts(page, ".about")[0] and page.run("document.querySelector('#pane img, #pane script')") is None
    page.until("document.querySelectorAll('#pane canvas').length >= 3")
    press_button(page, "Samples")
    page.until("document.querySelector('.samples tbody tr')")
    press_button(page, "Settings")
    page.until("document.querySelectorAll('.keys tr').length > 30")
    press_button(page, "Report")
    page.until("document.querySelector('iframe')")
    assert page.run("document.querySelector('iframe').getAttribute('sandbox')") == ""
    press_button(page, "Curves")
    key(page, "Escape")
    page.until("document.querySelector('.compare')")
    assert page.run("document.title") == "Terrarium"


def test_ticked_runs_are_compared(page: Page) -> None:
    for _ in range(2):
        page.run("document.querySelector('#runs').focus()")
        key(page, "ArrowDown")
        key(page, " ")
    page.until("document.querySelectorAll('.names a').length === 2")
    page.until("document.querySelector('.verdict p')")
    press_button(page, "Untick all")
    tick(page, "width8-1", "width24-1")
    page.until("document.querySelector('.settings')?.textContent.includes('train.model.n_embd')")
    assert texts(page, ".settings td")[:3] == ["train.model.n_embd", "8", "24"]
    page.until("document.querySelectorAll('.verdict p, .verdict td').length > 2")
    tick(page, "width8-2", "width24-2")
    page.run(
        "[...document.querySelectorAll('.tools input')].find((one) => one.parentElement.textContent.includes('seeds')).click()"
    )
    page.until("document.querySelector('.charts figure:first-child .legend-entry')?.textContent.includes('2 seeds')")
    assert len(texts(page, ".charts figure:first-child .legend-entry")) == 2
    page.open(page.run("location.href"))  # ticks stay
    page.until("document.querySelectorAll('.names a').length === 4")
    press_button(page, "Untick all")


def test_a_filter_and_what_an_empty_list_says(page: Page) -> None:
    key(page, "/")
    page.until("document.activeElement.id === 'text'")
    page.type("width24")
    page.until("document.querySelector('#count').textContent === '2 runs'")
    assert texts(page, ROWS) == ["width24-2", "width24-1"]
    page.run("document.activeElement.select()")
    page.type("nothing is called so")
    page.until("!document.querySelector('#none').hidden")
    assert texts(page, ROWS) == [] and texts(page, "#none p") == ["No run is like this."]
    press_button(page, "Show all runs")
    page.until("document.querySelector('#count').textContent === '5 runs'")
    page.until("document.querySelectorAll('#runs .name a').length === 5")
    assert page.run("document.querySelector('#text').value") == ""


def test_notes_are_kept_and_a_run_is_removed_after_a_question(page: Page, shown: Shown) -> None:
    another(shown.out, "doomed", started="2026-02-01T00:00:00")
    page.until("[...document.querySelectorAll('#runs .name a')].some((one) => one.textContent === 'doomed')")
    page.run("location.hash = 'run=experiments%2Fspaces%2Fdoomed'")
    press_button(page, "☆ Star")
    press_button(page, "★ Starred")
    press_button(page, "☆ Star")
    press_button(page, "Tags…")
    page.run(
        "document.querySelector('dialog[open] input').value = 'good, <b>bold</b>'; document.querySelector('dialog[open] form').requestSubmit()"
    )
    page.until("document.querySelectorAll('.about .tag').length === 2")
    assert texts(page, ".about .tag") == ["good", "<b>bold</b>"]
    page.until("document.querySelectorAll('#tag option').length === 3")
    press_button(page, "Describe…")
    page.run(
        f"document.querySelector('dialog[open] textarea').value = {json.dumps(EVIL)}; document.querySelector('dialog[open] form').requestSubmit()"
    )
    page.until("document.querySelector('.about')?.textContent.includes('onerror')")
    press_button(page, "Remove…")
    page.until("document.querySelector('dialog[open] li')")
    assert texts(page, "dialog[open] li") == ["spaces/doomed"]
    press_button(page, "Cancel")
    assert (shown.out / "doomed").is_dir()
    press_button(page, "Remove…")
    press_button(page, "Remove for good")
    page.until("document.querySelector('#count').textContent === '5 runs'")
    assert not (shown.out / "doomed").exists()
    assert page.run("document.title").startswith(("doomed", "Terrarium"))


def test_without_the_token_there_are_no_buttons_that_change(chromium: Browser, shown: Shown) -> None:
    page = chromium.page(f"{shown.url}#run=experiments%2Fspaces%2Fdefault")
    page.until("document.querySelector('.run .buttons')")
    assert page.run("document.querySelector('#start').hidden && document.querySelector('#jobs').hidden")
    assert texts(page, ".run .buttons > *") == ["Chat", "Copy command"]
    assert page.run("document.querySelectorAll('button.star').length") == 0
    for token, said in (("another", "!document.querySelector('#toast').hidden"), (shown.token, "document.querySelector('button.star')")):  # fmt: skip
        press_button(page, "read only")
        page.run("document.querySelector('#token').focus()")
        page.type(token)
        page.press("Enter")
        page.until(said)
    assert texts(page, "#toast") == ["This is not the token of this server."]
    page.until("document.querySelectorAll('.run .buttons > *').length > 5")
    assert page.run("document.querySelector('#read-only').hidden && !document.querySelector('#start').hidden")
    assert page.complaints() == []


def test_a_run_is_started_again_with_its_settings(page: Page) -> None:
    page.run("location.hash = 'run=experiments%2Fspaces%2Fdefault'")
    press_button(page, "Run again…")
    page.until("document.querySelector('dialog[open] textarea')")
    assert page.run("document.querySelector('dialog[open] textarea').value") == "a.b=1\nmax_iters=3\nc=it 'is' x"
    page.until("document.querySelector('dialog[open] .error:not([hidden])')?.textContent.includes(\"unknown key 'c'\")")
    assert not page.run("document.querySelector('dialog[open] code').checkVisibility()")  # there is no command
    fill_in(page, {"Settings": "max_iters=4"})
    page.until("document.querySelector('dialog[open] code').textContent.endsWith('loop spaces --run=default-2 -s max_iters=4')")  # fmt: skip
    fill_in(page, {"Name": "", "Settings": "max_iters=4", "More options": "--run 'a b' learning_rate=0.5"})
    page.until(
        "document.querySelector('dialog[open] code').textContent.endsWith(\"loop spaces -s max_iters=4 --run 'a b' learning_rate=0.5\")"
    )
    press_button(page, "Cancel")


def test_an_error_stands_once_and_a_job_that_fails_is_told(
    chromium: Browser, shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = chromium.page(shown.whole)
    page.until(READY)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho first\necho error: place: what is wrong\necho '  A remedy.'\nexit 2\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    press_button(page, "Start a run…")
    fill_in(page, {"Settings": "max_iter=4"})
    wrong = "[...document.querySelectorAll('dialog[open] .error')].map((one) => one.checkVisibility() && one.textContent).filter(Boolean)"
    page.until(f"{wrong}.length")
    press_button(page, "Start")
    page.until("!document.querySelector('dialog[open] .main').disabled")
    [said] = page.run(wrong)
    assert "unknown key 'max_iter'" in said
    fill_in(page, {"Settings": "", "Name": "never"})
    page.until(f"!{wrong}.length")
    press_button(page, "Start")
    page.until("document.querySelector('#toast.bad:not([hidden])')")
    assert texts(page, "#toast span") == ["spaces/never has failed. place: what is wrong A remedy."]
    assert texts(page, "#jobs.failed") == ["1 job failed"]
    press_button(page, "Show")
    page.until("document.querySelector('dialog[open] .job')")
    press_button(page, "Close")
    page.until("document.querySelector('#jobs:not(.failed)')?.textContent === 'Jobs'")


@pytest.mark.parametrize("width", [360, 810, 1280])
def test_names_and_figures_stay_in_their_cells_and_groups_are_in_order(
    chromium: Browser, shown: Shown, width: int
) -> None:
    names = ("n_embd64-seed1", "n_embd64-learning_rate0.00001-seed12", "a_name_that_no_line_has_room_for")
    try:
        for name in names:
            another(shown.out, name, started="2026-02-01T00:00:00")
            summary = json.loads((shown.out / name / "summary.json").read_text()) | {"best_val_loss": 0.003286}
            (shown.out / name / "summary.json").write_text(json.dumps(summary))
            (shown.out / name / "metrics.csv").write_text("step,val_loss,val_accuracy/9 letters,val_accuracy/12 letters,val_accuracy/2 letters\n1,1,0,1,0\n2,1,0,1,0\n")  # fmt: skip
        page = chromium.page(shown.whole, width=width)
        page.until(READY)
        page.until("document.querySelector('#count').textContent === '8 runs'")
        beyond = page.run("""[...document.querySelectorAll('#runs .row')].flatMap((row) => [...row.querySelectorAll('.name a, .name small, .number')]
            .filter((one) => one.checkVisibility())
            .filter((one) => { const [inner, outer] = [one.getBoundingClientRect(), row.getBoundingClientRect()]; return inner.top < outer.top || inner.bottom > outer.bottom || inner.right > outer.right || one.matches('.number') && one.scrollWidth > one.clientWidth; })
            .map((one) => one.textContent))""")
        assert beyond == [] and "0.00329" in texts(page, "#runs .number")
        page.run(f"location.hash = 'run=experiments%2Fspaces%2F{names[0]}'")
        page.until("document.querySelectorAll('.legend-entry').length >= 3")
        legend = [text for text in texts(page, ".legend-entry") if "letters" in text]
        assert legend == ["2 letters", "9 letters", "12 letters"]
        assert page.complaints() == []
    finally:
        for name in names:
            shutil.rmtree(shown.out / name, ignore_errors=True)


def test_dark_on_a_phone(chromium: Browser, shown: Shown) -> None:
    page = chromium.page(shown.whole, width=360, height=740, dark=True)
    page.until(READY)
    for place in ("", "curves", "run=experiments%2Fspaces%2Fdefault"):
        page.run(f"location.hash = {place!r}")
        page.until(
            "document.querySelector('#runs').checkVisibility()"
            if not place
            else "document.querySelector('#pane canvas')"
        )
        assert page.run("document.documentElement.scrollWidth") <= 360
    press_button(page, "Start a run…")
    page.until("document.querySelector('dialog[open] code')?.textContent === 'python -m core.cli loop spaces'")
    assert page.run("document.querySelector('dialog[open]').scrollWidth") <= 360
    page.run("document.querySelector('dialog select:nth-child(2)')?.focus()")
    assert page.complaints() == []


def test_a_server_that_goes_and_comes_back(chromium: Browser, shown: Shown) -> None:
    with showing(shown.folder) as other:
        page = chromium.page(other.url)
        page.until("document.querySelector('#connection').textContent === '● live'")
        port = other.port
    page.until("document.querySelector('#trouble').textContent.includes('does not answer')")
    assert texts(page, "#connection") == ["○ not connected"] and len(texts(page, ROWS)) == 5
    with showing(shown.folder, port):
        page.until("document.querySelector('#connection').textContent === '● live'", 30)
        assert page.run("document.querySelector('#trouble').hidden")
        page.call("Page.navigate", url="about:blank")


@pytest.mark.slow
def test_a_run_is_started_watched_compared_and_chatted_with(page: Page, shown: Shown) -> None:
    press_button(page, "Start a run…")
    fill_in(page, {"Name": "started", "Description": "From the page", "Settings": "train.schedule.max_iters=400\ntrain.runtime.eval_interval=20"})  # fmt: skip
    said = "python -m core.cli loop spaces '--description=From the page' --run=started -s train.schedule.max_iters=400 -s train.runtime.eval_interval=20"
    page.until(f"document.querySelector('dialog[open] code').textContent === {json.dumps(said)}")
    press_button(page, "Start")
    page.until("[...document.querySelectorAll('#runs .name a')].some((one) => one.textContent === 'started')", 90)
    page.run("location.hash = 'run=experiments%2Fspaces%2Fstarted'")
    page.until("document.querySelector('.run .progress')", 60)  # while it runs
    page.until("document.querySelectorAll('#pane canvas').length >= 3", 60)
    page.until("document.querySelector('.run .state')?.textContent.includes('completed')", 240)
    page.until("document.querySelector('#jobs').textContent === 'Jobs'", 120)  # sampled, and the report is written
    with (shown.out / "started" / "metrics.csv").open() as file:
        assert int(list(csv.DictReader(file))[-1]["step"]) == 400
    press_button(page, "Log")
    page.until("document.querySelector('.log')?.textContent.length > 100")
    page.run("location.hash = ''")
    tick(page, "started", "default")
    page.until("document.querySelector('.verdict p')")
    page.until("document.querySelector('.settings')?.textContent.includes('train.schedule.max_iters')")
    press_button(page, "Untick all")
    page.run("location.hash = 'run=experiments%2Fspaces%2Fstarted'")
    page.until("document.querySelector('a.button')")
    page.click("a.button")
    page.until("document.querySelector('#model')?.value === 'spaces/started' && document.querySelector('.empty .size')?.textContent.includes('sees')", 60)  # fmt: skip
    page.until(IDLE)
    say(page, "ab: ")
    assert texts(page, ".said")[1].strip() and texts(page, ".note.error") == []
    shutil.rmtree(shown.out / "started")


@pytest.mark.slow
def test_a_run_is_stopped_and_goes_on(page: Page, shown: Shown) -> None:
    folder = shown.out / "long"
    press_button(page, "Start a run…")
    settings = "train.schedule.max_iters=1000000\ntrain.runtime.log_interval=10\ntrain.runtime.eval_interval=1000000\ntrain.runtime.checkpoint_interval=1000000"
    fill_in(page, {"What to do": "train", "Name": "long", "Settings": settings})
    press_button(page, "Start")
    page.until("document.querySelector('#jobs').textContent === '1 job running'")
    page.until("[...document.querySelectorAll('#runs .name a')].some((one) => one.textContent === 'long')", 90)
    page.run("location.hash = 'run=experiments%2Fspaces%2Flong'")
    steps = []
    for button in ("Stop", "Go on", "Stop"):
        if button == "Stop":
            state(page, "running")
            after = steps[-1] if steps else 0  # further than what was saved
            page.until(f"Number(document.querySelector('.facts dd').textContent.split(' of ')[0].replaceAll(',', '')) > {after}", 60)  # fmt: skip
            press_button(page, "Stop")
            press_button(page, "Stop it")
            state(page, "interrupted")
            page.until("document.querySelector('#jobs').textContent === 'Jobs'")  # no failure
            steps.append(json.loads((folder / "checkpoints" / "last" / "state.json").read_text())["step"])
        else:
            press_button(page, "Go on")
    with (folder / "metrics.csv").open() as file:
        known = [int(row["step"]) for row in csv.DictReader(file)]
    assert 0 < steps[0] < steps[1] < 1_000_000 and known == sorted(set(known)) and known[0] == 10
    press_button(page, "Log")
    page.until("document.querySelector('.log')?.textContent.includes('interrupted, and saved')")
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_sweep_is_started_and_its_table_seen(page: Page, shown: Shown) -> None:
    press_button(page, "Start a run…")
    fill_in(page, {"What to do": "sweep", "Name": "widths", "Seeds": "0..1", "Grid": "train.model.n_embd=8,16", "Description": "How wide?"})  # fmt: skip
    said = "python -m core.cli sweep spaces --seeds=0..1 --grid=train.model.n_embd=8,16 '--description=How wide?' --name=widths"
    page.until(f"document.querySelector('dialog[open] code').textContent === {json.dumps(said)}")
    press_button(page, "Start")
    page.until("[...document.querySelectorAll('#runs .name')].filter((one) => one.textContent.includes('sweep widths')).length === 4", 240)  # fmt: skip
    page.run("[...document.querySelectorAll('#runs .name')].find((one) => one.textContent.includes('sweep widths')).querySelector('a').click()")  # fmt: skip
    press_button(page, "Sweep")
    page.until("[...document.querySelectorAll('.points tbody tr')].filter((one) => one.textContent.includes('completed')).length === 4", 120)  # fmt: skip
    assert texts(page, ".points th")[:5] == ["run", "n_embd", "seed", "validation loss", "exact match (test)"]
    rows = page.run("[...document.querySelectorAll('.points tbody tr')].map((row) => [...row.children].map((one) => one.textContent))")  # fmt: skip
    assert {(row[1], row[2]) for row in rows} == {("8", "0"), ("8", "1"), ("16", "0"), ("16", "1")}
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)
    page.until("document.querySelector('#jobs').textContent === 'Jobs'", 60)
    page.click("#jobs")
    page.until("document.querySelector('dialog[open] .job')")
    assert texts(page, ".job p")[0] == "spaces/sweeps/widths: done " and "sweep" in texts(page, ".job code")[0]
    press_button(page, "Close")
    for folder in shown.out.glob("sweep-widths-*"):
        shutil.rmtree(folder)
    shutil.rmtree(shown.out / "sweeps")


@pytest.mark.slow
def test_a_thousand_runs(chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the rows in view are elements, and the last row is a key away."""
    out = train_first(tmp_path)
    for number in range(1000):
        another(out, f"run{number:04}", started=f"2026-01-01T00:{number // 60:02}:{number % 60:02}")
    monkeypatch.chdir(tmp_path)
    with showing(tmp_path) as running:
        page = chromium.page(running.url)
        page.until("document.querySelectorAll('#runs .name').length > 5")
        begun = time.monotonic()
        page.open(f"{running.url}?again")
        page.until("document.querySelectorAll('#runs .name').length > 5")
        assert time.monotonic() - begun < 5  # a quiet machine takes less than one second
        page.run("document.querySelector('#runs').focus()")
        key(page, "End")
        page.until("[...document.querySelectorAll('#runs .name a')].some((one) => one.textContent === 'run0000')")
        assert page.run("document.querySelectorAll('#runs .row').length") < 60
        assert page.complaints() == []
