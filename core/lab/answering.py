"""The assistant's answer to a conversation, built from tokens as they come: its turns, and between them results of tools."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from core.chat.conversation import TOOL, Conversation, Message
from core.chat.render import render_prompt, reply_of, shortened
from core.chat.tools import MOST_CALLS, Tools, result_of
from core.encoders.base import Encoder
from core.encoders.special import marks_of
from core.errors import UserError
from core.sampling.stops import TextStream

ROOM = 4  # a quarter of block_size is kept free for the answer


class ToolCall(NamedTuple):
    """A call in an answer, and its result. at: how many characters of the answer's text stand before it."""

    call: str
    result: str
    at: int


class Answering:
    """What is known of an answer while the model writes it.

    messages: the conversation, with the turns that the answer has added. prompt: ids after which the model writes now.
    left_out: how many of the oldest turns do not fit the model's context. said: the text of the answer so far.
    """

    def __init__(self, messages: tuple[Message, ...], encoder: Encoder, block_size: int, tools: Tools) -> None:
        """Raises UserError for messages that are not valid, or not encodable."""
        self.encoder, self.block_size, self.tools = encoder, block_size, tools
        self.tool = marks_of(encoder)[TOOL]
        self.given, self.messages, self.said, self.calls = len(messages), messages, "", 0
        self.begin_turn()

    def begin_turn(self) -> None:
        """Start the assistant's next turn."""
        kept, self.left_out = shortened(
            Conversation(self.messages), self.encoder, self.block_size - self.block_size // ROOM
        )
        self.prompt: tuple[int, ...] = tuple(render_prompt(kept, self.encoder).tolist())
        self.written: list[int] = []
        self.held: list[int] = []  # the last tokens, if <|tool|> may have begun with them
        self.stream = TextStream(self.encoder, self.prompt[-1])
        self.calling = self.turn_ended = False

    def take(self, token: int) -> str:
        """Add a token. Returns a piece of what the assistant says, perhaps "". `turn_ended` says whether its turn is over."""
        self.written.append(token)
        self.turn_ended = token == self.encoder.end_token
        piece = ""
        if self.turn_ended:
            piece = self.rest()
        elif not self.calling:
            self.held.append(token)
            self.calling = self.held == list(self.tool)
            piece = self.stream.rest() if self.calling else self.release()
        self.said += piece
        return piece

    def release(self) -> str:
        """The text of the tokens with which <|tool|> has not begun. Those that may be its beginning stay held."""
        piece = ""
        while self.held and self.held != list(self.tool[: len(self.held)]):
            piece += self.stream.take(self.held.pop(0))
        return piece

    def rest(self) -> str:
        """Where no more tokens come: the text that was kept back."""
        held, self.held = [] if self.calling else self.held, []
        return "".join([*map(self.stream.take, held), "" if self.calling else self.stream.rest()])

    def close_turn(self, *, stopped: bool = False) -> ToolCall | None:
        """Add the turn to the conversation. If it has ended with a call, run the tool, add its result, and begin another turn.

        Returns the call, or None where no other turn has begun. stopped: none begins.
        """
        turn = reply_of(self.written, self.encoder)
        if turn.content or turn.call:
            self.messages = (*self.messages, turn)
        if stopped or not (turn.call and self.turn_ended and self.calls < MOST_CALLS):
            return None
        result = Message("tool", result_of(turn.call, self.tools, self.encoder))
        before, self.messages = self.messages, (*self.messages, result)
        try:
            self.begin_turn()
        except UserError:  # the call as text may have a space, which a vocabulary of few characters may not have
            self.messages = before
            return None
        self.calls += 1
        return ToolCall(turn.call, result.content, len(self.said))

    @property
    def turns(self) -> tuple[Message, ...]:
        """What the answer has added to the conversation: nothing, or turns of which the last one is the assistant's."""
        added = self.messages[self.given :]
        while added and (added[-1].role == "tool" or added[-1].call):  # a call that nobody has answered or taken up
            last, added = added[-1], added[:-1]
            if last.role == "assistant" and last.content:
                added = (*added, replace(last, call=""))
        return added
