"""Let a model write after many prompts at once, and keep the ids: what it chose, and what was put between by a tool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from torch import nn

from core.sampling.engine import Continuation, Engine, Running

AT_ONCE = 64  # rows that share a call of the model
JOINING = 4  # new prompts join when this part of the rows is free
Respond = Callable[[Sequence[int]], Sequence[int]]  # what was written so far -> ids to go on with; usually none
Until = Callable[[Sequence[int]], bool]  # what was written so far -> whether that is enough


@dataclass(frozen=True)
class Rollout:
    """What was written after a prompt. prompt, written: ids. forced: which of the written ids the model did not choose.

    ended: the last one ends it, or it was enough; otherwise it was cut at the most tokens.
    """

    prompt: tuple[int, ...]
    written: tuple[int, ...]
    forced: tuple[bool, ...]
    ended: bool


@dataclass
class Writing:
    """A rollout on its way. forced: the places of forced ids among the written ones."""

    number: int
    running: Running
    forced: set[int] = field(default_factory=set)


def roll_out(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    ends: Collection[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    respond: Respond | None = None,
    until: Until | None = None,
    at_once: int = AT_ONCE,
) -> list[Rollout]:
    """Write after each prompt of ids, up to an id of `ends` or max_new_tokens, forced ids included. Rollout i is drawn with seeds[i].

    temperature 0: the likeliest ids. top_k, top_p: as for `generate`; left out, nothing but the temperature changes the
    model's distribution. respond: is asked at every such id; where it gives ids, they are forced and the model goes on after
    them. until: is asked after every id, and may end a rollout. The prompts and max_new_tokens together
    must fit the model's block_size, or the model does not see the beginning.
    """
    engine = Engine(model, min(at_once, len(prompts)))
    asked = [
        Continuation(tuple(ids), max_new_tokens, temperature, top_k, top_p, seed)
        for ids, seed in zip(prompts, seeds, strict=True)
    ]
    waiting = sorted(range(len(asked)), key=lambda number: (len(asked[number].ids), asked[number].ids), reverse=True)
    active: list[Writing] = []
    done: dict[int, Rollout] = {}
    while waiting or active:
        # Some at a time, because prompts of one length are read together.
        if waiting and engine.room >= min(len(waiting), max(1, at_once // JOINING)):
            numbers = [waiting.pop() for _ in range(min(engine.room, len(waiting)))]
            active += map(Writing, numbers, engine.join_all([asked[number] for number in numbers]))
        engine.step()
        for writing in list(active):
            if (rollout := finished(writing, engine, ends, respond, until)) is not None:
                done[writing.number] = rollout
                engine.leave(writing.running)
                active.remove(writing)
    return [done[number] for number in range(len(prompts))]


def finished(
    writing: Writing, engine: Engine, ends: Collection[int], respond: Respond | None, until: Until | None
) -> Rollout | None:
    """The rollout, if its last token has ended it. If a tool has something to say there, that is forced instead."""
    running, most = writing.running, writing.running.asked.max_new_tokens
    at_end = running.tokens[-1] in ends
    if at_end and respond is not None and (ids := list(respond(running.new))):
        ids = ids[: most - running.written]
        writing.forced.update(range(running.written, running.written + len(ids)))
        engine.force(running, ids)
        at_end = False
    at_end = at_end or (until is not None and until(running.new))
    if not at_end and running.written < most:
        return None
    written = tuple(running.new)
    forced = tuple(place in writing.forced for place in range(len(written)))
    return Rollout(running.asked.ids, written, forced, at_end)
