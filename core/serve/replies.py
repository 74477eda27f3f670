"""Answers in the shapes of OpenAI's API, with the timings of llama.cpp's."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.lab.answering import ToolCall
from core.serve.worker import Happened, Ticket


@dataclass(frozen=True)
class Envelope:
    """How one answer is written. chat: as a message; otherwise as text. model: the name that the client gave or got.

    show_calls: with the calls of tools and their results.
    """

    model: str
    chat: bool
    show_calls: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, *, chunk: bool) -> dict[str, Any]:
        """What every JSON of the answer begins with."""
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def whole(self, answer: Happened, ticket: Ticket) -> dict[str, Any]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": answer.text} | self.called(answer.calls)
        said = {"message": message} if self.chat else {"text": answer.text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": answer.reason}
        return self.head(chunk=False) | {"choices": [choice], "usage": usage(ticket), "timings": timings(ticket)}

    def opening(self) -> str:
        """The first event of a stream: the role. Text has none."""
        return event(self.chunk({"role": "assistant", "content": ""})) if self.chat else ""

    def piece(self, happened: Happened) -> str:
        """The event of a piece of text, perhaps with calls; "" where there is nothing to say."""
        calls = self.called(happened.calls)
        if not happened.text and not calls:
            return ""
        return event(self.chunk({"content": happened.text, **calls} if self.chat else happened.text))

    def called(self, calls: Sequence[ToolCall]) -> dict[str, Any]:
        """Calls of tools, if they are to be shown. `at`: how many characters of the answer's text stand before each."""
        return {"calls": [call._asdict() for call in calls]} if calls and self.show_calls else {}

    def ending(self, reason: str, ticket: Ticket, *, with_usage: bool) -> str:
        """The last events of a stream."""
        last = self.chunk({} if self.chat else "", reason) | {"timings": timings(ticket)}
        events = event(last)
        if with_usage:
            totals = {"choices": [], "usage": usage(ticket), "timings": timings(ticket)}
            events += event(self.head(chunk=True) | totals)
        return f"{events}data: [DONE]\n\n"

    def chunk(self, said: dict[str, Any] | str, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, ("delta" if self.chat else "text"): said, "logprobs": None, "finish_reason": reason}
        return self.head(chunk=True) | {"choices": [choice]}


def event(value: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def usage(ticket: Ticket) -> dict[str, int]:
    """Tokens of the prompt and of the answer."""
    return {
        "prompt_tokens": ticket.prompt_tokens,
        "completion_tokens": ticket.new_tokens,
        "total_tokens": ticket.prompt_tokens + ticket.new_tokens,
    }


def timings(ticket: Ticket) -> dict[str, float]:
    """Milliseconds and tokens per second, from the moment when the prompt was taken up.

    left_out: how many of the oldest messages no longer fit the model's context.
    """
    prompt, written = ticket.first - ticket.begun, ticket.last - ticket.first
    later = ticket.new_tokens - 1  # the first token comes with the prompt
    return {
        "prompt_n": ticket.prompt_tokens,
        "prompt_ms": round(1000 * prompt, 3),
        "prompt_per_second": round(ticket.prompt_tokens / prompt, 3) if prompt > 0 else 0.0,
        "predicted_n": ticket.new_tokens,
        "predicted_ms": round(1000 * written, 3),
        "predicted_per_second": round(later / written, 3) if written > 0 else 0.0,
        "left_out": ticket.writing.left_out,
    }
