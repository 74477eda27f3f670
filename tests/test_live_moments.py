"""How a run has learnt, in the live view: the answers of the server, and the slider in a real browser."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from browser import Browser
from conftest import PREPARE, TINY
from preparing import write
from test_live_page import READY, Shown, press_button, showing

from core.lab.loop import loop
from core.lab.opened import open_folder
from core.lab.training import Wish

ID = "experiments/spaces/default"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A run that has kept 0, 1, 2 and 6, and one that has kept nothing."""
    folder = tmp_path_factory.mktemp("moments")
    home = write(folder / "experiments" / "spaces", PREPARE, TINY)
    loop(open_folder(str(home), "", ["train.runtime.keep_checkpoints=4"]), Wish())
    loop(open_folder(str(home)), Wish("plain"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
        with showing(folder) as running:
            yield running


def ask(shown: Shown, what: str, **values: object) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"{shown.url}live/{what}?{urllib.parse.urlencode(values)}") as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_server_says_what_a_run_was_at_a_step(shown: Shown) -> None:
    assert ask(shown, "moments", id=ID) == (200, {"id": ID, "steps": [0, 1, 2, 6]})
    assert [one["step"] for one in ask(shown, "run", id=ID)[1]["moments"]] == [0, 1, 2, 6]
    found = [ask(shown, "moment", id=ID, step=step, prompt="ab: ")[1] for step in (0, 6)]
    assert [each["step"] for each in found] == [0, 6] and found[0]["prompt"] == "ab: "
    assert found[0]["attention"]["tokens"] == found[1]["attention"]["tokens"]
    assert found[0]["embedding"]["points"] != found[1]["embedding"]["points"]
    for values, status, message in (
        ({"step": 3, "prompt": "ab: "}, 400, "default has not kept step 3"),
        ({"step": 6, "prompt": "X"}, 400, "character 'X'"),
        ({"step": 6, "prompt": ""}, 400, "the prompt is empty"),
        ({"step": "x", "prompt": "a"}, 400, "step = 'x' is no whole number"),
        ({"id": "experiments/spaces/plain", "step": 6, "prompt": "a"}, 400, "has kept no steps on its way"),
        ({"id": "../x", "step": 6, "prompt": "a"}, 404, "there is no run"),
    ):
        code, body = ask(shown, "moment", **({"id": ID} | values))
        assert code == status and message in body["error"]["message"], (values, body)


def test_the_slider_moves_through_the_steps(shown: Shown, chromium: Browser) -> None:
    page = chromium.page(shown.whole)
    page.until(READY)
    page.run(f"location.hash = 'run={ID.replace('/', '%2F')}'")
    press_button(page, "Over time")
    page.until("document.querySelector('.moments output')?.textContent.startsWith('6 (4 of 4)')")
    page.until("document.querySelector('.moments .answer .text')")
    assert page.run("document.querySelectorAll('.moments canvas[aria-label]').length") == 2
    page.run("document.querySelector('.moments input[type=text]').value = 'ba: '")
    press_button(page, "Ask")
    page.until("document.querySelector('.moments .answer').textContent.startsWith('ba:')")
    pixels = "document.querySelectorAll('.moments canvas')[1].toDataURL()"
    last = page.run(pixels)
    page.run("document.querySelector('.moments input[type=range]').focus()")
    chromium.call("Input.dispatchKeyEvent", page.session, type="rawKeyDown", key="Home", code="Home", windowsVirtualKeyCode=36)  # fmt: skip
    page.until("document.querySelector('.moments output').textContent.startsWith('0 (1 of 4)')")
    page.until(f"!document.querySelector('.moments .answer.waiting') && {pixels} !== {json.dumps(last)}")
    page.run("document.querySelector('.moments input[type=text]').value = 'X'")
    press_button(page, "Ask")
    page.until("document.querySelector('.moments .error').textContent.includes(\"character 'X'\")")
    assert [text for text in page.complaints() if "400" not in text] == []
    page.run("location.hash = 'run=experiments%2Fspaces%2Fplain'")
    page.until("document.querySelector('#pane h1')?.textContent.includes('plain')")
    assert not page.run("[...document.querySelectorAll('[role=tab]')].some((one) => one.textContent === 'Over time')")  # fmt: skip


def test_the_picture_of_embeddings_zooms_about_a_place(shown: Shown, chromium: Browser) -> None:
    page = chromium.page(shown.whole)
    page.until(READY)
    page.run(f"location.hash = 'run={ID.replace('/', '%2F')}'")
    press_button(page, "Over time")
    page.until("document.querySelector('.cloud')?.getAttribute('aria-label')?.includes('step 6')")
    seen = "document.querySelector('.cloud').toDataURL()"
    turn = """(() => {
        const cloud = document.querySelector('.cloud'), edge = cloud.getBoundingClientRect();
        return cloud.dispatchEvent(new WheelEvent('wheel', { deltaY: -300, clientX: edge.left + 50, clientY: edge.top + 50, bubbles: true, cancelable: true }));
    })()"""
    whole = page.run(seen)
    assert page.run(turn) is True  # the page scrolls, as the picture was not clicked
    page.run("document.querySelector('.cloud').focus({ preventScroll: true })")
    assert page.run(turn) is False
    page.until(f"{seen} !== {json.dumps(whole)}")
    assert page.run("document.querySelector('.moments figcaption button').textContent") == "Whole picture"
    press_button(page, "Whole picture")
    page.until(f"{seen} === {json.dumps(whole)}")
    assert page.run("document.querySelector('.moments figcaption button').hidden")
    # A place stays where it is, and nothing beyond the whole is shown.
    found = page.run("""import('/live/page/cloud.js').then(({ freeNames, wholeOf, within, zoomed }) => {
        const whole = wholeOf(10), place = { x: 4, y: -2 }, close = zoomed(whole, 0.5, place, whole);
        const at = ({ x, y, half }) => [(place.x - x) / half, (place.y - y) / half];
        return { before: at(whole), after: at(close), half: close.half / whole.half, out: zoomed(close, 8, place, whole), whole,
            held: within({ x: 100, y: 0, half: whole.half / 4 }, whole).x / whole.half, free: freeNames(['a', 'b', 'c'], [[10, 10], [12, 11], [60, 60]], 14) };
    })""")
    assert found["before"] == pytest.approx(found["after"]) and found["half"] == 0.5
    assert found["out"] == found["whole"] and found["held"] == 0.75 and found["free"] == [True, False, True]
    assert page.complaints() == []
