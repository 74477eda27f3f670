"""The clock of a run: what is due after a step, what is left of a budget in time, and speeds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from core.config import Train
from core.listener import SECONDS, STEPS
from core.training.progress import Progress

# Of a budget in time: then at the latest, an evaluation shows what the closing one and its saves will take.
REHEARSAL = 0.1
LAST_STEPS = 20  # of a budget in time: a device is waited for after each, or the clock would run behind it


@dataclass(frozen=True)
class Due:
    """What falls due after a step. losses: those so far are to be read, which waits for the device."""

    evaluation: bool
    row: bool
    checkpoint: bool
    losses: bool


class Pace:
    """Times a run over all its tries, by the monotonic clock, and says what there is time for.

    Of a budget in time, what the latest evaluation and save took is kept back for the closing ones.
    compiling: the first step is compiled as it is taken, which says nothing about steps: the second one's time counts for both.
    """

    def __init__(self, config: Train, progress: Progress, *, compiling: bool = False) -> None:
        minutes = config.runtime.max_minutes
        self.config, self.progress = config, progress
        self.budget = None if minutes is None else 60 * minutes  # seconds
        self.since = time.perf_counter()
        self.first_step, self.first_seconds = progress.step, progress.seconds
        self.row_seconds, self.row_tokens = progress.seconds, progress.tokens
        self.compiling, self.uncounted = compiling, 0.0  # seconds of a step that is not in progress.seconds yet

    def lap(self) -> float:
        """Seconds since the last lap. They are added to progress.wall_seconds."""
        now = time.perf_counter()
        elapsed, self.since = now - self.since, now
        self.progress.wall_seconds += elapsed
        return elapsed

    def count_step(self) -> None:
        """A step has been taken in this lap, which ends."""
        took = self.lap()
        if self.compiling:
            self.compiling, self.uncounted = False, took
        else:
            self.progress.seconds += took * (2 if self.uncounted else 1)
            self.uncounted = 0.0

    def count_rest(self) -> None:
        """There is no further step in this try: of a single one only the time with its compiling is known."""
        self.progress.seconds += self.uncounted
        self.uncounted = 0.0

    def rewind(self) -> None:
        """The run went back to an earlier step: speeds are counted from here on."""
        self.compiling, self.uncounted = False, 0.0
        self.first_step, self.first_seconds = self.progress.step, self.progress.seconds
        self.row_seconds, self.row_tokens = self.progress.seconds, self.progress.tokens

    def wall_seconds(self) -> float:
        """Seconds of everything so far, also of the lap that goes on."""
        return self.progress.wall_seconds + time.perf_counter() - self.since

    @property
    def step_seconds(self) -> float:
        """What a step of this try takes on average; 0 before the first."""
        return (self.progress.seconds - self.first_seconds) / max(1, self.progress.step - self.first_step)

    @property
    def closing_seconds(self) -> float:
        """What the closing evaluation will take, and the saves of `last` and of `best`, which the last state mostly is."""
        return self.progress.evaluation_seconds + 2 * self.progress.saving_seconds

    def left(self, budget: float) -> float:
        """Seconds of a budget that are left for steps; below 0 where it cannot be kept."""
        return budget - self.progress.wall_seconds - self.closing_seconds

    def gone(self) -> float | None:
        """The share of the time for steps that is gone, 0 to 1; None where steps are counted instead."""
        if self.budget is None:
            return None
        wall, usable = self.progress.wall_seconds, self.budget - self.closing_seconds
        return wall / usable if wall < usable else 1.0

    def over(self) -> bool:
        """Whether the run has come to its end: the state is evaluated, and there is no time, or no number, for another step."""
        if self.budget is None:
            return self.progress.step >= self.config.schedule.max_iters
        return self.progress.evaluated_step == self.progress.step and self.left(self.budget) < self.step_seconds

    def due(self) -> Due:
        """What falls due after the next step. Whether the run is over then, and is saved for that, `over` will tell."""
        runtime, progress, step = self.config.runtime, self.progress, self.progress.step + 1
        evaluation, checkpoint = step % runtime.eval_interval == 0, step % runtime.checkpoint_interval == 0
        final, ending = step == self.config.schedule.max_iters, False
        if self.budget is not None:
            left, two_steps = self.left(self.budget), 2 * self.step_seconds
            final, ending = left < two_steps, left < LAST_STEPS * self.step_seconds
            if progress.wall_seconds >= REHEARSAL * self.budget and progress.evaluated_step is None:
                evaluation = True
            if left < two_steps + self.closing_seconds:  # they would take the time of the closing ones
                evaluation = checkpoint = False
        evaluation = evaluation or final
        row = evaluation or step % runtime.log_interval == 0
        return Due(evaluation, row, checkpoint, losses=row or checkpoint or ending)

    def position(self) -> tuple[str, float, float]:
        """What the run is counted in, how much of it is done, and how long it is, as a listener's `progress` wants it."""
        if self.budget is None:
            return STEPS, self.progress.step, self.config.schedule.max_iters
        return SECONDS, self.wall_seconds(), self.budget

    def figures(self) -> dict[str, float]:
        """step, tokens, seconds and tokens per second since the last row."""
        progress = self.progress
        elapsed = progress.seconds + self.uncounted - self.row_seconds
        tokens = progress.tokens - self.row_tokens
        self.row_seconds, self.row_tokens = progress.seconds, progress.tokens
        return {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 4),
            "tokens_per_second": round(tokens / max(elapsed, 1e-9), 1),
        }
