"""The chat page in a real browser, before a server that says what a test wants. Skipped without Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

import uvicorn
from browser import CHROMIUM, Browser, Page
from chat_page import IDLE, READY, say, texts, write
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
FILES = Path(__file__).parents[1] / "core" / "serve" / "page"
CSP = {"Content-Security-Policy": "default-src 'self'"}
TOKEN = "leaf green"


@dataclass
class Fake:
    """A server. requests: the bodies it got. gone: answers whose client went away. token: "" asks for none."""

    url: str = ""
    token: str = ""
    models_fail: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    gone: int = 0

    async def page(self, request: Request) -> Response:
        return FileResponse(FILES / "index.html", headers=CSP)

    async def models(self, request: Request) -> Response:
        if self.models_fail:
            return failure("the models are being loaded", 503)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return failure("the token is missing or wrong", 401)
        meta = {"n_vocab": 300, "n_ctx_train": 256, "n_params": 1234567}
        kinds = {"frog/default/chat": True, "spaces": False}
        data = [
            {"id": name, "object": "model", "created": 1, "owned_by": "terrarium", "meta": meta | {"chat": chat}}
            for name, chat in kinds.items()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def answer(self, request: Request) -> Response:
        """What the last text asks for: see `pieces`."""
        body = await request.json()
        self.requests.append(body)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return failure("the token is missing or wrong", 401)
        text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        if text == "refuse":
            return failure("messages: 900 tokens do not fit the 256 that frog sees", 400)
        if text == "crash":
            return Response("Internal Server Error", 500)
        return StreamingResponse(self.pieces(text, "messages" in body, len(self.requests)), media_type="text/event-stream")  # fmt: skip

    async def pieces(self, text: str, chat: bool, number: int) -> AsyncIterator[bytes]:
        """The bytes of a stream."""

        def event(piece: str, *calls: Any) -> bytes:
            choice = {"delta": {"content": piece} | ({"calls": calls} if calls else {})} if chat else {"text": piece}
            return f"data: {json.dumps({'choices': [choice | {'finish_reason': None}]}, ensure_ascii=False)}\n\n".encode()  # fmt: skip

        if text == "slow":
            try:
                for count in range(2000):
                    yield event(f"leaf {count} ")
                    await asyncio.sleep(0.01)
            finally:
                self.gone += 1
            return
        if text == "break":
            yield event("half a ")
            yield b'data: {"error": {"message": "the model has no memory left", "type": "server_error"}}\n\n'
            return
        if text.startswith("call"):  # two calls of tools, and with "call" alone an answer behind them
            yield event("Äh 🐸 ")
            yield event(
                "", {"call": "calculator 3*4", "result": "12", "at": 5}, {"call": "up <b>", "result": "<B>\n!", "at": 5}
            )
            if text == "call":
                yield event("It is ")
                yield event("12.")
            text = "nothing more"
        if text == "wordless":
            yield b'data: {"error": {}}\n\n'
            return
        if text == "wait":
            yield b": nothing yet\r\n\r\n"
            await asyncio.sleep(20)
        if text == "lose":
            yield event("half a ")
            return
        said = {"empty": [], "nothing more": [], "halves": ["Äpf", "el 🐸 ", "grün"], "nonsense": []}.get(text, [f"{number}: ", *re.findall(r"\S+\s*", text)])  # fmt: skip
        if text == "nonsense":
            yield b"data: {nothing\n\n"
        for piece in said:
            data = event(piece)
            for at in range(0, len(data), 7) if text == "halves" else [0]:
                yield data[at : at + 7] if text == "halves" else data
                await asyncio.sleep(0.002 if text == "halves" else 0)
        choice = {"delta": {}, "text": "", "finish_reason": "length" if text == "long" else "stop"}
        timings = {"prompt_n": 9, "predicted_n": 12, "predicted_ms": 60, "predicted_per_second": 203.4,
                   "left_out": {"much": 1234, "bit": 1}.get(text, 0)}  # fmt: skip
        yield f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
        yield f"data: {json.dumps({'choices': [], 'usage': {}, 'timings': timings})}\n\ndata: [DONE]\n\n".encode()


def failure(message: str, status: int) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)


class WithPolicy:
    """ASGI: every answer has the policy that the real server sends."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = [(name.lower().encode(), value.encode()) for name, value in CSP.items()]
                message["headers"] = [pair for pair in message["headers"] if pair[0] != policy[0][0]] + policy
            await send(message)

        await self.app(scope, receive, guarded)


@contextlib.contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """The fake server, in a thread."""
    routes = [
        Route("/", fake.page),
        Mount("/page", StaticFiles(directory=FILES)),
        Route("/v1/models", fake.models),
        Route("/v1/chat/completions", fake.answer, methods=["POST"]),
        Route("/v1/completions", fake.answer, methods=["POST"]),
    ]
    config = uvicorn.Config(WithPolicy(Starlette(routes=routes)), port=0, ws="none", http="h11", loop="asyncio",
                            lifespan="off", log_level="warning", timeout_graceful_shutdown=1)  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield fake
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with serving(Fake()) as fake:
        yield fake


@pytest.fixture
def page(chromium: Browser, server: Fake) -> Iterator[Page]:
    """The page with nothing kept yet. At the end its console has to be empty, but for refusals that a test wanted."""
    server.requests.clear()
    found = chromium.page(server.url)
    found.until(READY)
    yield found
    assert [line for line in found.complaints() if not re.search("status of [45]", line)] == []


def text_of(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector({json.dumps(selector)}).textContent"))


def press(page: Page, label: str) -> None:
    """Click the last button with this text."""
    page.run(f"[...document.querySelectorAll('button')].filter((one) => one.textContent === {json.dumps(label)}).at(-1).click()")  # fmt: skip


def change(page: Page, selector: str, value: str) -> None:
    """Give a field a value, as a person does."""
    page.run(f"{{ const one = document.querySelector({json.dumps(selector)}); one.value = {json.dumps(value)};"
             "one.dispatchEvent(new Event('input')); one.dispatchEvent(new Event('change')); }")  # fmt: skip


def test_the_page_is_its_own_files_only() -> None:
    """No inline script or style, and nothing from elsewhere; no text is ever inserted as HTML."""
    html = (FILES / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", html)
    for path in FILES.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path


def test_a_talk_is_sent_whole_and_kept(page: Page, server: Fake) -> None:
    change(page, "#temperature", "0.3")
    change(page, "#top-k", "40")
    change(page, "#seed", "7")
    change(page, "#system", "Be brief.")
    say(page, "hello there")
    say(page, "much")
    assert texts(page, ".said") == ["hello there", "1: hello there", "much", "2: much"]
    body = server.requests[-1]
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "1: hello there"},
        {"role": "user", "content": "much"},
    ]
    del body["messages"]
    assert body == {"model": "frog/default/chat", "temperature": 0.3, "top_k": 40, "seed": 7, "show_calls": True,
                    "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    status = "frog/default/chat · 12 tokens · 203 tokens/s · the oldest 1,234 turns no longer fit"
    assert text_of(page, "#status") == status and text_of(page, "#heard") == "2: much"
    say(page, "bit")
    assert text_of(page, "#status").endswith(" · the oldest turn no longer fits")
    page.open(server.url)
    page.until(READY)
    page.click("#chats .title")
    assert texts(page, ".said") == ["hello there", "1: hello there", "much", "2: much", "bit", "3: bit"]
    assert page.run("document.querySelector('#system').value") == "Be brief."
    assert page.run("['temperature', 'top-k', 'seed'].map((id) => document.getElementById(id).value)") == ["0.3", "40", "7"]  # fmt: skip


def test_characters_and_lines_that_arrive_in_halves(page: Page) -> None:
    say(page, "halves")
    assert texts(page, ".said")[-1] == "Äpfel 🐸 grün"


def test_what_is_said_stays_text(page: Page) -> None:
    evil = "<img src=x onerror=\"document.title='bad'\"><script>document.title='bad'</script>"
    say(page, evil)
    assert texts(page, ".said") == [evil, f"1: {evil}"] and texts(page, "#chats .title") == [evil[:60]]
    assert page.run("document.querySelector('#log img, #chats img, #log script')") is None
    assert page.run("document.title") == "Terrarium"


@pytest.mark.parametrize("way", ["escape", "button", "leaving"])
def test_a_stopped_answer_stays(page: Page, server: Fake, way: str) -> None:
    gone = server.gone
    write(page, "slow")
    page.until("document.querySelector('.writing .said')?.textContent.includes('leaf 5')")
    if way == "leaving":
        page.open(server.url)
        page.until(READY)
        page.click("#chats .title")
    else:
        page.press("Escape") if way == "escape" else page.click("#stop")
        page.until(IDLE)
    assert texts(page, ".said")[1].startswith("leaf 0 leaf 1") and texts(page, ".note") == ["(stopped)"]
    end = time.monotonic() + 10
    while server.gone == gone:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_answer_is_stopped_before_it_begins(page: Page) -> None:
    write(page, "wait")
    page.until("document.querySelector('.writing')")
    page.press("Escape")
    page.until(IDLE)
    assert texts(page, ".note") == ["(stopped before the answer began)"]


def test_an_answer_is_copied(page: Page) -> None:
    say(page, "moss")
    page.run("Object.defineProperty(navigator, 'clipboard', { configurable: true, value: { writeText: async (text) => { window.copied = text; } } }); 0")  # fmt: skip
    press(page, "Copy")
    page.until("!document.querySelector('#toast').hidden")
    assert page.run("window.copied") == "1: moss" and text_of(page, "#toast") == "Copied."
    page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined }); 0")
    press(page, "Copy")
    assert text_of(page, "#toast") == "The browser does not let this page copy. Select the text instead."


def test_a_message_is_edited_and_an_answer_given_again(page: Page, server: Fake) -> None:
    say(page, "one")
    say(page, "two")
    press(page, "Regenerate")
    page.until(IDLE)
    assert texts(page, ".said") == ["one", "1: one", "two", "3: two"]
    page.click(".user .tools button")
    page.press("Escape")
    assert texts(page, ".said") == ["one", "1: one", "two", "3: two"]
    page.click(".user .tools button")
    page.run("document.activeElement.select()")
    page.type("three")
    page.press("Enter")
    page.until(IDLE)
    assert texts(page, ".said") == ["three", "4: three"]
    assert [message["content"] for message in server.requests[-1]["messages"]] == ["three"]
    assert texts(page, ".assistant .tools button") == ["Copy", "Regenerate"]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("refuse", "messages: 900 tokens do not fit the 256 that frog sees"),
        ("break", "the model has no memory left"),
        ("lose", "The connection was lost before the answer was complete."),
        ("crash", "The server says 500."),
        ("wordless", "The server could not answer."),
        ("nonsense", "The server has sent something that is not JSON."),
        ("empty", "(no answer)"),
        ("long", "(the answer has reached its longest length)"),
    ],
)
def test_what_went_wrong_is_said_and_can_be_tried_again(page: Page, server: Fake, text: str, note: str) -> None:
    say(page, text)
    assert texts(page, ".note") == [note]
    press(page, "Regenerate" if text == "long" else "Try again")
    page.until(IDLE)
    assert len(server.requests) == 2 and server.requests[0] == server.requests[1] and texts(page, ".note") == [note]
    say(page, "and now")
    assert texts(page, ".said")[-1] == "3: and now"


def test_a_text_is_continued(page: Page, server: Fake) -> None:
    change(page, "#model", "spaces")
    assert "was not trained on conversations" in text_of(page, ".empty")
    change(page, "#length", "50")
    say(page, "ab: ")
    assert server.requests[-1]["prompt"] == "ab: " and server.requests[-1]["max_tokens"] == 50
    assert "messages" not in server.requests[-1] and texts(page, ".said") == ["ab: ", "1: ab: "]
    press(page, "Go on")
    page.until(IDLE)
    assert server.requests[-1]["prompt"] == "ab: 1: ab: " and texts(page, ".said") == ["ab: ", "1: ab: 2: ab: 1: ab: "]


def test_conversations_are_renamed_and_deleted_with_undo(page: Page) -> None:
    say(page, "moss")
    page.click("#new")
    assert texts(page, ".said") == []
    say(page, "fern")
    assert texts(page, "#chats .title") == ["fern", "moss"]
    page.click("#chats li:last-child .tool")
    page.run("document.activeElement.select()")
    page.type("my talk")
    page.press("Enter")
    assert texts(page, "#chats .title") == ["fern", "my talk"]
    page.click("#chats li.current .tool:last-child")
    assert texts(page, "#chats .title") == ["my talk"] and texts(page, ".said") == []
    press(page, "Undo")
    assert texts(page, "#chats .title") == ["fern", "my talk"]


def test_a_conversation_is_exported(page: Page) -> None:
    change(page, "#system", "Be brief.")
    say(page, "moss")
    page.run("window.saved = ''; URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return '#'; }; document.addEventListener('click', (event) => event.preventDefault())")  # fmt: skip
    press(page, "Save as file")
    page.until("window.saved")
    assert json.loads(page.run("window.saved")) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "moss"},
            {"role": "assistant", "content": "1: moss"},
        ]
    }


def test_calls_of_tools_are_seen_kept_and_sent_back(page: Page, server: Fake) -> None:
    lines = ["calculator 3*4 = 12", "up <b> = <B>\n!"]
    said = "Äh 🐸 " + "".join(lines) + "It is 12."
    say(page, "call")
    assert texts(page, ".said") == ["call", said] and texts(page, ".call") == lines
    assert page.run("document.querySelector('.said b')") is None
    page.open(server.url)
    page.until(READY)
    page.click("#chats .title")
    assert texts(page, ".said") == ["call", said] and texts(page, ".call") == lines
    say(page, "call without an answer")
    say(page, "moss")
    turns = [
        {"role": "user", "content": "call"},
        {"role": "assistant", "content": "Äh 🐸 ", "call": "calculator 3*4"},
        {"role": "tool", "content": "12"},
        {"role": "assistant", "content": "", "call": "up <b>"},
        {"role": "tool", "content": "<B>\n!"},
        {"role": "assistant", "content": "It is 12."},
        {"role": "user", "content": "call without an answer"},
        {"role": "assistant", "content": "Äh 🐸 "},
        {"role": "user", "content": "moss"},
    ]
    assert server.requests[-1]["messages"] == turns


def test_two_tabs_do_not_lose_each_others_conversations(page: Page, chromium: Browser, server: Fake) -> None:
    other = chromium.page(server.url, context=page.context)
    other.until(READY)
    say(page, "moss")
    say(other, "fern")
    page.until("document.querySelectorAll('#chats .title').length === 2")
    assert texts(page, "#chats .title") == texts(other, "#chats .title") == ["fern", "moss"]

    # The same conversation in both: what one says, the other shows. If both write at once, both stay.
    other.click("#chats li:last-child .title")
    say(other, "pond")
    page.until("document.querySelectorAll('.said').length === 4")
    write(page, "slow")
    page.until("document.querySelector('.writing .said')?.textContent.includes('leaf 2')")
    say(other, "snail")
    page.press("Escape")
    page.until(IDLE)
    other.until("document.querySelectorAll('#chats .title').length === 3")
    kept = [json.loads(text)["messages"] for text in page.run("Object.entries(localStorage).filter(([key]) => key.startsWith('terrarium.chat.')).map(([, text]) => text)")]  # fmt: skip
    said = {message["content"] for messages in kept for message in messages}
    assert {"moss", "fern", "pond", "slow", "snail"} <= said and any(text.startswith("leaf 0") for text in said)
    assert other.complaints() == []


def test_a_browser_that_keeps_nothing_or_nonsense(page: Page, server: Fake) -> None:
    page.run("""for (const text of ['{"id": 3', '[]', '{"messages": [{"role": "user"}]}', 'null'])
        localStorage.setItem(`terrarium.chat.${text}`, text);
        localStorage.setItem('terrarium.theme', '"nonsense"'); localStorage.setItem('terrarium.temperature', '{}')""")
    page.open(server.url)
    page.until(READY)
    say(page, "moss")
    assert texts(page, "#chats .title") == ["moss"]
    page.run("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }")
    say(page, "pond")
    assert "storage is full" in text_of(page, "#status")
    page.click("#new")
    say(page, "fern")
    assert texts(page, "#chats .title") == ["fern", "moss"]
    page.click("#chats li:last-child .title")
    assert texts(page, ".said")[2] == "pond"
    page.run("delete Storage.prototype.getItem; Object.defineProperty(window, 'localStorage', { get() { throw new Error('closed'); } }); 0")  # fmt: skip
    page.click("#new")
    say(page, "snail")
    assert len(texts(page, ".said")) == 2


def test_the_end_is_followed_only_by_who_is_there(page: Page) -> None:
    say(page, "many words " * 400)
    far = "(() => { const log = document.querySelector('#log'); return log.scrollHeight - log.scrollTop - log.clientHeight; })()"
    write(page, "slow")
    page.until("document.querySelector('.writing .said')?.textContent.includes('leaf 40')")
    assert page.run(far) < 60
    page.run("document.querySelector('#log').scrollTop = 10")
    page.until("document.querySelector('.writing .said').textContent.includes('leaf 70')")
    page.press("Escape")
    page.until(IDLE)
    assert page.run("document.querySelector('#log').scrollTop") == 10


def test_nothing_jumps_when_an_answer_ends(page: Page) -> None:
    where = "JSON.stringify([...document.querySelectorAll('#composer, #log, .said')].map((one) => { const at = one.getBoundingClientRect(); return [at.left, at.top, at.width]; }))"
    write(page, "slow")
    page.until("document.querySelector('.writing .said')?.textContent.includes('leaf 5')")
    before = page.run(where)
    page.press("Escape")
    page.until(IDLE)
    assert page.run(where) == before


def test_by_keyboard_dark_and_on_a_phone(chromium: Browser, server: Fake) -> None:
    page = chromium.page(server.url, width=360, height=740, dark=True)
    page.until(READY)
    assert page.run("document.documentElement.dataset.theme") == "dark"
    say(page, "moss " + "x" * 300)
    page.click("#open-settings")
    assert page.run("document.documentElement.scrollWidth") <= 360
    assert page.run("getComputedStyle(document.querySelector('#side')).visibility") == "hidden"
    page.click("#menu")
    page.until("document.activeElement.id === 'new'")
    reached = set()
    for _ in range(25):
        page.press("Tab")
        seen = "getComputedStyle(document.activeElement.closest('#composer') ?? document.activeElement)"
        reached.add(page.run("document.activeElement.id || document.activeElement.className"))
        assert page.run(f"document.activeElement === document.body || {seen}.outlineStyle !== 'none' || {seen}.boxShadow !== 'none'")  # fmt: skip
    assert {"title", "tool", "theme", "export", "model", "open-settings", "temperature", "top-k", "system", "log", "text", "send"} <= reached  # fmt: skip
    page.run("document.querySelector('#new').focus()")
    page.press("Escape")
    assert page.run("document.activeElement.id") == "menu"
    page.run("document.querySelector('#text').focus()")
    page.type("moss")
    page.press("Enter", shift=True)
    page.type("fern")
    assert page.run("document.querySelector('#text').value") == "moss\nfern"
    for theme in ("light", "dark"):
        page.click("#theme")
        assert page.run("document.documentElement.dataset.theme") == theme
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    page.open(server.url)
    assert page.run("document.documentElement.dataset.theme") == "dark"
    assert page.complaints() == []


def test_a_token_comes_from_the_address_or_is_asked_for(chromium: Browser) -> None:
    with serving(Fake(token=TOKEN)) as guarded:
        page = chromium.page(f"{guarded.url}/#token=leaf%20green")
        page.until(READY)
        assert page.run("location.href") == f"{guarded.url}/" and page.complaints() == []
        page.open(f"{guarded.url}/?again")
        page.until(READY)  # the tab remembers it
        asked = chromium.page(guarded.url)
        for token in ("wröng", TOKEN):
            asked.until("document.querySelector('#ask-token').open")
            asked.run("document.querySelector('#token').focus()")
            asked.type(token)
            asked.press("Enter")
        asked.until(READY)
        guarded.token = "another one"  # as after a new start of the server
        write(asked, "moss")
        asked.until("document.querySelector('#ask-token').open")
        asked.run("document.querySelector('#token').focus()")
        asked.type("another one")
        asked.press("Enter")
        asked.until("[...document.querySelectorAll('.said')].at(-1).textContent.endsWith('moss') && document.querySelectorAll('.said').length === 2")  # fmt: skip
        assert texts(asked, ".note") == []


def test_a_server_without_models_yet(chromium: Browser) -> None:
    with serving(Fake(models_fail=True)) as fake:
        page = chromium.page(fake.url)
        page.until("document.querySelector('#log .error')")
        assert text_of(page, "#log .error") == "the models are being loaded"
        fake.models_fail = False
        press(page, "Try again")
        page.until(READY)


def test_a_server_that_has_ended(chromium: Browser) -> None:
    with serving(Fake()) as fake:
        page = chromium.page(fake.url)
        page.until(READY)
    say(page, "moss")
    assert texts(page, ".note") == ["The server does not answer. Is it still running?"]


@pytest.mark.slow
def test_thirty_turns(page: Page, server: Fake) -> None:
    for number in range(30):
        say(page, f"turn {number}")
    assert len(texts(page, ".said")) == 60 and len(server.requests[-1]["messages"]) == 59
    assert texts(page, "button[title='Answer once more']") == ["Regenerate"]
