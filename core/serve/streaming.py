"""An answer that is sent while it is written, and what happens when its client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import reduce

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.serve.errors import error_body
from core.serve.limits import Limits
from core.serve.replies import Envelope
from core.serve.worker import Happened, Ticket, Worker

SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}


async def happenings(ticket: Ticket) -> AsyncIterator[list[Happened]]:
    """What happens to an answer, all that is there at a time, up to its end."""
    while True:
        found = [await ticket.events.get()]
        while not ticket.events.empty():
            found.append(ticket.events.get_nowait())
        ends = [number for number, happened in enumerate(found, 1) if happened.reason]
        yield found[: ends[0]] if ends else found
        if ends:
            return


async def gone(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events. If the client goes away, or does not read a finished answer in time, the answer is dropped."""

    def __init__(self, worker: Worker, ticket: Ticket, envelope: Envelope, limits: Limits, *, with_usage: bool) -> None:
        self.worker, self.ticket, self.envelope, self.limits = worker, ticket, envelope, limits
        self.with_usage = with_usage
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks = {asyncio.ensure_future(self.write(send)), asyncio.ensure_future(gone(receive))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # It went away, or is too slow.
                with contextlib.suppress(asyncio.CancelledError, asyncio.TimeoutError, OSError):
                    task.result()
        finally:
            self.worker.cancel(self.ticket)
            for task in tasks:
                task.cancel()

    async def write(self, send: Send) -> None:
        """Send the events as they come."""
        headers = [(name.encode(), value.encode()) for name, value in SSE.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        events = self.envelope.opening()
        async for found in happenings(self.ticket):
            events += "".join(self.event_of(happened) for happened in found)
            more = not found[-1].reason
            sending = send({"type": "http.response.body", "body": events.encode(), "more_body": more})
            await (sending if more else asyncio.wait_for(sending, self.limits.sending))
            events = ""

    def event_of(self, happened: Happened) -> str:
        """The events that say it."""
        if happened.reason == "error":
            return f"data: {json.dumps(error_body(happened.text, 500))}\n\ndata: [DONE]\n\n"
        piece = self.envelope.piece(happened)
        if not happened.reason:
            return piece
        return piece + self.envelope.ending(happened.reason, self.ticket, with_usage=self.with_usage)


async def whole_answer(worker: Worker, ticket: Ticket, receive: Receive) -> Happened | None:
    """An answer when it is complete; None if the client has gone away before."""

    async def collect() -> Happened:
        answer = Happened("")
        async for found in happenings(ticket):
            if found[-1].reason == "error":
                return found[-1]
            answer = reduce(Happened.then, found, answer)
        return answer

    tasks = asyncio.ensure_future(collect()), asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        worker.cancel(ticket)
        for task in tasks:
            task.cancel()
