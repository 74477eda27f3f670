"""A text on its way: what the model is given, and what each new token adds to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.chat.conversation import Message
from core.chat.tools import Tools
from core.encoders.base import Encoder
from core.lab.answering import Answering, ToolCall
from core.sampling.stops import StopTexts, TextStream


class AnyWriting(Protocol):
    """ended: whether what the model has written is complete. calling: whether it then calls a tool."""

    ended: bool

    @property
    def calling(self) -> bool: ...

    @property
    def prompt(self) -> tuple[int, ...]:
        """Ids after which the model writes."""

    @property
    def left_out(self) -> int:
        """How many of the oldest turns do not fit the model's context."""

    def take(self, token: int) -> str:
        """Add a token. Returns the piece of text that it makes certain."""

    def rest(self) -> str:
        """What was kept back, where no more tokens come."""

    def goes_on(self) -> ToolCall | None:
        """After `ended`: run the tool that is called, if one is. The model then writes another turn, after a new prompt.

        Returns the call with its result; None where the answer is over.
        """


class TextWriting:
    """The continuation of a text."""

    def __init__(self, prompt: Sequence[int], encoder: Encoder, stops: Sequence[str]) -> None:
        self.ids, self.encoder, self.ended = tuple(prompt), encoder, False
        self.stream, self.stops = TextStream(encoder, self.ids[-1]), StopTexts(stops)

    @property
    def calling(self) -> bool:
        return False

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.ids

    @property
    def left_out(self) -> int:
        return 0

    def take(self, token: int) -> str:
        if token == self.encoder.end_token:
            self.ended = True
            return self.rest()
        piece = self.stops.take(self.stream.take(token))
        self.ended = self.stops.ended
        return piece

    def rest(self) -> str:
        return self.stops.take(self.stream.rest()) + self.stops.rest()

    def goes_on(self) -> ToolCall | None:
        return None


class ChatWriting:
    """The assistant's answer to a conversation."""

    def __init__(
        self, messages: Sequence[Message], encoder: Encoder, block_size: int, stops: Sequence[str], tools: Tools
    ) -> None:
        """Raises UserError for messages that are not valid, or not encodable."""
        self.answering = Answering(tuple(messages), encoder, block_size, tools)
        self.stops, self.ended = StopTexts(stops), False

    @property
    def calling(self) -> bool:
        return self.answering.calling and not self.stops.ended

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.answering.prompt

    @property
    def left_out(self) -> int:
        return self.answering.left_out

    def take(self, token: int) -> str:
        piece = self.stops.take(self.answering.take(token))
        self.ended = self.answering.turn_ended or self.stops.ended
        return piece

    def rest(self) -> str:
        return self.stops.take(self.answering.rest()) + self.stops.rest()

    def goes_on(self) -> ToolCall | None:
        self.ended = False
        return self.answering.close_turn(stopped=self.stops.ended)
