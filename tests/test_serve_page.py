"""The chat page in a real browser, with the real server. Skipped without Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from browser import CHROMIUM, Browser, Page
from chat_page import IDLE, READY, say, texts
from serving import Running, serving, trained_lab

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with trained_lab(tmp_path_factory.mktemp("page")), serving(["talker", "spaces"]) as running:
        yield running


@pytest.fixture
def page(chromium: Browser, server: Running) -> Iterator[Page]:
    """The page with nothing kept yet, greedy."""
    found = chromium.page(server.url)
    found.until(READY)
    found.run("const t = document.querySelector('#temperature'); t.value = 0; t.oninput()")
    yield found
    assert found.complaints() == []


def turns(page: Page) -> list[str]:
    """What was said, in order."""
    return texts(page, ".said")


def answer_to(server: Running, *texts: str) -> str:
    """What the API answers to a conversation."""
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    body = {"model": "talker", "messages": messages, "temperature": 0}
    return str(server.ask("/v1/chat/completions", body).json["choices"][0]["message"]["content"])


def chats(page: Page) -> list[str]:
    return texts(page, "#chats .title")


def test_a_talk_is_kept_and_goes_on_after_a_reload(page: Page, server: Running) -> None:
    first = answer_to(server, "moss äpfel")
    say(page, "moss äpfel")
    say(page, "pond")
    told = ["moss äpfel", first, "pond", answer_to(server, "moss äpfel", first, "pond")]
    assert turns(page) == told and chats(page) == ["moss äpfel"]
    assert "tokens/s" in page.run("document.querySelector('#status').textContent")
    page.open(server.url)
    page.until(READY)
    assert turns(page) == []
    page.click("#chats .title")
    assert turns(page) == told
    say(page, "fern")
    assert len(turns(page)) == 6


def test_a_message_is_edited_and_an_answer_given_again(page: Page, server: Running) -> None:
    say(page, "moss")
    say(page, "fern")
    page.click(".turn.user .tools button")
    page.run("document.querySelector('.turn.user textarea').select()")
    page.type("pond snail")
    page.press("Escape")
    assert turns(page)[0] == "moss" and len(turns(page)) == 4
    page.click(".turn.user .tools button")
    page.run("document.querySelector('.turn.user textarea').select()")
    page.type("pond snail")
    page.press("Enter")
    page.until(IDLE)
    assert turns(page) == ["pond snail", answer_to(server, "pond snail")]
    page.run("[...document.querySelectorAll('.tools button')].find((one) => one.textContent === 'Regenerate').click()")
    page.until(IDLE)
    assert turns(page) == ["pond snail", answer_to(server, "pond snail")]


def test_an_answer_is_stopped_by_escape_and_stays(page: Page, server: Running) -> None:
    page.run("const m = document.querySelector('#model'); m.value = 'spaces'; m.onchange()")
    assert "was not trained on conversations" in page.run("document.querySelector('.empty').textContent")
    page.run(
        "globalThis.slow = fetch; fetch = (path, options) => slow(path, {...options, body: options.body.replace('{', '{\"max_tokens\": 4096, \"stop\": [], ')})"
    )
    page.run("document.querySelector('#text').focus()")
    page.type("ab: ")
    page.press("Enter")
    page.until("document.querySelector('.writing .said')?.textContent.length > 20")
    page.press("Escape")
    page.until(IDLE)
    assert len(turns(page)[1]) > 20 and "(stopped)" in page.run("document.querySelector('#log').textContent")
    worker = next(each.worker for each in server.shelf.models if each.name == "spaces")
    page.until("true")
    assert worker.new_tokens < 4096


def test_what_somebody_writes_is_text_and_errors_are_shown(page: Page) -> None:
    say(page, "<img src=x onerror=document.title='bad'>")
    assert page.run("document.querySelector('#log .said img')") is None and page.run("document.title") == "Terrarium"
    assert "is not in the vocabulary" in page.run("document.querySelector('.error').textContent")
    assert page.run("[...document.querySelectorAll('.tools button')].at(-1).textContent") == "Try again"
    say(page, "moss")  # the turn without an answer is left out
    assert len(turns(page)) == 4 and turns(page)[3]
    page.browser.events = [event for event in page.browser.events if event["method"] != "Log.entryAdded"]  # the 400


def test_conversations_are_renamed_and_deleted_with_undo(page: Page) -> None:
    say(page, "moss")
    page.click("#new")
    say(page, "fern")
    assert chats(page) == ["fern", "moss"]
    page.click("#chats li:last-child .tool")
    page.run("document.querySelector('#chats input').select()")
    page.type("my talk")
    page.press("Enter")
    assert sorted(chats(page)) == ["fern", "my talk"]
    page.click("#chats li.current .tool:last-child")
    assert chats(page) == ["my talk"] and turns(page) == []
    page.run("[...document.querySelectorAll('#toast button')].find((one) => one.textContent === 'Undo').click()")
    assert sorted(chats(page)) == ["fern", "my talk"]


def test_two_tabs_do_not_lose_each_others_conversations(page: Page, chromium: Browser, server: Running) -> None:
    other = chromium.page(server.url, context=page.context)
    other.until(READY)
    say(page, "moss")
    say(other, "fern")
    page.until("document.querySelectorAll('#chats .title').length === 2")
    assert sorted(chats(page)) == sorted(chats(other)) == ["fern", "moss"]
    assert other.complaints() == []


def test_a_browser_that_keeps_nothing_or_nonsense(page: Page, server: Running) -> None:
    page.run(
        "localStorage.setItem('terrarium.chat.x', '{\"id\": 3'); localStorage.setItem('terrarium.theme', 'nonsense')"
    )
    page.open(server.url)
    page.until(READY)
    say(page, "moss")
    assert chats(page) == ["moss"]
    page.run("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }")
    page.click("#new")
    say(page, "fern")
    assert sorted(chats(page)) == ["fern", "moss"] and len(turns(page)) == 2


def test_thirty_turns_and_what_no_longer_fits(page: Page) -> None:
    for number in range(30):
        say(page, ("moss", "pond fern")[number % 2])
    assert len(turns(page)) == 60 and all(turns(page)) and page.run("document.querySelector('.error')") is None
    assert "turns no longer fit" in page.run("document.querySelector('#status').textContent")


def test_by_keyboard_dark_and_on_a_phone(chromium: Browser, server: Running) -> None:
    page = chromium.page(server.url, width=360, height=740, dark=True)
    page.until(READY)
    assert page.run("document.documentElement.dataset.theme") == "dark"
    assert page.run("document.documentElement.scrollWidth") <= 360
    say(page, "moss")
    assert page.run("getComputedStyle(document.querySelector('#side')).visibility") == "hidden"
    page.click("#menu")
    page.until("document.activeElement.id === 'new'")
    reached = set()
    for _ in range(20):
        page.press("Tab")
        reached.add(page.run("document.activeElement.id || document.activeElement.className"))
    assert {"theme", "export", "model", "open-settings", "text", "send"} <= reached
    page.press("Escape")
    page.run("document.querySelector('#text').focus()")
    page.type("moss")
    page.press("Enter", shift=True)
    page.type("fern")
    assert page.run("document.querySelector('#text').value") == "moss\nfern"
    for theme in ("light", "dark"):
        page.click("#theme")
        assert page.run("document.documentElement.dataset.theme") == theme
    assert page.complaints() == []


def test_a_token_comes_from_the_address_or_is_asked_for(chromium: Browser, server: Running) -> None:
    with serving(["talker"], token="se cret") as guarded:
        page = chromium.page(f"{guarded.url}/#token=se%20cret")
        page.until(READY)
        assert "token" not in page.run("location.href") and page.complaints() == []
        asked = chromium.page(guarded.url)
        asked.until("document.querySelector('#ask-token').open")
        asked.run("document.querySelector('#token').focus()")
        asked.type("se cret")
        asked.press("Enter")
        asked.until(READY)
        assert json.loads(str(asked.run("JSON.stringify(sessionStorage)")))["terrarium.token"] == "se cret"
