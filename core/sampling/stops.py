"""Collect the sampled tokens of several rows, and decide where each completion ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.encoders.base import Encoder

UNFINISHED = "\ufffd"  # how a character decodes while bytes of it are missing


class Stops:
    """The completions of a batch. Each ends at its end token or after its first `stop` text."""

    def __init__(
        self, encoder: Encoder, before: list[int], stop: str, show: Callable[[str], Any] | None = None
    ) -> None:
        """before: the last token of each row's prompt. show: called with each new piece of text of row 0."""
        self.encoder, self.before, self.stop, self.show = encoder, before, stop, show
        self.ids: list[list[int]] = [[] for _ in before]
        self.open = set(range(len(before)))
        self.shown = 0  # characters of row 0
        self.span = len(stop.encode()) + 1  # the stop text fits into so many tokens: each is at least a byte
        self.may_end: dict[int, bool] = {}

    def take(self, tokens: list[int]) -> bool:
        """Add one token per row. Returns True when every row has ended."""
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
        """Whether the stop text can end with this token. Avoids decoding the row at every step."""
        if token not in self.may_end:
            text = self.encoder.decode([token, token])  # twice, to include an implicit space between words
            self.may_end[token] = UNFINISHED in text or self.stop[-1] in text
        return self.may_end[token]

    def show_row(self, show: Callable[[str], Any]) -> None:
        text = self.text(0)
        whole = text.rstrip(UNFINISHED) if 0 in self.open else text
        if len(whole) > self.shown:
            show(whole[self.shown :])
            self.shown = len(whole)

    def text(self, row: int) -> str:
        """A row's text so far, up to and including the stop text."""
        # Decoded together with the prompt's last token, to include a space between the two words.
        text = self.encoder.decode([self.before[row], *self.ids[row]])[len(self.encoder.decode([self.before[row]])) :]
        at = text.find(self.stop) if self.stop else -1
        return text if at < 0 else text[: at + len(self.stop)]

    def texts(self) -> list[str]:
        return [self.text(row) for row in range(len(self.ids))]
