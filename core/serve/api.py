"""The API's endpoints: models, chat, completions, tokens. Imported when the first of them is asked for, as it needs torch."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AbstractAsyncContextManager

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from core.errors import UserError
from core.sampling.generate import prompt_ids
from core.serve.bodies import Asked, AskedForChat, AskedForContent, AskedForText, AskedForTokens, read
from core.serve.errors import Refused, error_body, refused
from core.serve.limits import Limits
from core.serve.live.tokens import is_let_act
from core.serve.live.view import View
from core.serve.models import AnyShelf, Served
from core.serve.replies import Envelope
from core.serve.streaming import EventStream, whole_answer
from core.serve.worker import Busy
from core.serve.writing import AnyWriting, ChatWriting, TextWriting


def using(request: Request, name: str | None) -> AbstractAsyncContextManager[Served]:
    """The model of this name, for a block. Opening it may take seconds, in which others are answered. Raises Refused."""
    shelf: AnyShelf = request.app.state.shelf
    view: View | None = request.app.state.view
    return shelf.using(name, may_act=view is not None and is_let_act(view, request))


async def models(request: Request) -> Response:
    """GET /v1/models: what clients may ask for."""
    shelf: AnyShelf = request.app.state.shelf
    return JSONResponse({"object": "list", "data": await asyncio.to_thread(shelf.described)})


async def one_model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    async with using(request, request.path_params["name"]) as served:
        return JSONResponse(served.described())


async def metrics(request: Request) -> Response:
    """GET /metrics: counters for Prometheus."""
    shelf: AnyShelf = request.app.state.shelf
    lines = []
    for name, kind, value_of in (
        ("prompt_tokens_total", "counter", lambda worker: worker.prompt_tokens),
        ("predicted_tokens_total", "counter", lambda worker: worker.new_tokens),
        ("requests_processing", "gauge", lambda worker: len(worker.tickets)),
        ("requests_waiting", "gauge", lambda worker: len(worker.waiting)),
    ):
        lines.append(f"# TYPE terrarium_{name} {kind}")
        lines += [
            f"terrarium_{name}{{model={json.dumps(served.name)}}} {value_of(served.worker)}" for served in shelf.models
        ]
    return PlainTextResponse("\n".join(lines) + "\n")


async def chat_completions(request: Request) -> Response:
    """POST /v1/chat/completions: the assistant's next turn."""
    limits: Limits = request.app.state.limits
    asked = read(AskedForChat, await request.body(), limits)
    async with using(request, asked.model) as served:
        if not served.can_chat:
            raise Refused(
                f"{served.name} was not trained on conversations. Ask /v1/completions to continue a text.",
                param="model",
                code="chat_not_supported",
            )
        messages = [turn.message for turn in asked.messages]
        try:
            writing = await asyncio.to_thread(
                ChatWriting, messages, served.model.encoder, served.model.block_size, asked.stops, served.model.tools
            )
        except UserError as error:
            raise refused(error, "messages") from None
        return await answer(request, served, asked, writing, chat=True)


async def completions(request: Request) -> Response:
    """POST /v1/completions: the continuation of a text. It ends before the text that ended documents in training, too."""
    limits: Limits = request.app.state.limits
    asked = read(AskedForText, await request.body(), limits)
    async with using(request, asked.model) as served:
        try:
            ids = await asyncio.to_thread(lambda: prompt_ids(served.model.encoder, served.model.begun(asked.prompt)))
        except UserError as error:
            raise refused(error, "prompt") from None
        own = served.model.decoding({})["stop"]
        stops = asked.stops if asked.stop is not None else [own] if own else []
        return await answer(request, served, asked, TextWriting(ids, served.model.encoder, stops), chat=False)


async def answer(request: Request, served: Served, asked: Asked, writing: AnyWriting, *, chat: bool) -> Response:
    """Have the model write, and answer with that: in events, or in one piece."""
    limits: Limits = request.app.state.limits
    param = "messages" if chat else "prompt"
    if len(writing.prompt) > served.model.block_size:
        raise Refused(
            f"{param}: {len(writing.prompt):,} tokens do not fit the {served.model.block_size:,} that {served.name} sees. Shorten it.",
            param=param,
            code="context_length_exceeded",
        )
    try:
        settings = served.model.decoding(asked.choices)
    except UserError as error:
        raise refused(error, "body") from None
    settings.pop("stop")
    settings["max_new_tokens"] = min(settings["max_new_tokens"], limits.new_tokens)
    settings["seed"] = secrets.randbits(62) if asked.seed is None else asked.seed
    try:
        ticket = served.worker.submit(writing, settings)
    except Busy:
        raise Refused(
            "so many requests wait that this one is refused. Try again in a moment.",
            status=429,
            code="busy",
            headers={"Retry-After": "1"},
        ) from None
    envelope = Envelope(served.name, chat, isinstance(asked, AskedForChat) and asked.show_calls)
    if asked.stream:
        return EventStream(served.worker, ticket, envelope, limits, with_usage=asked.wants_usage)
    whole = await whole_answer(served.worker, ticket, request.receive)
    if whole is None:  # the client has gone, and nobody reads this
        return Response(status_code=499)
    if whole.reason == "error":
        return JSONResponse(error_body(whole.text, 500), 500)
    return JSONResponse(envelope.whole(whole, ticket))


async def tokenize(request: Request) -> Response:
    """POST /tokenize: the ids of a text."""
    asked = read(AskedForTokens, await request.body(), request.app.state.limits)
    async with using(request, asked.model) as served:
        try:
            ids = await asyncio.to_thread(served.model.encoder.encode, asked.content)
        except UserError as error:
            raise refused(error, "content") from None
        return JSONResponse({"tokens": [int(token) for token in ids]})


async def detokenize(request: Request) -> Response:
    """POST /detokenize: the text of ids."""
    asked = read(AskedForContent, await request.body(), request.app.state.limits)
    async with using(request, asked.model) as served:
        known = served.model.encoder.vocab_size
        if unknown := [token for token in asked.tokens if token >= known]:
            raise Refused(f"tokens: {unknown[0]} is not one of {known:,} ids", param="tokens", code="invalid_value")
        return JSONResponse({"content": await asyncio.to_thread(served.model.encoder.decode, asked.tokens)})
