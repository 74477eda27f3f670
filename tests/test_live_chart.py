"""The chart of the live page, in a real browser and without a server of runs. Skipped without Chromium."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
SERVE = Path(__file__).parents[1] / "core" / "serve"
CSP = "default-src 'self'"
HTML = b"""<!doctype html><title>chart</title><link rel="stylesheet" href="/page/theme.css"><link rel="stylesheet" href="/live/page/live.css"><div id="place"></div>"""


class Files(http.server.BaseHTTPRequestHandler):
    """The pages' files under the same policy as the real server's."""

    def do_GET(self) -> None:
        folder, _, name = self.path.rpartition("/")
        path = {"/page": SERVE / "page", "/live/page": SERVE / "live" / "page"}.get(folder, SERVE / "none") / name
        found = path.read_bytes() if path.is_file() else HTML
        kind = {".js": "text/javascript", ".css": "text/css"}.get(path.suffix, "text/html")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", CSP)
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    """A page 800 px wide, with chart.js as `c` and the chart that is looked at as `made`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = chromium.page(f"http://127.0.0.1:{server.server_port}/")
        found.run("document.body.style.cssText = 'display: block; width: 800px'; Promise.all(['chart', 'samples', 'words'].map(async (name) => { window[name[0]] = await import(`/live/page/${name}.js`); })).then(() => 0)")  # fmt: skip
        yield found
        assert found.complaints() == []
        server.shutdown()


def near(values: list[float]) -> Any:
    return pytest.approx(values, rel=1e-9)


def draw(page: Page, curves: list[dict[str, Any]], **options: Any) -> None:
    """Show a new chart, and wait until it is drawn."""
    page.run(f"""window.made?.forget(); window.made = c.chart('loss'); document.querySelector('#place').replaceChildren(made.element);
        made.show({json.dumps(curves)}, {json.dumps({"log": False, "smoothing": 0, "xName": "step", "legend": True} | options)});
        new Promise((resolve) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(resolve)), 30)).then(() => 0)""")


def curve(name: str = "wide", colour: int = 0, **fields: Any) -> dict[str, Any]:
    return {"id": name, "name": name, "colour": colour, "x": [0, 100, 200, 300, 400], "y": [8.0, 4.0, 2.0, 1.0, 0.5]} | fields  # fmt: skip


def painted(page: Page, number: int) -> int:
    """How many pixels of the canvas have the colour of a curve."""
    return int(
        page.run(f"""(() => {{
        const canvas = document.querySelector('canvas'), probe = document.createElement('i');
        document.body.append(probe); probe.style.color = 'var(--curve-{number})';
        const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number); probe.remove();
        const {{ data }} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let at = 0; at < data.length; at += 4) if (data[at] === r && data[at + 1] === g && data[at + 2] === b && data[at + 3] === 255) found++;
        return found;
    }})()""")
    )


def pointer(page: Page, kind: str, x: float, y: float = 100, **more: Any) -> None:
    edge = page.run("(() => { const at = document.querySelector('canvas').getBoundingClientRect(); return [at.left, at.top]; })()")  # fmt: skip
    page.call("Input.dispatchMouseEvent", type=kind, x=edge[0] + x, y=edge[1] + y, **more)
    page.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))).then(() => 0)")


def text_of(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector({json.dumps(selector)}).textContent"))


tell = functools.partial(text_of, selector=".chart-values")


def test_marks_on_the_axes(page: Page) -> None:
    assert page.run("c.ticks(0, 10, 5)") == [0, 2, 4, 6, 8, 10]
    assert page.run("c.ticks(0.13, 0.29, 4)") == near([0.15, 0.2, 0.25])
    assert page.run("c.ticks(-1, 1, 4)") == [-1, -0.5, 0, 0.5, 1] and page.run("c.ticks(5, 5, 4)") == [5]
    assert page.run("c.ticks(0.001, 1000, 8, true)") == near([10.0**power for power in range(-3, 4)])
    assert page.run("c.ticks(1, 20, 6, true)") == near([1, 2, 5, 10, 20])
    assert page.run("c.ticks(2.1, 2.9, 4, true)") == near([2.2, 2.4, 2.6, 2.8])
    found = page.run("[0, 0.25, 12345, 3.2e6, 0.00001, null, 1/0, -0.5].map(c.written)")
    assert found == ["0", "0.25", "12,345", "3.2M", "1.00e\u22125", "\u2013", "\u2013", "-0.5"]


def test_smoothing_and_extent(page: Page) -> None:
    assert page.run("c.smoothed([4, null, 2], 0)") == [4, None, 2]
    assert page.run("c.smoothed([4, null, 2, 2], 0.5)[1]") is None
    assert page.run("c.smoothed([4, null, 2, 2], 0.5).filter(Boolean)") == near([4, 8 / 3, 16 / 7])
    assert page.run("c.smoothed(Array(50).fill(3), 0.99).every((one) => Math.abs(one - 3) < 1e-9)")
    assert page.run("c.extent([{x: [1, 2], y: [null, -1]}, {x: [5], y: [3]}], false)") == near([2, 5, -1.24, 3.24])
    assert page.run("c.extent([{x: [1, 2], y: [1, -1]}], true)") == near([0, 1, 0.5, 2])
    assert page.run("c.extent([{x: [], y: []}], false)") is None
    assert page.run("[0.4, 9, -3, 2].map((value) => c.nearest([0, 1, 3], value))") == [0, 2, 0, 1]
    assert page.run("c.nearest([], 1)") == -1
    assert page.run("(() => { const at = c.scales([0, 10, 1, 100], {width: 800, height: 220}, true); return [at.fromX(at.x(3)), at.fromY(at.y(7))]; })()") == near([3, 7])  # fmt: skip


def test_what_has_changed_in_an_answer(page: Page) -> None:
    for before, now, part in (
        ("a b c", "a x c", [2, 3]),
        ("ab", "ab", None),
        ("aab", "ab", [1, 1]),
        ("", "moss", [0, 4]),
    ):
        assert page.run(f"s.changedPart({json.dumps(before)}, {json.dumps(now)})") == part


def test_figures_in_words(page: Page) -> None:
    assert page.run("[5, 65, 3700, 100000, null].map(w.duration)") == [
        "5 s",
        "1 min 5 s",
        "1 h 2 min",
        "1 d 4 h",
        "\u2013",
    ]
    assert page.run("[0.5, 1, 0, null].map(w.percent)") == ["50.0 %", "100 %", "0 %", "\u2013"]


def test_lines_bands_and_smoothing_are_painted(page: Page) -> None:
    draw(page, [curve(), curve("narrow", 1, y=[9.0, 7.0, 5.0, 4.0, 3.0])])
    assert painted(page, 0) > 300 and painted(page, 1) > 300 and painted(page, 2) == 0
    draw(page, [curve(low=[7, 3, 1, 0.5, 0.2], high=[9, 5, 3, 2, 1])])
    banded = page.run("(() => { const canvas = document.querySelector('canvas'); return canvas.getContext('2d').getImageData(canvas.width * 0.5, 0, 1, canvas.height).data.filter((one, at) => at % 4 === 3 && one > 20 && one < 90).length; })()")  # fmt: skip
    assert banded > 20
    draw(page, [curve(y=[8, 1, 8, 1, 8])], smoothing=0.9)
    pointer(page, "mouseMoved", 430)
    assert "(raw 8)" in tell(page)
    draw(page, [curve(y=[None] * 5)])
    assert painted(page, 0) == 0
    draw(page, [curve(x=[10], y=[3.0])])
    assert painted(page, 0) > 4  # one point is a dot


def test_values_under_the_pointer_and_by_keys(page: Page) -> None:
    draw(page, [curve(), curve("narrow", 1, x=[0, 100], y=[9.0, 7.0])])
    pointer(page, "mouseMoved", 245)
    assert tell(page) == "step 100narrow7wide4"
    pointer(page, "mouseMoved", 780)
    assert tell(page) == "step 400wide0.5"  # the other has not come so far
    page.run("document.querySelector('canvas').focus()")
    for key, said in (
        ("Home", "step 0narrow9wide8"),
        ("ArrowRight", "step 100narrow7wide4"),
        ("End", "step 400wide0.5"),
    ):
        page.run(
            f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}))"
        )
        page.run("new Promise(requestAnimationFrame).then(() => 0)")
        assert tell(page) == said
    label = page.run("document.querySelector('canvas').getAttribute('aria-label')")
    assert label.startswith("loss, by step. wide 0.5, narrow 7.")


def test_zoom_by_dragging_and_back(page: Page) -> None:
    draw(page, [curve()], log=True)
    assert page.run("document.querySelector('.chart-reset').hidden")
    pointer(page, "mousePressed", 240, button="left", buttons=1, clickCount=1)
    pointer(page, "mouseMoved", 420, button="left", buttons=1)
    pointer(page, "mouseReleased", 420, button="left", clickCount=1)
    assert not page.run("document.querySelector('.chart-reset').hidden")
    pointer(page, "mouseMoved", 90)
    assert tell(page).startswith("step 100")  # what was at 240 is now at the left
    pointer(page, "mousePressed", 300, button="left", clickCount=2)
    pointer(page, "mouseReleased", 300, button="left", clickCount=2)
    assert page.run("document.querySelector('.chart-reset').hidden")
    pointer(page, "mouseMoved", 70)
    assert tell(page).startswith("step 0")


def test_touch_reads_and_pinches(page: Page) -> None:
    draw(page, [curve()])
    touch = """(kind, id, x) => document.querySelector('canvas').dispatchEvent(new PointerEvent(kind, { pointerId: id, pointerType: 'touch', clientX: document.querySelector('canvas').getBoundingClientRect().left + x, clientY: 100, bubbles: true }))"""
    page.run(f"window.touch = {touch}; touch('pointerdown', 1, 245); new Promise(requestAnimationFrame).then(() => 0)")
    assert tell(page) == "step 100wide4"
    page.run("touch('pointerdown', 1, 300); touch('pointerdown', 2, 500); touch('pointermove', 2, 700); touch('pointerup', 2, 700); touch('pointerup', 1, 300); new Promise(requestAnimationFrame).then(() => 0)")  # fmt: skip
    assert not page.run("document.querySelector('.chart-reset').hidden")


def test_names_hide_curves(page: Page) -> None:
    draw(page, [curve(), curve("narrow", 1, y=[9.0, 7.0, 5.0, 4.0, 3.0])])
    page.click(".legend-entry")
    page.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))).then(() => 0)")
    assert painted(page, 0) == 0 and painted(page, 1) > 300
    assert page.run("document.querySelector('.legend-entry').getAttribute('aria-pressed')") == "false"


def test_ten_curves_of_a_thousand_points_are_quick(page: Page) -> None:
    """By the page's own computing time, which other programs on the machine do not change much: 50 ms on two busy cores."""
    page.call("Performance.enable")

    def computed() -> float:
        return float(next(one["value"] for one in page.call("Performance.getMetrics")["metrics"] if one["name"] == "ThreadTime"))  # fmt: skip

    before = computed()
    page.run("""(async () => {
        const x = Array.from({ length: 1000 }, (_, at) => at * 10);
        const curves = () => Array.from({ length: 10 }, (_, at) => ({ id: String(at), name: `run ${at}`, colour: at, x, y: x.map((one) => Math.exp(-one / 3000) + 0.05 * Math.random() + at * 0.02) }));
        for (let round = 0; round < 5; round++) { made.show(curves(), { smoothing: 0.6, log: true }); await new Promise(requestAnimationFrame); }
        return 0;
    })()""")
    assert (computed() - before) / 5 < 0.25
