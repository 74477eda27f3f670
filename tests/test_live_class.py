"""The live page of several folders in a real browser: the board, runs that are removed elsewhere, a hidden tab. Skipped without Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from browser import CHROMIUM, Browser, Page
from chat_page import texts
from live import TOKEN, showing, write_experiment, write_run
from test_live_page import READY, ROWS, press_button, tick

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
CLASS = {"anna": (32, [0.9, 0.91, 0.92]), "ben": (16, [0.99]), "cleo": (64, [0.3, 0.4])}
HIDE = "Object.defineProperty(document, 'hidden', { get: () => %s, configurable: true }); document.dispatchEvent(new Event('visibilitychange'))"  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those of three people: runs of one setting each, with some seeds."""
    found = tmp_path_factory.mktemp("class")
    for name, (width, accuracies) in CLASS.items():
        experiment = write_experiment(found / name / "experiments" / "spaces")
        for seed, accuracy in enumerate(accuracies):
            facts = {"seed": seed, "accuracy": accuracy, "prompts": 100, "side": "test"}
            write_run(experiment, f"s{seed}", (f"train.model.n_embd={width}",), **facts)
    return found


@pytest.fixture(scope="module")
def url(folders: Path) -> Iterator[str]:
    with showing(*(str(folders / name) for name in CLASS)) as server:
        yield f"http://127.0.0.1:{server.port}/#token={TOKEN}"


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The page; at the end its console is empty, and it has asked no other machine."""
    found = chromium.page("about:blank")
    found.call("Network.enable")
    found.call("Page.navigate", url=url)
    found.until(READY)
    found.until("document.querySelectorAll('#runs .name').length")
    found.until("document.querySelector('#connection').textContent === '● live'")
    yield found
    # A run may be asked for in the second in which it is removed.
    assert [text for text in found.complaints() if "404" not in text] == []
    assert all(each.startswith((url.partition("#")[0], "data:")) for each in found.asked)


def test_the_board_leads_to_its_runs(page: Page) -> None:
    page.run("document.querySelector('#board-link').click()")
    page.until("document.querySelectorAll('.board-table tbody tr').length === 3")
    assert texts(page, ".board-table td:nth-child(2)") == ["anna", "cleo", "ben"]  # one seed stands last
    assert texts(page, ".board-table td:nth-child(3)") == [f"spaces: n_embd={width}" for width in (32, 64, 16)]
    assert texts(page, ".board-table th")[1:4] == ["folder", "entry", "exact match (test)"]
    assert texts(page, ".interval > span:last-child")[2] == "99.0 %, one seed: no interval"
    assert not page.run("document.querySelector('#list').checkVisibility()")
    page.run("const by = document.querySelector('.board select'); by.value = 'target'; by.onchange()")
    page.until("document.querySelector('.board-table th:nth-child(4)')?.textContent === 'time to target'")
    page.run("document.querySelector('.board-table a').click()")
    page.until("document.querySelector('#pane h1')?.textContent.startsWith('anna/spaces/s0')")
    assert page.run("document.querySelector('#list').checkVisibility()")


def test_what_is_on_top_of_the_list_has_its_name(page: Page) -> None:
    page.until("document.querySelector('#pane h1')?.textContent === 'The newest runs'")
    for title in ("The lowest validation losses", "The highest validation losses"):
        page.run("document.querySelector('.sorts button[value=val_loss]').click()")
        page.until(f"document.querySelector('#pane h1').textContent === {title!r}")
    page.run("document.querySelector('.sorts button[value=run]').click()")
    page.until("document.querySelector('#pane h1').textContent === 'The first runs of the list'")
    page.run("document.querySelector('.sorts button[value=started]').click()")


def test_a_run_that_is_removed_elsewhere_loses_its_tick(page: Page, folders: Path) -> None:
    experiment = folders / "anna" / "experiments" / "spaces"
    going = [write_run(experiment, name, started=f"2026-02-0{at}T00:00:00") for at, name in enumerate(("one", "two"), 1)]  # fmt: skip
    page.until("[...document.querySelectorAll('#runs .name a')].some((one) => one.textContent === 'two')")
    tick(page, "one", "two", "s0")
    page.until("document.querySelectorAll('.names a').length === 3")
    page.until("document.querySelector('.verdict p')")
    shutil.rmtree(going[0])
    page.until("document.querySelectorAll('.names a').length === 2")
    assert texts(page, "#toast") == ["No longer there: one."] and texts(page, "#pane .error") == []
    page.until("document.querySelector('.verdict p')")
    here = page.run("location.href")
    page.open("about:blank")
    shutil.rmtree(going[1])
    page.open(here)  # the tick was kept by the browser
    page.until("document.querySelectorAll('.names a').length === 1")
    assert texts(page, ".names a") == ["s0"] and texts(page, "#pane .error") == []
    press_button(page, "Untick all")


def test_a_hidden_tab_asks_for_nothing_and_catches_up(page: Page, folders: Path) -> None:
    page.run(HIDE % "true")
    page.until("document.querySelector('#connection').textContent === '‖ paused'")
    before = len(page.asked)
    write_run(folders / "ben" / "experiments" / "spaces", "meanwhile", started="2026-03-01T00:00:00")
    page.run("new Promise((resolve) => setTimeout(resolve, 2500))")  # the server looks every second
    assert len(page.asked) == before and "meanwhile" not in texts(page, ROWS)
    page.run(HIDE % "false")
    page.until("[...document.querySelectorAll('#runs .name a')].some((one) => one.textContent === 'meanwhile')")
    page.until("document.querySelector('#connection').textContent === '● live'")


def test_what_keeps_runs_from_being_shown_is_told(page: Page, folders: Path) -> None:
    odd = folders / "anna" / "experiments" / "spaces" / "out" / os.fsdecode(b"bad\xff")
    assert not page.run("document.querySelector('#problems').checkVisibility()")
    odd.mkdir()
    page.until("document.querySelector('#problems').checkVisibility()")
    assert texts(page, "#problems p") == [r"⚠ anna/spaces: left out, as their names are no text: 'bad\udcff'"]
    odd.rmdir()
    page.until("!document.querySelector('#problems').checkVisibility()")


def test_a_lab_that_has_gone_is_told(chromium: Browser, tmp_path: Path) -> None:
    home = write_experiment(tmp_path / "dora" / "experiments" / "spaces").parent
    with showing(str(tmp_path / "dora")) as server:
        shutil.rmtree(home)
        page = chromium.page(f"http://127.0.0.1:{server.port}/#token={TOKEN}")
        page.until(READY)
        page.until("document.querySelector('#problems').checkVisibility()")
        [told] = texts(page, "#problems p")
        assert told.startswith("⚠ experiments: ") and "cannot be read: No such file or directory" in told
        assert texts(page, "#none p") == ["No experiment can be read. Above is what is wrong."]
        assert page.complaints() == []
