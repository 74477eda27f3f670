"""Collect sampled tokens, decide where a completion ends, and give its text in pieces of whole characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self.stream = TextStream(encoder, before[0])  # of row 0
        self.shown = 0  # characters of it
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
                self.show_row(self.show, self.stream.take(token))
        return not self.open

    def ends_stop(self, token: int) -> bool:
        """Whether the stop text can end with this token. Avoids decoding the row at every step."""
        if token not in self.may_end:
            text = self.encoder.decode([token, token])  # twice, to include an implicit space between words
            self.may_end[token] = UNFINISHED in text or self.stop[-1] in text
        return self.may_end[token]

    def show_row(self, show: Callable[[str], Any], piece: str) -> None:
        """Show a piece of row 0; its last one ends where the completion does."""
        if 0 not in self.open:
            piece = self.text(0)[self.shown :]
        if piece:
            show(piece)
            self.shown += len(piece)

    def text(self, row: int) -> str:
        """A row's text so far, up to and including the stop text."""
        # Decoded together with the prompt's last token, to include a space between the two words.
        text = self.encoder.decode([self.before[row], *self.ids[row]])[len(self.encoder.decode([self.before[row]])) :]
        at = text.find(self.stop) if self.stop else -1
        return text if at < 0 else text[: at + len(self.stop)]

    def texts(self) -> list[str]:
        return [self.text(row) for row in range(len(self.ids))]


class TextStream:
    """The text of tokens that come one by one, in pieces of whole characters."""

    def __init__(self, encoder: Encoder, before: int) -> None:
        """before: the last token of the prompt."""
        self.encoder = encoder
        self.ids = [before]  # the token that ended the last whole text, and those since
        self.given = 0  # characters of their text that have been given out

    def take(self, token: int) -> str:
        """Add a token. Returns the text that it makes whole; "" where bytes of a character are missing."""
        self.ids.append(token)
        text = self.text()
        whole = text.rstrip(UNFINISHED)
        piece, self.given = whole[self.given :], len(whole)
        if whole == text:
            self.ids, self.given = self.ids[-1:], 0
        return piece

    def rest(self) -> str:
        """At the end: what was kept back because bytes of it are missing."""
        return self.text()[self.given :]

    def text(self) -> str:
        # Decoded together with the token before, to include a space between two words.
        return self.encoder.decode(self.ids)[len(self.encoder.decode(self.ids[:1])) :]


class StopTexts:
    """Cuts a text that comes in pieces off before the first of some texts."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.kept = tuple(stops), ""
        self.ended = False

    def take(self, piece: str) -> str:
        """Add a piece. Returns what is certain to stand before any stop text; `ended` says whether one was there."""
        text = self.kept + piece
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.ended, self.kept = True, ""
            return text[: min(places)]
        begun = max(
            (length for stop in self.stops for length in range(1, len(stop)) if text.endswith(stop[:length])), default=0
        )
        self.kept = text[len(text) - begun :]
        return text[: len(text) - begun]

    def rest(self) -> str:
        """At the end: what was kept back because a stop text could have begun there."""
        return self.kept
