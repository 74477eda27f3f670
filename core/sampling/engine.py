"""Many completions at once, which come and go between steps and share each call of the model.

A completion's tokens are those that it would have alone: its draws depend on its own seed, and its logits on its own tokens
(core/models/slots.py says how exactly).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.sampling.generate import seen
from core.sampling.rows import rows_of
from core.sampling.samplers import choose, uniform_draws


@dataclass(frozen=True)
class Continuation:
    """What is asked for. ids: at least one, to be continued. Otherwise as for `generate`."""

    ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


class Running:
    """A continuation on its way. tokens: the given and the new ones. begin: the first that the model sees."""

    def __init__(self, asked: Continuation, device: torch.device) -> None:
        self.asked, self.tokens, self.begin = asked, list(asked.ids), 0
        self.draws = uniform_draws([asked.seed], asked.max_new_tokens, device) if asked.temperature else None

    @property
    def new(self) -> list[int]:
        """The new tokens so far."""
        return self.tokens[len(self.asked.ids) :]

    @property
    def written(self) -> int:
        """How many new tokens there are."""
        return len(self.tokens) - len(self.asked.ids)


class Engine:
    """Continues up to `rows` texts of a model at once. Call it from one thread."""

    def __init__(self, model: nn.Module, rows: int) -> None:
        self.at_most = rows
        self.block_size = int(model.block_size)  # type: ignore[arg-type]
        self.device = next(model.parameters()).device
        self.running: list[Running] = []
        self.rows = rows_of(model.eval(), rows)

    @property
    def room(self) -> int:
        """How many more can join."""
        return self.at_most - len(self.running)

    def join(self, asked: Continuation) -> Running:
        """Begin a continuation; `step` then gives its tokens. Raises ValueError if there is no room."""
        return self.join_all([asked])[0]

    @torch.inference_mode()
    def join_all(self, asked: Sequence[Continuation]) -> list[Running]:
        """`join` for several, which takes less time for those whose ids are equal, or as many."""
        if len(asked) > self.room:
            raise ValueError(f"all {self.at_most} rows are taken")
        new = [Running(each, self.device) for each in asked]
        for running in new:
            running.begin = len(running.tokens) - seen(len(running.tokens), self.block_size)
        self.rows.begin(*[running.tokens[running.begin : -1] for running in new])
        self.running += new
        return new

    def leave(self, running: Running) -> None:
        """End a continuation."""
        row = self.running.index(running)
        self.rows.end(row)
        last = self.running.pop()
        if last is not running:
            self.running[row] = last

    @torch.inference_mode()
    def force(self, running: Running, ids: Sequence[int]) -> None:
        """Add ids that were not chosen: the continuation goes on after them. They count as new tokens."""
        running.tokens += ids
        size = len(running.tokens) - running.begin
        if size > self.block_size:
            running.begin += size - seen(size, self.block_size)
        self.rows.again(self.running.index(running), running.tokens[running.begin : -1])

    @torch.inference_mode()
    def step(self) -> list[Running]:
        """Add a token to each continuation, and return them all. When one exceeds block_size, it goes on as in `generate`."""
        if not self.running:
            return []
        for row, running in enumerate(self.running):
            size = len(running.tokens) - running.begin
            if size > self.block_size:
                running.begin += size - seen(size, self.block_size)
                self.rows.again(row, running.tokens[running.begin : -1])
        logits = self.rows.step([running.tokens[-1] for running in self.running])
        for running, token in zip(self.running, self.chosen(logits), strict=True):
            running.tokens.append(token)
        return list(self.running)

    def chosen(self, logits: Tensor) -> list[int]:
        """The next token of each continuation, from logits (B, V). Those that draw alike are drawn together."""
        alike: dict[tuple[float, int, float], list[int]] = defaultdict(list)
        for row, running in enumerate(self.running):
            asked = running.asked
            alike[(asked.temperature, asked.top_k, asked.top_p)].append(row)
        tokens = [0] * len(self.running)
        for (temperature, top_k, top_p), rows in alike.items():
            draws = [
                running.draws[running.written, 0] for row in rows if (running := self.running[row]).draws is not None
            ]
            draw = torch.stack(draws) if draws else None
            found = choose(logits[rows], draw, temperature=temperature, top_k=top_k, top_p=top_p)
            for row, token in zip(rows, found.tolist(), strict=True):
                tokens[row] = token
        return tokens
