"""serve: the API over real HTTP, its limits, and clients that misbehave."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from serving import Running, serving, trained_lab

from core.serve.limits import Limits

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two trained experiments: `talker` chats, `spaces` completes."""
    with trained_lab(tmp_path_factory.mktemp("serve")) as folder:
        yield folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Running]:
    with serving(["talker", "spaces"]) as running:
        yield running


def model_of(server: Running, name: str) -> Any:
    return server.shelf.find(name).model


def test_what_there_is(server: Running) -> None:
    assert server.ask("/health").json == {"status": "ok"}
    listed = server.ask("/v1/models").json
    assert listed["object"] == "list" and [entry["id"] for entry in listed["data"]] == ["talker", "spaces"]
    meta = listed["data"][0]["meta"]
    assert meta["n_ctx_train"] == 96 and meta["chat"] is True and meta["n_params"] > 1000
    assert server.ask("/v1/models/spaces").json["meta"]["chat"] is False
    page = server.ask("/")
    assert page.status == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert b"<!doctype html>" in page.body.lower()
    assert 'terrarium_requests_waiting{model="talker"} 0' in server.ask("/metrics").body.decode()


def test_text_is_completed_as_the_python_api_does(server: Running) -> None:
    wanted = model_of(server, "spaces").complete(["ab: "], temperature=0)[0]
    found = server.ask("/v1/completions", {"model": "spaces", "prompt": "ab: ", "temperature": 0}).json
    assert found["object"] == "text_completion" and found["choices"][0]["text"] == wanted.partition("\n")[0]
    assert found["usage"]["prompt_tokens"] == 4
    whole = server.ask("/v1/completions", {"model": "spaces", "prompt": ["ab: "], "temperature": 0, "stop": []}).json
    assert whole["choices"][0]["text"].startswith(wanted) and whole["choices"][0]["finish_reason"] == "length"
    drawn = [
        server.ask("/v1/completions", {"model": "spaces", "prompt": "ab: ", "temperature": 1.0, "seed": 5, "stop": []})
        for _ in range(2)
    ]
    assert drawn[0].json["choices"] == drawn[1].json["choices"]


def test_a_conversation_is_answered_as_the_terminal_does(server: Running) -> None:
    from core.lab.chatting import begin_talk, reply

    talk = begin_talk(model_of(server, "talker"), temperature=0)
    messages: list[dict[str, str]] = []
    for text in ("moss", "fern pond", "äpfel"):
        found = reply(talk, text)
        talk = found.talk
        messages.append({"role": "user", "content": text})
        body = {"model": "talker", "messages": messages, "temperature": 0}
        answer = server.ask("/v1/chat/completions", body).json
        said = answer["choices"][0]["message"]
        assert (said["role"], said["content"]) == ("assistant", found.text) and found.text
        messages.append({"role": "assistant", "content": found.text})
    parts = [{"type": "text", "text": "mo"}, {"type": "text", "text": "ss"}]
    asked = [{"role": "developer", "content": "Be kind, snail."}, {"role": "user", "content": parts}]
    assert server.ask("/v1/chat/completions", {"model": "talker", "messages": asked}).status in (200, 400)


def test_thirty_turns_go_past_the_context(server: Running) -> None:
    messages: list[dict[str, str]] = []
    left_out = []
    for number in range(30):
        messages.append({"role": "user", "content": ("moss", "pond fern")[number % 2]})
        found = server.ask("/v1/chat/completions", {"model": "talker", "messages": messages, "temperature": 0})
        assert found.status == 200, found.body
        left_out.append(found.json["timings"]["left_out"])
        messages.append({"role": "assistant", "content": found.json["choices"][0]["message"]["content"] or "..."})
    assert left_out[0] == 0 and left_out == sorted(left_out) and left_out[-1] >= 50 and left_out[-1] % 2 == 0


def test_a_stream_is_the_answer_in_pieces(server: Running) -> None:
    whole = server.chat("äpfel snail").json
    found = server.chat("äpfel snail", stream=True, stream_options={"include_usage": True})
    assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = found.events
    assert {event["object"] for event in events} == {"chat.completion.chunk"} and len(
        {event["id"] for event in events}
    ) == 1
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    assert deltas[0]["role"] == "assistant" and deltas[-1] == {}
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"] and "\ufffd" not in text
    assert events[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == [] and events[-1]["usage"] == whole["usage"]
    assert events[-1]["timings"]["predicted_n"] == whole["usage"]["completion_tokens"]
    assert "usage" not in server.chat("moss", stream=True).events[-1]
    text_events = server.ask("/v1/completions", {"model": "spaces", "prompt": "ab: ", "temperature": 0, "stream": True})
    pieces = [event["choices"][0]["text"] for event in text_events.events]
    asked = {"model": "spaces", "prompt": "ab: ", "temperature": 0}
    assert "".join(pieces) == server.ask("/v1/completions", asked).json["choices"][0]["text"]


def test_an_answer_ends_before_a_stop_text_and_at_its_limit(server: Running) -> None:
    whole = server.chat("moss fern").json["choices"][0]["message"]["content"]
    stop = whole[4:7]
    found = server.chat("moss fern", stop=[stop, "never"]).json["choices"][0]
    assert found["message"]["content"] == whole[: whole.index(stop)] and found["finish_reason"] == "stop"
    streamed = server.chat("moss fern", stop=stop, stream=True).events
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed) == whole[: whole.index(stop)]
    for name in ("max_tokens", "max_completion_tokens"):
        short = server.chat("moss fern", **{name: 3}).json
        assert short["choices"][0] == {
            "index": 0,
            "message": {"role": "assistant", "content": whole[:3]},
            "logprobs": None,
            "finish_reason": "length",
        }
        assert short["usage"]["completion_tokens"] == 3


@pytest.mark.slow
def test_many_at_once_are_answered_as_each_alone(server: Running) -> None:
    rng = random.Random(2)
    texts = [" ".join(rng.choices(["moss", "fern", "snail", "äpfel", "pond"], k=rng.randint(1, 5))) for _ in range(40)]

    def content(text: str) -> str:
        return str(server.chat(text).json["choices"][0]["message"]["content"])

    lonely = [content(text) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert list(pool.map(content, texts)) == lonely
    assert len(set(lonely)) > 5


def test_tokens_and_text(server: Running) -> None:
    found = server.ask("/tokenize", {"content": "moss <|end|>", "model": "spaces"})
    assert found.status == 400 and "content" in found.json["error"]["param"]
    tokens = server.ask("/tokenize", {"content": "moss", "model": "talker"}).json["tokens"]
    assert server.ask("/detokenize", {"tokens": tokens, "model": "talker"}).json == {"content": "moss"}
    wrong = server.ask("/detokenize", {"tokens": [10**6], "model": "talker"})
    assert wrong.status == 400 and "1000000 is not one of" in wrong.error


WRONG: list[tuple[str, Any, int, str]] = [
    ("chat", {"messages": []}, 400, "messages: list should have at least 1 item"),
    ("chat", {"messages": "moss"}, 400, 'messages: input should be a valid list, not "moss"'),
    ("chat", {"messages": [{"role": "user"}]}, 400, "messages.0.content is missing"),
    ("chat", {"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
    ("chat", {"messages": [{"role": "user", "content": ""}]}, 400, "turn 1: the user says nothing"),
    ("chat", {"messages": [{"role": "user", "content": "moss"}] * 2}, 400, "turn 2 is of the user"),
    ("chat", {"messages": [{"role": "user", "content": "moss"}, {"role": "assistant", "content": "x"}]}, 400, "ends with a turn"),
    ("chat", {"messages": [{"role": "user", "content": "QQQ"}]}, 400, "'Q'"),
    ("chat", {"messages": [{"role": "user", "content": "moss " * 50}]}, 400, "tokens do not fit the 96 that talker sees"),
    ("chat", {"messages": [{"role": "user", "content": "moss", "name": "Bo"}]}, 400, "messages.0.name is not supported"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content"),
    ("chat", {"temperature": -1}, 400, "temperature: input should be greater than or equal to 0, not -1"),
    ("chat", {"temperature": "hot"}, 400, 'temperature: input should be a valid number, not "hot"'),
    ("chat", {"top_p": 0}, 400, "top_p"),
    ("chat", {"top_k": 1.5}, 400, "top_k"),
    ("chat", {"top_k": 2**63}, 400, "top_k: input should be less than 2147483648"),
    ("chat", {"seed": 2**64}, 400, "seed"),
    ("chat", {"max_tokens": 0}, 400, "max_tokens"),
    ("chat", {"max_tokens": 10**6}, 400, "max_tokens: 1,000,000 is more than 4,096"),
    ("chat", {"stop": ["a"] * 9}, 400, "stop: 9 texts are more than 8"),
    ("chat", {"stop": "a" * 201}, 400, "stop: 201 characters are more than 200"),
    ("chat", {"n": 2}, 400, "n is not supported here. Leave it out."),
    ("chat", {"logprobs": True}, 400, "logprobs is not supported"),
    ("chat", {"tools": [{"type": "function"}]}, 400, "tools is not supported"),
    ("chat", {"response_format": {"type": "json_object"}}, 400, "response_format is not supported"),
    ("chat", {"colour": "red"}, 400, "colour is not supported here. Leave it out. Fields: model, stream"),
    ("chat", {"model": "talkr"}, 404, "no model is called 'talkr'. Did you mean 'talker'?"),
    ("chat", {"model": None}, 400, "model is missing: it is one of talker, spaces"),
    ("chat", {"model": "spaces"}, 400, "spaces was not trained on conversations. Ask /v1/completions"),
    ("text", {"prompt": "QQQ"}, 400, "'Q'"),
    ("text", {"prompt": ["a", "b"]}, 400, "prompt: input should be a valid string, not a list of 2"),
    ("text", {"prompt": "ab: " * 50}, 400, "prompt: 200 tokens do not fit the 16 that spaces sees. Shorten it."),
    ("text", {"prompt": ""}, 400, "the prompt is empty"),
    ("text", {"echo": True}, 400, "echo is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "status", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_refused(server: Running, kind: str, fields: dict[str, Any], status: int, message: str) -> None:
    if kind == "chat":
        path, good = "/v1/chat/completions", {"model": "talker", "messages": [{"role": "user", "content": "moss"}]}
    else:
        path, good = "/v1/completions", {"model": "spaces", "prompt": "ab: "}
    found = server.ask(path, good | fields)
    assert found.status == status and message in found.error, found.body
    assert set(found.json["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("fields", [{"temperature": 1e-300}, {"temperature": 1000}, {"temperature": 1, "top_p": 1e-9}, {"temperature": 2, "top_k": 10**9, "seed": -5}, {"temperature": 1, "top_p": 1e-9, "seed": -1, "max_tokens": -1, "min_p": 0, "repeat_penalty": 1.0}], ids=str)  # fmt: skip
def test_extreme_ways_to_draw(server: Running, fields: dict[str, Any]) -> None:
    found = server.chat("moss", **{"max_tokens": 20} | fields)
    assert found.status == 200
    if fields["temperature"] < 1 or "top_p" in fields:
        assert found.json["choices"] == server.chat("moss", max_tokens=fields.get("max_tokens", 20)).json["choices"]


def test_fields_that_change_nothing_are_taken(server: Running) -> None:
    neutral = {"n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "tools": [], "tool_choice": "none",
               "logit_bias": {}, "response_format": {"type": "text"}, "top_p": 1, "stop": None, "store": False}  # fmt: skip
    assert server.chat("moss", **neutral).json["choices"] == server.chat("moss").json["choices"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is not JSON"),
        (b"[1]", "the body is a list of 1, not an object"),
        (b'"x"', 'the body is "x", not an object'),
        (b"\xff\xfe", "the body is not JSON"),
        (b'{"temperature": NaN}', "NaN is not a number of JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "the body is not JSON"),
        (json.dumps({"model": "talker", "messages": [{"role": "user", "content": "\ud800"}]}).encode(), "\\ud800"),
        (json.dumps({"model": "\ud800"}).encode(), ""),
    ],
    ids=str,
)
def test_bodies_that_cannot_be_read(server: Running, data: bytes, message: str) -> None:
    found = server.ask("/v1/chat/completions", data)
    assert 400 <= found.status < 500 and message in found.error


def test_addresses_and_methods(server: Running) -> None:
    assert (server.ask("/nothing").status, server.ask("/nothing").error) == (404, "there is nothing at /nothing")
    wrong = server.ask("/v1/completions")
    assert (wrong.status, wrong.error) == (405, "/v1/completions does not take GET")
    assert server.ask("/page/../app.py").status == 404 and server.ask("/page/%2e%2e/app.py").status == 404
    assert server.ask("/v1/models/none").status == 404


def test_a_body_may_have_a_mebibyte(server: Running) -> None:
    padding = {"model": "talker", "messages": [{"role": "user", "content": "moss" + " " * (1 << 20)}]}
    found = server.ask("/v1/chat/completions", padding)
    assert (found.status, found.error) == (413, "the body is larger than 1,048,576 bytes")
    with server.socket() as client:  # without saying how long it is
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            client.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert b" 413 " in client.recv(4096)
    with server.socket() as client, contextlib.suppress(OSError):  # and one that never ends is cut off
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4000):
            client.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        raise AssertionError("250 MB were read")
    assert server.ask("/health").status == 200


def test_only_our_own_pages_and_names(server: Running) -> None:
    def status(**headers: str) -> int:
        return server.ask(
            "/v1/models", headers={name.replace("_", "-"): value for name, value in headers.items()}
        ).status

    assert status(Host="evil.example") == 403
    assert status(Host=f"localhost:{server.port}") == status(Host="127.0.0.1") == status(Host="[::1]:80") == 200
    assert status(Host="127.0.0.1.evil.example") == 403
    assert status(Origin="https://evil.example") == status(Origin="null") == 403
    assert status(Origin=server.url) == 200 and status(Origin=f"http://127.0.0.1:{server.port + 1}") == 403
    refused = server.ask("/v1/models", headers={"Host": "evil.example"})
    assert refused.error == "this server does not answer to the host name 'evil.example'"


def test_a_token_is_asked_for(place: Path) -> None:
    with serving(["spaces"], token="secret", hosts=["lab.example"]) as server:
        assert server.ask("/health").status == server.ask("/").status == 200
        refused = server.ask("/v1/models")
        assert refused.status == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert server.ask("/v1/models", headers={"Authorization": "Bearer wrong"}).status == 401
        shown = {"Authorization": "Bearer secret", "Host": "lab.example"}
        assert server.ask("/v1/models", headers=shown).status == 200
        assert server.ask("/metrics").status == server.ask("/tokenize", {"content": "a"}).status == 401


def test_more_than_may_wait_are_refused(place: Path) -> None:
    with serving(["talker"], Limits(rows=1, waiting=1)) as server:
        body = {"prompt": "moss", "max_tokens": 1500, "temperature": 0, "stop": []}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: server.ask("/v1/completions", body), range(8)))
        assert {answer.status for answer in found} == {200, 429}
        refused = next(answer for answer in found if answer.status == 429)
        assert refused.headers["retry-after"] == "1" and "so many requests wait" in refused.error


def test_clients_that_go_away_cost_nothing(place: Path) -> None:
    with serving(["spaces"], Limits(rows=4)) as server:
        worker = server.shelf.models[0].worker
        for stream in (True, False):
            body = json.dumps(
                {"prompt": "ab: ", "max_tokens": 4096, "temperature": 1, "stop": [], "stream": stream, "seed": 1}
            ).encode()
            clients = [server.socket() for _ in range(6)]
            for client in clients:
                client.sendall(
                    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
            until(lambda: len(worker.tickets) == 4 and len(worker.waiting) == 2)
            for client in clients:
                client.close()
            until(lambda: not worker.tickets and not worker.waiting)
        assert worker.new_tokens < 12 * 4096


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds: two minutes at most, as a busy machine takes its time."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_clients_that_say_nothing_are_closed(place: Path) -> None:
    with serving(["spaces"], Limits(reading=0.3, connections=3)) as server:
        with server.socket() as silent:
            assert silent.recv(100) == b""
        with server.socket() as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
            assert b" 408 " in slow.recv(4096)
        crowd = [server.socket() for _ in range(5)]
        assert any(closed(client) for client in crowd)
        for client in crowd:
            client.close()
        until(lambda: server.ask("/health").status == 200)


def test_who_finds_no_room_is_told_so(place: Path) -> None:
    with serving(["spaces"], Limits(connections=3)) as server, contextlib.ExitStack() as sockets:
        for _ in range(3):
            client = sockets.enter_context(server.socket())
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in client.recv(4096)
        found = server.ask("/health")
        assert (found.status, found.headers["retry-after"]) == (503, "5") and "too many connections" in found.error
    assert Limits().connections >= 50 * 6  # fifty browsers, of which each opens up to six


@pytest.mark.slow
def test_a_second_request_that_stops_and_an_answer_that_nobody_reads(place: Path) -> None:
    limits = Limits(reading=0.3, sending=0.3, connections=6)
    with serving(["talker"], limits) as server, contextlib.ExitStack() as sockets:
        halves = [sockets.enter_context(server.socket()) for _ in range(3)]
        for client in halves:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHos")
        until(lambda: open_connections() == 0)
        greedy = [sockets.enter_context(server.socket()) for _ in range(3)]
        body = json.dumps({"content": "moss " * 200_000, "model": "talker"}).encode()
        for client in greedy:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.sendall(
                b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
        until(lambda: open_connections() == 3)
        until(lambda: open_connections() == 0)
        assert server.ask("/health").status == 200


def open_connections() -> int:
    """Connections of servers in this process."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    found = [each for each in gc.get_objects() if H11Protocol in type(each).__mro__]
    return sum(not each.transport.is_closing() for each in found if each.transport is not None)


def closed(client: socket.socket) -> bool:
    try:
        return client.recv(10) == b""
    except OSError:
        return True


def test_a_client_that_does_not_read_holds_nobody_up(place: Path) -> None:
    with serving(["spaces"], Limits(rows=2, sending=0.5)) as server:
        worker = server.shelf.models[0].worker
        body = json.dumps(
            {"prompt": "ab: ", "max_tokens": 4096, "temperature": 1, "stop": [], "stream": True, "seed": 1}
        ).encode()
        with server.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            until(lambda: len(worker.tickets) == 1)
            assert server.ask("/v1/completions", {"prompt": "ab: ", "max_tokens": 3}).status == 200
            until(lambda: not worker.tickets)


def test_a_model_is_in_use_while_it_reads_a_prompt(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it could be closed just then. It is free when its answer is there, also where that is an error."""
    from core.sampling.engine import Engine

    seen = list[bool]()
    with serving(["spaces"]) as server:
        worker, join = server.shelf.models[0].worker, Engine.join
        for joined, status in ((join, 200), (lambda *_: 1 / 0, 500)):

            def noting(*of: Any, joined: Callable[..., Any] = joined) -> Any:
                seen.append(worker.is_idle)
                return joined(*of)

            monkeypatch.setattr(Engine, "join", noting)
            assert server.ask("/v1/completions", {"prompt": "ab: ", "max_tokens": 3}).status == status
            assert worker.is_idle
    assert seen == [False, False]


def test_a_model_that_fails_is_told_and_the_server_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from core.sampling.engine import Engine

    with serving(["spaces"]) as server:
        body = {"prompt": "ab: ", "temperature": 0}
        good = server.ask("/v1/completions", body).json["choices"]
        for method in ("step", "join"):
            with monkeypatch.context() as broken:
                broken.setattr(Engine, method, lambda *_: 1 / 0)
                failed = server.ask("/v1/completions", body)
                streamed = server.ask("/v1/completions", body | {"stream": True})
            assert failed.status == 500 and "the model failed to write an answer" in failed.error
            assert "the model failed to write an answer" in streamed.events[-1]["error"]["message"]
            assert server.ask("/v1/completions", body).json["choices"] == good
        with monkeypatch.context() as broken:  # not even a new engine can be made, for a while
            broken.setattr(Engine, "step", lambda *_: 1 / 0)
            broken.setattr("core.serve.worker.Engine", lambda *_: 1 / 0)
            server.ask("/v1/completions", body)
            assert server.ask("/v1/completions", body).status == 500
        assert server.ask("/v1/completions", body).json["choices"] == good
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_thousand_malformed_requests(server: Running) -> None:
    """No answer above 499, no row or thread left behind, memory flat."""
    rng = random.Random(7)
    good = json.dumps({"model": "talker", "messages": [{"role": "user", "content": "moss"}], "max_tokens": 2}).encode()
    values = [None, True, -1, 0, 1e308, "", "x", [], {}, [[]], {"a": []}, "\ud800", 10**30]
    keys = ["model", "messages", "temperature", "stream", "stop", "seed", "max_tokens", "stream_options", "zzz", "n"]

    def body(number: int) -> bytes:
        if number % 3 == 0:
            data = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return bytes(data)
        fields = {rng.choice(keys): rng.choice(values) for _ in range(rng.randint(1, 3))}
        return json.dumps(json.loads(good) | fields).encode()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    paths = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"]
    before = 0
    for number in range(1000):
        if number == 300:
            before = resident()
        found = server.ask(rng.choice(paths), body(number))
        assert found.status < 500, found.body
    for number in range(100):  # not even HTTP
        with server.socket() as client:
            client.sendall(rng.randbytes(rng.randint(1, 200)) + b"\r\n\r\n" * (number % 2))
            client.shutdown(socket.SHUT_WR)
            client.settimeout(5)
            assert not re.match(rb"HTTP/1.1 5", client.recv(4096))
    assert resident() - before < 30 << 20
    assert all(not served.worker.tickets and not served.worker.waiting for served in server.shelf.models)
    assert server.chat("moss").status == 200


def test_the_real_client(server: Running) -> None:
    openai = pytest.importorskip("openai", reason="needs the openai client")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["talker", "spaces"]
        assert client.models.retrieve("spaces").owned_by == "terrarium"
        asked = {"model": "talker", "messages": [{"role": "user", "content": "moss"}], "temperature": 0}
        answer = client.chat.completions.create(**asked)
        history = [*asked["messages"], answer.choices[0].message.model_dump(), {"role": "user", "content": "fern"}]
        assert client.chat.completions.create(**asked | {"messages": history}).choices[0].message.role == "assistant"
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == answer.choices[0].message.content and chunks[-1].usage == answer.usage
        done = client.completions.create(model="spaces", prompt="ab: ", temperature=0, extra_body={"top_k": 3})
        assert done.choices[0].finish_reason in ("stop", "length")
        with pytest.raises(openai.BadRequestError, match="n is not supported here"):
            client.chat.completions.create(**asked, n=2)
        with pytest.raises(openai.NotFoundError, match="no model is called"):
            client.chat.completions.create(**asked | {"model": "none"})


def started(place: Path, *arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
    """The command in a process of its own, and what it has said up to its address."""
    command = [sys.executable, "-m", "core.cli", "serve", *arguments]
    process = subprocess.Popen(command, cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    said: list[str] = []
    while not said or "http://" not in said[-1]:
        line = process.stdout.readline()
        assert line, process.communicate()
        said.append(line)
    return process, said


def test_the_command(place: Path) -> None:
    process, said = started(place, "spaces", "talker", "--port", "0")
    assert said[0] == "models: spaces (text), talker (chat)\n"
    port = re.search(r"open http://127.0.0.1:(\d+)/ ", said[-1])
    assert port
    taken = subprocess.run(
        [sys.executable, "-m", "core.cli", "serve", "spaces", "--port", port[1]],
        cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert taken.returncode == 2 and f"127.0.0.1:{port[1]}: cannot listen there: Address already in use" in taken.stderr
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (130, "stopped\n", "")


def test_as_json(place: Path) -> None:
    process, said = started(place, "talker", "spaces", "--port", "0", "--token", "moss", "--json")
    assert process.stdout is not None
    while said[-1] != "}\n":
        said.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    found = json.loads("".join(said))
    assert re.fullmatch(r"http://127.0.0.1:\d+/", found.pop("url"))
    assert found == {"token": "moss", "models": ["talker", "spaces"]}


def test_off_this_machine_a_token_is_made(place: Path) -> None:
    process, said = started(place, "talker/default", "--host", "0.0.0.0", "--port", "0")
    token = re.search(r"http://127.0.0.1:\d+/#token=(\S+) ", said[-1])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143 and said[0] == "models: talker/default (chat)\n" and token and len(token[1]) >= 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "no experiment is called 'none'"),
        (["talker/none"], "talker has no run 'none'"),
        (["talker", "talker"], "talker: two models would be called talker\n  Name each model once."),
        (["experiments", "talker"], "talker: a folder of experiments and a model cannot be served together"),
        (["spaces", "--host", "256.0.0.1"], "256.0.0.1:8000: cannot listen there"),
    ],
)
def test_what_the_command_refuses(
    place: Path, terrarium: Callable[..., Result], arguments: list[str], message: str
) -> None:
    done = terrarium("serve", *arguments)
    assert done.exit_code == 2 and message in done.stderr


def test_folders_without_experiments(
    place: Path, terrarium: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("anna", "ben"):
        (tmp_path / "class" / name / "experiments" / "words").mkdir(parents=True)
        (tmp_path / "class" / name / "experiments" / "words" / "config.toml").write_text("")
    (tmp_path / "class" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, message in {
        "class": "class: this folder holds no experiments, but anna and ben in it do\n"
        "  Show what is there: python -m core.cli serve class/anna class/ben\n",
        "class/nobody": "class/nobody: there is no such folder, and no experiment is called 'class'\n"
        "  Folders with experiments: class/anna class/ben\n",
        "class/empty": "class/empty: there is no experiment in this folder\n",
        "nowhere/nobody": "nowhere/nobody: there is no such folder, and no experiment is called 'nowhere'\n",
    }.items():
        done = terrarium("serve", name)
        assert done.exit_code == 2 and done.stderr.startswith(f"error: {message}"), done.stderr


def test_without_names_runs_are_shown(place: Path) -> None:
    """The address holds a token, which actions need; --read-only has none. A folder beside a model is refused."""
    process, said = started(place, "--port", "0")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130 and said[0] == f"experiments: {place / 'experiments'}\n" and "/#token=" in said[-1]
    process, said = started(place, "experiments", "--read-only", "--port", "0")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130 and said[-1].startswith("open http://127.0.0.1:") and "token" not in said[-1]


def test_without_the_extra(place: Path, terrarium: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    if "core.serve" in sys.modules:  # what is imported in its place must not stay in the package `core`
        monkeypatch.setattr(sys.modules["core"], "serve", sys.modules["core.serve"])
    for name in [name for name in sys.modules if name.startswith(("core.serve", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = terrarium("serve", "spaces")
    assert (
        done.exit_code == 2
        and "serve needs the package uvicorn" in done.stderr
        and "pip install -c constraints.txt -e '.[serve]'" in done.stderr
    )
