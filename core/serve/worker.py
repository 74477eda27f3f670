"""The thread that writes the answers of one model, all of them together, and hands their pieces to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from core.lab.answering import ToolCall
from core.lab.model import LoadedModel
from core.sampling.engine import Continuation, Engine, Running
from core.serve.limits import Limits
from core.serve.writing import AnyWriting

TOGETHER = 0.01  # seconds for which pieces are collected: waking the event loop up costs as much as writing a token
FAILED = "the model failed to write an answer; the server's terminal says why"


class Busy(Exception):
    """So many requests wait that another one is refused."""


@dataclass(frozen=True)
class Happened:
    """text: a piece of the answer. reason: why it has ended, "stop", "length" or "error" (then text is the message); or "".

    calls: of tools that were answered meanwhile.
    """

    text: str
    reason: str = ""
    calls: tuple[ToolCall, ...] = ()

    def then(self, later: Happened) -> Happened:
        """Both in one."""
        return Happened(self.text + later.text, later.reason, self.calls + later.calls)


NOTHING = Happened("")


@dataclass(eq=False)
class Ticket:
    """A request on its way through the worker.

    settings: how tokens are drawn, as Continuation has them. prompt_tokens, new_tokens: counted so far. begun, first, last:
    when its prompt was taken up, its first token came, and its last; seconds of a clock. called: after a turn that calls a
    tool: the call with its result, or None if the answer is over. failed: whether there was a bug instead.
    """

    writing: AnyWriting
    settings: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Happened] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    called: ToolCall | None = None
    failed: bool = False
    prompt_tokens: int = 0
    new_tokens: int = 0
    begun: float = 0.0
    first: float = 0.0
    last: float = 0.0

    @property
    def left(self) -> int:
        """Tokens that may still be written."""
        return int(self.settings["max_new_tokens"]) - self.new_tokens


class Worker:
    """Writes answers of a model in a thread of its own. Requests join and leave between steps."""

    def __init__(self, model: LoadedModel, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.changed = threading.Condition()
        self.waiting: deque[Ticket] = deque()
        self.tickets: dict[Running, Ticket] = {}
        self.calling: set[Ticket] = set()  # wait for a tool
        self.taken: Ticket | None = None  # is given a row, which takes as long as its prompt
        self.closed = False
        self.news: dict[Ticket, Happened] = {}  # what has not been handed over yet
        self.handed_over = 0.0  # when that was last done
        self.prompt_tokens = self.new_tokens = 0  # of all requests
        self.thread = threading.Thread(target=self.work, name=f"worker of {model.run.title}", daemon=True)

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        with self.changed:
            return not (self.tickets or self.waiting or self.calling or self.taken)

    def start(self) -> None:
        self.thread.start()

    def close(self) -> None:
        """End the thread; answers on their way end with an error."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        if self.thread.is_alive():
            self.thread.join()

    def submit(self, writing: AnyWriting, settings: dict[str, Any]) -> Ticket:
        """Ask for an answer, from within an event loop. Raises Busy."""
        ticket = Ticket(writing, settings, asyncio.get_running_loop())
        with self.changed:
            if self.closed or len(self.waiting) >= self.limits.waiting:
                raise Busy
            self.waiting.append(ticket)
            self.changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nobody wants the answer any more. Its row is free from the next step on."""
        with self.changed:
            ticket.cancelled = True
            with contextlib.suppress(ValueError):
                self.waiting.remove(ticket)

    def work(self) -> None:
        """What the thread does."""
        with self.model.trained.machine.computing():
            engine: Engine | None = None
            while not self.closed:
                try:
                    self.await_work()
                    engine = engine or Engine(self.model.module, self.limits.rows)
                    if self.take_in(engine):
                        self.step(engine)
                except Exception as error:  # a bug, or no memory: those who wait must hear of it, and others may come
                    traceback.print_exception(error)
                    self.give_up(FAILED, everybody=engine is None)
                    engine = None
        self.give_up("the server is closing", everybody=True)

    def await_work(self) -> None:
        """Block while there is nothing to do."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or self.waiting or self.tickets)

    def take_in(self, engine: Engine) -> bool:
        """Give rows to those who wait. Returns False at the end."""
        while True:
            with self.changed:
                self.taken = None
                if self.closed:
                    return False
                if not (self.waiting and engine.room):
                    return True
                ticket = self.taken = self.waiting.popleft()
                goes_on = ticket in self.calling
                self.calling.discard(ticket)
            if ticket.cancelled:
                continue
            if goes_on:
                self.go_on(engine, ticket)
            else:
                ticket.begun = time.perf_counter()
                self.begin_turn(engine, ticket)

    def go_on(self, engine: Engine, ticket: Ticket) -> None:
        """What follows when a tool has answered."""
        calls = (ticket.called,) if ticket.called else ()
        if ticket.failed:
            self.fail(ticket)
        elif calls and ticket.left:
            self.note(ticket, Happened("", calls=calls))
            self.begin_turn(engine, ticket)
        else:
            self.note(ticket, Happened("", "length" if calls else "stop", calls))
            self.taken = None
            self.hand_over()

    def begin_turn(self, engine: Engine, ticket: Ticket) -> None:
        """Have the engine continue the prompt as it is now."""
        ids = ticket.writing.prompt
        ticket.prompt_tokens += len(ids)
        self.prompt_tokens += len(ids)
        settings = ticket.settings | {"max_new_tokens": ticket.left}
        try:
            self.tickets[engine.join(Continuation(ids, **settings))] = ticket
        except Exception:
            self.fail(ticket)
            raise

    def fail(self, ticket: Ticket) -> None:
        """End an answer with an error. What it has so far stands before that."""
        self.taken = None
        self.hand_over()
        deliver([(ticket, Happened(FAILED, "error"))])

    def step(self, engine: Engine) -> None:
        """Write one token of each answer, and hand over what that adds, at once where an answer ends."""
        for running in [running for running, ticket in self.tickets.items() if ticket.cancelled]:
            self.leave(engine, running)
        ended = False
        for running in engine.step():
            ticket = self.tickets[running]
            happened = self.advance(engine, running, ticket)
            ended = ended or bool(happened.reason) or ticket in self.calling
            if happened.text or happened.reason:
                self.note(ticket, happened)
        now = time.perf_counter()
        if ended or now - self.handed_over >= TOGETHER:
            self.handed_over = now
            self.hand_over()

    def note(self, ticket: Ticket, happened: Happened) -> None:
        """Keep what has happened until it is handed over."""
        self.news[ticket] = self.news.get(ticket, NOTHING).then(happened)

    def hand_over(self) -> None:
        deliver(list(self.news.items()))
        self.news.clear()

    def advance(self, engine: Engine, running: Running, ticket: Ticket) -> Happened:
        """What a new token means for its answer."""
        writing, now = ticket.writing, time.perf_counter()
        ticket.new_tokens, ticket.first, ticket.last = ticket.new_tokens + 1, ticket.first or now, now
        self.new_tokens += 1
        piece = writing.take(running.tokens[-1])
        if not writing.ended and ticket.left:
            return Happened(piece)
        if writing.ended and writing.calling:
            self.calling.add(ticket)  # first: it is never nowhere
        self.leave(engine, running)
        if not writing.ended:
            return Happened(piece + writing.rest(), "length")
        if not writing.calling:
            writing.goes_on()
            return Happened(piece, "stop")
        threading.Thread(target=self.call, args=(ticket,), daemon=True).start()
        return Happened(piece)

    def call(self, ticket: Ticket) -> None:
        """Run a tool, in a thread of its own: others go on meanwhile. Then the answer waits for a row again, before new ones."""
        try:
            ticket.called = ticket.writing.goes_on()
        except Exception as error:  # a bug: the tools themselves give errors as text
            traceback.print_exception(error)
            ticket.failed = True
        with self.changed:
            self.waiting.appendleft(ticket)
            self.changed.notify()

    def leave(self, engine: Engine, running: Running) -> None:
        engine.leave(running)
        del self.tickets[running]

    def give_up(self, message: str, *, everybody: bool = False) -> None:
        """End all answers on their way with an error. everybody: those that wait, too."""
        self.hand_over()
        with self.changed:
            tickets = {*self.tickets.values(), *((*self.waiting, *self.calling) if everybody else ())}
            self.tickets.clear()
            self.taken = None
            if everybody:
                self.waiting.clear()
                self.calling.clear()
        deliver([(ticket, Happened(message, "error")) for ticket in tickets])


def deliver(news: list[tuple[Ticket, Happened]]) -> None:
    """Hand events to the loops that wait for them, in one call for each loop: waking one up costs more than an event."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Happened]]] = {}
    for ticket, happened in news:
        loops.setdefault(ticket.loop, []).append((ticket, happened))
    for loop, events in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has been closed, and nobody waits
            loop.call_soon_threadsafe(put, events)


def put(events: list[tuple[Ticket, Happened]]) -> None:
    for ticket, happened in events:
        ticket.events.put_nowait(happened)
