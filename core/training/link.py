"""Signs of life: a process of a team waits for the others and looks every second whether they still live.

So no wait lasts for ever, and what ends it is a message that names the process that is lost.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

import torch.distributed as dist

from core.errors import first_line
from core.process import end_at_once
from core.training.neighbours import Whereabouts, has_ended, here

LOOK = datetime.timedelta(seconds=1)  # between two looks at the others
BEAT = 0.5  # seconds between two signs of life
PATIENCE = 30.0  # seconds, until the run says otherwise: train.runtime.team_timeout
GONE = 5 * BEAT  # without a sign of life after a broken connection: that process has ended
VERDICT = 3 * GONE  # seconds that a helper waits for the main process to say how it ended
ROOM = 4096  # bytes of a message that are sent at once at first
LEFT = b"left "  # what begins the last sign of life of the main process; its exit code follows
PLACE = re.compile(r"\[[^\]\s]*:\d+\] ")  # in gloo's own code
# What torch and gloo say of a connection -> what that means.
REASONS = {
    re.compile(r"client socket has|refused", re.IGNORECASE): "nothing answers",
    re.compile(r"failed to recv|likely closed|closed by peer|connection reset|broken pipe", re.IGNORECASE): "the other side has closed the connection",
    re.compile(r"timed out|timeout", re.IGNORECASE): "the other side does not answer in time",
}  # fmt: skip
Answer = TypeVar("Answer")


class Lost(Exception):
    """A process of the team has ended or does not answer. The message names it."""


class Dismissed(Exception):
    """The main process has ended its work. code: its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def reason(error: BaseException) -> str:
    """Why a connection has failed, in some words."""
    text = PLACE.sub("", first_line(error))
    for pattern, meaning in REASONS.items():
        if pattern.search(text):
            return meaning
    return text.partition(". ")[0].rstrip(". ")


class Link:
    """This process's connection to the others: waits for them, and gives and reads signs of life.

    A thread exchanges the signs, through the store of what has started the processes. patience: seconds without one.
    """

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.store, self.rank, self.world = store, rank, world
        self.patience, self.room, self.looked = PATIENCE, ROOM, time.monotonic()
        self.heard: dict[int, tuple[bytes, float]] = {}  # process -> its last sign of life, and when it was first seen
        self.waiting = False  # for an operation: still so at the end if another process left it open
        self.on_device = False  # whether it takes part in operations of a GPU, which the host does not wait for
        self.code = 1  # this process's exit code, unless the main one says otherwise
        self.ending = threading.Event()
        self.beating = threading.Thread(target=self.beat, name="signs of life", daemon=True)
        self.place = here()
        self.store.set(self.key(rank), self.sign(0))

    def key(self, rank: int) -> str:
        return f"alive/{rank}"

    def sign(self, count: int) -> str:
        """A sign of life: another one each time. It says where this process is."""
        return f"{count} {self.place}"

    def beat(self) -> None:
        """Exchange signs of life until the work ends, or what keeps them has ended."""
        others, count = [rank for rank in range(self.world) if rank != self.rank], 0
        with contextlib.suppress(RuntimeError):
            while not self.ending.is_set():
                signs = self.store.multi_get([self.key(rank) for rank in others])
                self.looked = time.monotonic()
                for rank, sign in zip(others, signs, strict=True):
                    if rank not in self.heard or self.heard[rank][0] != sign:
                        self.heard[rank] = sign, self.looked
                count += 1
                self.store.set(self.key(self.rank), self.sign(count))
                self.ending.wait(BEAT)

    def refuse_lost(self, patience: float) -> None:
        """Raise Lost if a process has given no sign of life for so many seconds, and Dismissed if the main one has ended its work.

        Sooner, for one of this machine that has ended: gloo does not always notice. A helper leaves the others to the main one.
        """
        main = self.heard.get(0, (b"", 0.0))[0]
        if main.startswith(LEFT):
            self.code = int(main.removeprefix(LEFT))
            raise Dismissed(self.code)
        if time.monotonic() - self.looked > patience:
            raise Lost("what has started the processes has ended, or its machine is out of reach")
        for rank, (sign, since) in list(self.heard.items()):
            if (
                self.looked - since > GONE
                and not (self.rank and rank)
                and has_ended(Whereabouts(*sign.decode().split()[1:]))
            ):
                raise Lost(f"process {rank} of {self.world} has ended")
        seconds, rank = max((self.looked - since, rank) for rank, (_, since) in [*self.heard.items(), (self.rank, (b"", self.looked))])  # fmt: skip
        if seconds > patience:
            raise Lost(f"process {rank} of {self.world} has given no sign of life for {patience:g} s: it is stopped, or its machine is out of reach")  # fmt: skip

    def wait(self, work: dist.Work) -> None:
        """Wait for an operation of all processes. Raises Lost, and Dismissed if the main process has ended its work."""
        self.waiting = True
        while True:
            over = work.is_completed()  # then an error is its own, and no sign that it takes longer than a look
            try:
                work.wait(LOOK)
            except RuntimeError as error:
                if over:
                    raise self.verdict(error) from error
                self.refuse_lost(self.patience)
            else:
                self.waiting = False
                return

    def watch(self, function: Callable[[], Answer]) -> Answer:
        """Call a function in a thread that nobody waits for if another process is lost meanwhile. Raises as `wait`, and what it raises."""
        answer: Future[Answer] = Future()

        def call() -> None:
            try:
                answer.set_result(function())
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=call, name="watched", daemon=True).start()
        self.waiting = True
        while not answer.done():
            with contextlib.suppress(TimeoutError, FutureTimeout):
                answer.exception(LOOK.total_seconds())
            if not answer.done():
                self.refuse_lost(self.patience)
        self.waiting = False
        if isinstance(error := answer.exception(), RuntimeError) and (lost := self.loss()):
            raise lost from error
        return answer.result()

    def verdict(self, error: BaseException) -> Exception:
        """What a broken connection means: which process has ended."""
        return self.loss() or Lost(f"the connection to another process is broken: {reason(error)}")

    def loss(self) -> Exception | None:
        """The process that has ended, after an error; None if all live. A helper gives the main one time to say so itself."""
        self.waiting = self.on_device  # the operation that failed is over, but those of a GPU before it may be open
        end = time.monotonic() + (VERDICT if self.rank else 2 * GONE)
        while time.monotonic() < end:
            try:
                self.refuse_lost(GONE)
            except Dismissed as dismissed:
                return dismissed
            except Lost:
                silent = [rank for rank, (_, since) in list(self.heard.items()) if self.looked - since > GONE]
                if time.monotonic() - self.looked > GONE:
                    return Lost("what has started the processes has ended, or the process that did so")
                if silent and (not self.rank or 0 in silent):  # none, if one has given a sign just now
                    return Lost(f"process {min(silent)} of {self.world} has ended")
            time.sleep(BEAT / 5)
        return None

    def last_words(self, sign: bytes) -> None:
        """Give a last sign of life, in place of the thread: in the middle of a step, perhaps."""
        self.waiting = self.waiting or self.on_device
        self.ending.set()
        self.beating.join(2 * BEAT)
        if not self.beating.is_alive():
            with contextlib.suppress(RuntimeError):
                self.store.set(self.key(self.rank), sign)

    def close(self) -> None:
        """Stop giving signs of life, and close the connections."""
        self.ending.set()
        self.beating.join(2 * BEAT)
        if (
            self.waiting or self.beating.is_alive()
        ):  # torch would wait for the others until LONGEST, here and at the end of Python
            end_at_once(self.code)
        elif dist.is_initialized():
            dist.destroy_process_group()
