"""serve: tools in answers over real HTTP. The text is as without them; calls are shown to those who ask; nobody waits for a slow one."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from preparing import write
from serving import Running, serving
from test_serve import until
from test_tools import CONFIG, SUMS

from core import open_experiment
from core.chat.tools import BUILT_IN
from core.serve.limits import Limits

CALLS = [{"call": "calculator 3+4", "result": "7", "at": 0}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model that calls the calculator for every sum, as the current one."""
    folder = tmp_path_factory.mktemp("serve_tools")
    open_experiment(str(write(folder / "experiments" / "sums", SUMS, CONFIG))).train()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
        yield folder


@pytest.fixture
def server(place: Path) -> Iterator[Running]:
    with serving(["sums"]) as running:
        yield running


def with_tool(server: Running, tool: Any) -> None:
    """Let the model have another calculator."""
    vars(server.shelf.models[0].model)["tools"] = {"calculator": tool}


def test_the_text_is_as_ever_and_calls_are_shown_to_those_who_ask(server: Running) -> None:
    choice = server.chat("3+4").json["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "=7."} and choice["finish_reason"] == "stop"
    shown = server.chat("3+4", show_calls=True).json["choices"][0]["message"]
    assert shown == {"role": "assistant", "content": "=7.", "calls": CALLS}


def test_in_a_stream(server: Running) -> None:
    plain = [event["choices"][0]["delta"] for event in server.chat("3+4", stream=True).events if event["choices"]]
    assert "".join(delta.get("content", "") for delta in plain) == "=7." and not any(
        "calls" in delta for delta in plain
    )
    deltas = [event["choices"][0]["delta"] for event in server.chat("3+4", stream=True, show_calls=True).events]
    assert [call for delta in deltas for call in delta.get("calls", [])] == CALLS
    assert "".join(delta.get("content", "") for delta in deltas) == "=7."
    assert next(number for number, delta in enumerate(deltas) if delta.get("calls")) <= next(
        number for number, delta in enumerate(deltas) if delta.get("content")
    )


def test_a_history_with_calls_has_the_ids_of_training(server: Running) -> None:
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "", "call": "calculator 1+1"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "=2."},
    ]
    answer = server.ask(
        "/v1/chat/completions", {"messages": [*said, {"role": "user", "content": "3+4"}], "temperature": 0}
    )
    assert answer.json["choices"][0]["message"]["content"] == "=7."
    again = server.ask("/v1/chat/completions", {"messages": said[:3], "temperature": 0})
    assert again.json["choices"][0]["message"]["content"] == "=2."
    wrong = server.ask("/v1/chat/completions", {"messages": said[:2]})
    assert wrong.status == 400 and "ends with a turn of the assistant" in wrong.error
    wrong = server.ask(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "1+1", "call": "calculator 1+1"}]}
    )
    assert wrong.status == 400 and "turn 1: the user calls a tool" in wrong.error


def test_the_limit_of_tokens_counts_calls(server: Running) -> None:
    whole = server.chat("3+4", show_calls=True).json
    tokens = whole["usage"]["completion_tokens"]
    call = len("calculator 3+4") + 2
    assert tokens == call + len("=7.") + 1
    for most, content, calls in ((call - 1, "", []), (call, "", CALLS), (call + 2, "=7", CALLS)):
        choice = server.chat("3+4", show_calls=True, max_tokens=most).json["choices"][0]
        assert (choice["message"]["content"], choice["message"].get("calls", [])) == (content, calls)
        assert choice["finish_reason"] == "length"


def test_a_slow_tool_holds_nobody_up(server: Running) -> None:
    go_on, asked = threading.Event(), threading.Event()

    def slow(text: str) -> str:
        if text == "1+1":
            asked.set()
            assert go_on.wait(20)
        return BUILT_IN["calculator"](text)

    with_tool(server, slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.chat, "1+1")
        assert asked.wait(20)
        assert server.chat("3+4").json["choices"][0]["message"]["content"] == "=7."
        assert not waiting.done()
        go_on.set()
        assert waiting.result(20).json["choices"][0]["message"]["content"] == "=2."


def test_more_calls_than_rows(place: Path) -> None:
    """An answer gives its row away while it waits for a tool, and gets one back."""
    with serving(["sums"], Limits(rows=2)) as server:
        with_tool(server, lambda text: (time.sleep(0.05), BUILT_IN["calculator"](text))[1])
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            found = list(pool.map(lambda number: server.chat(f"{number}+4"), range(10)))
        texts = [answer.json["choices"][0]["message"]["content"] for answer in found]
        assert sum(text == f"={number + 4}." for number, text in enumerate(texts)) >= 9
        worker = server.shelf.models[0].worker
        assert not worker.calling and not worker.tickets and not worker.waiting


def test_a_bug_in_a_call_ends_one_answer(server: Running, capfd: Any) -> None:
    with_tool(server, lambda text: 1 / 0)  # the tools of tools_of() never raise
    failed = server.chat("3+4")
    assert failed.status == 500 and "the model failed to write an answer" in failed.error
    assert "ZeroDivisionError" in capfd.readouterr().err
    with_tool(server, BUILT_IN["calculator"])
    assert server.chat("3+4").json["choices"][0]["message"]["content"] == "=7."


@pytest.mark.parametrize("end", ["client", "server"])
def test_somebody_leaves_while_a_tool_works(place: Path, end: str) -> None:
    go_on, asked = threading.Event(), threading.Event()

    def slow(text: str) -> str:
        asked.set()
        go_on.wait(20)
        return "7"

    with serving(["sums"]) as server:
        with_tool(server, slow)
        worker = server.shelf.models[0].worker
        body = b'{"messages": [{"role": "user", "content": "3+4"}], "temperature": 0}'
        client = server.socket()
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert asked.wait(20) and len(worker.calling) == 1
        if end == "client":
            client.close()
            [ticket] = worker.calling
            until(lambda: ticket.cancelled)
            go_on.set()
            until(lambda: not worker.calling and not worker.waiting)
            assert server.chat("3+4").json["choices"][0]["message"]["content"] == "=7."
        began = time.monotonic()
    assert time.monotonic() - began < 10
    go_on.set()
    client.close()
