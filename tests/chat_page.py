"""What tests of the chat page share: what a person does on it, and what is seen."""

from __future__ import annotations

import json

from browser import Page

READY = "document.querySelector('#model').value"
IDLE = "!document.querySelector('.writing') && document.querySelector('#stop').hidden"


def write(page: Page, text: str) -> None:
    """Type a text and send it with Enter."""
    page.run("document.querySelector('#text').focus()")
    page.type(text)
    page.press("Enter")


def say(page: Page, text: str) -> None:
    """Send a text and wait for the end of the answer."""
    write(page, text)
    page.until("!document.querySelector('#text').value")  # a tab behind another one may take its time to send
    page.until(IDLE)


def texts(page: Page, selector: str) -> list[str]:
    return [str(text) for text in page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")]  # fmt: skip
