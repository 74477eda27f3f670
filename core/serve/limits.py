"""How much of the server a client may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """rows: answers that are written at once. waiting: requests that wait for a row; more are refused.

    new_tokens, messages, stops, stop_length (characters): of one request. body: its bytes. connections: open at once.
    reading, sending: seconds that a client may take to send a request, and to read an answer that is finished.
    """

    rows: int = 16
    waiting: int = 64
    new_tokens: int = 4096
    messages: int = 1000
    stops: int = 8
    stop_length: int = 200
    body: int = 1 << 20
    connections: int = 1024
    reading: float = 15.0
    sending: float = 30.0
