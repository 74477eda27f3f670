"""Where a completion ends: tokens of several rows go in step by step, texts come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.encoders.base import Encoder

UNFINISHED = "\ufffd"  # a character whose last bytes are still to come


class Stops:
    """The rows of a batch, each until its end token or its first `stop` text."""

    def __init__(
        self, encoder: Encoder, before: list[int], stop: str, show: Callable[[str], Any] | None = None
    ) -> None:
        """before: the last token of each row's prompt. show: called with each new piece of row 0."""
        self.encoder, self.before, self.stop, self.show = encoder, before, stop, show
        self.ids: list[list[int]] = [[] for _ in before]
        self.open = set(range(len(before)))
        self.shown = 0  # characters of row 0
        self.span = len(stop.encode()) + 1  # tokens that can hold the stop text: each is a byte at least
        self.may_end: dict[int, bool] = {}

    def take(self, tokens: list[int]) -> bool:
        """One new token per row. True once every row has ended."""
        for row in list(self.open):
            token = tokens[row]
            if token == self.encoder.end_token:
                self.open.discard(row)
                continue
            self.ids[row].append(token)
            if self.stop and self.ends_stop(token) and self.stop in self.encoder.decode(self.ids[row][-self.span :]):
                self.open.discard(row)
            if row == 0 and self.show is not None:
                self.show_row(self.show)
        return not self.open

    def ends_stop(self, token: int) -> bool:
        """Whether the stop text can be complete with this token; spares decoding a row at every step."""
        if token not in self.may_end:
            text = self.encoder.decode([token, token])  # twice, for the space that goes without saying between words
            self.may_end[token] = UNFINISHED in text or self.stop[-1] in text
        return self.may_end[token]

    def show_row(self, show: Callable[[str], Any]) -> None:
        text = self.text(0)
        whole = text.rstrip(UNFINISHED) if 0 in self.open else text
        if len(whole) > self.shown:
            show(whole[self.shown :])
            self.shown = len(whole)

    def text(self, row: int) -> str:
        """A row's text so far, up to and with the stop text."""
        # Decoded behind the prompt's last token: a space between words belongs to neither.
        text = self.encoder.decode([self.before[row], *self.ids[row]])[len(self.encoder.decode([self.before[row]])) :]
        at = text.find(self.stop) if self.stop else -1
        return text if at < 0 else text[: at + len(self.stop)]

    def texts(self) -> list[str]:
        return [self.text(row) for row in range(len(self.ids))]
