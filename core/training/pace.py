"""The clock of a run: what is due after a step, how much of a time budget is left, and speeds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from core.config import Train
from core.listener import SECONDS, STEPS
from core.training import ladder
from core.training.progress import Progress

REHEARSAL = 0.1  # share of a time budget: by then, a first evaluation shows how long the closing one will take
LAST_STEPS = 20  # of a time budget: the loop waits for the device after each of them, so that the clock is right


@dataclass(frozen=True)
class Due:
    """What is due after a step. kept: keep its weights. losses: read the losses so far, which waits for the device."""

    evaluation: bool
    row: bool
    checkpoint: bool
    kept: bool
    losses: bool


class Pace:
    """Times a run over all its tries with the monotonic clock, and decides what there is time for.

    Of a time budget, the time of the latest evaluation and save is reserved for the closing ones.
    compiling: the first step includes compiling, so the second step's time is counted for both.
    """

    def __init__(self, config: Train, progress: Progress, *, compiling: bool = False) -> None:
        minutes = config.runtime.max_minutes
        self.config, self.progress = config, progress
        self.budget = None if minutes is None else 60 * minutes  # seconds
        kept = config.runtime.keep_checkpoints
        # The end of a time budget is only known when it has come; what is kept then is the last rung.
        self.rungs: tuple[float, ...] = ladder.shares(kept)[:-1]
        if minutes is None:
            self.rungs = ladder.steps(config.schedule.max_iters, kept)
        self.passed = ladder.passed(self.rungs, self.gone_so_far())  # rungs, so far
        self.since = time.perf_counter()
        self.rewind()
        self.compiling = compiling

    def lap(self) -> float:
        """Seconds since the last lap, which are also added to progress.wall_seconds."""
        now = time.perf_counter()
        elapsed, self.since = now - self.since, now
        self.progress.wall_seconds += elapsed
        return elapsed

    def count_step(self) -> None:
        """End the lap, in which a step was taken."""
        took = self.lap()
        if self.compiling:
            self.compiling, self.uncounted = False, took
        else:
            self.progress.seconds += took * (2 if self.uncounted else 1)
            self.uncounted = 0.0

    def count_rest(self) -> None:
        """Count the first step with its compiling after all, because no other step follows in this try."""
        self.progress.seconds += self.uncounted
        self.uncounted = 0.0

    def rewind(self) -> None:
        """Measure speeds from here on, after the run went back to an earlier step."""
        self.compiling, self.uncounted = False, 0.0  # uncounted: seconds of a step, not in progress.seconds yet
        self.first_step, self.first_seconds = self.progress.step, self.progress.seconds
        self.row_seconds, self.row_tokens, self.row_step = (
            self.progress.seconds,
            self.progress.tokens,
            self.progress.step,
        )
        self.ms_per_step = 0.0  # of the last row

    def wall_seconds(self) -> float:
        """Seconds of all tries so far, the current lap included."""
        return self.progress.wall_seconds + time.perf_counter() - self.since

    @property
    def step_seconds(self) -> float:
        """Average seconds per step in this try; 0 before the first."""
        return (self.progress.seconds - self.first_seconds) / max(1, self.progress.step - self.first_step)

    @property
    def closing_seconds(self) -> float:
        """Seconds for the closing evaluation and for saving `last`, `best` and perhaps a kept step: the last state usually is the best."""
        return self.progress.evaluation_seconds + (2 + bool(self.rungs)) * self.progress.saving_seconds

    def left(self, budget: float) -> float:
        """Seconds of a budget left for steps; negative if the budget is exceeded."""
        return budget - self.progress.wall_seconds - self.closing_seconds

    def gone(self) -> float | None:
        """Share of the time for steps that is used, 0 to 1; None if the run is limited by steps."""
        if self.budget is None:
            return None
        wall, usable = self.progress.wall_seconds, self.budget - self.closing_seconds
        return wall / usable if wall < usable else 1.0

    def gone_so_far(self) -> float:
        """How far the run has come, in the unit of its rungs: steps, or the share of a time budget."""
        gone = self.gone()
        return self.progress.step if gone is None else gone

    def over(self) -> bool:
        """Whether the run is complete: all steps are done, or the state is evaluated and no time is left for a step."""
        if self.budget is None:
            return self.progress.step >= self.config.schedule.max_iters
        return self.progress.evaluated_step == self.progress.step and self.left(self.budget) < self.step_seconds

    def due(self) -> Due:
        """What is due after the next step. `over` decides separately whether the run ends and is saved."""
        runtime, progress, step = self.config.runtime, self.progress, self.progress.step + 1
        evaluation, checkpoint = step % runtime.eval_interval == 0, step % runtime.checkpoint_interval == 0
        final, ending = step == self.config.schedule.max_iters, False
        if self.budget is not None:
            left, two_steps = self.left(self.budget), 2 * self.step_seconds
            final, ending = left < two_steps, left < LAST_STEPS * self.step_seconds
            if progress.wall_seconds >= REHEARSAL * self.budget and progress.evaluated_step is None:
                evaluation = True
            if left < two_steps + self.closing_seconds:  # they would use the time reserved for the closing ones
                evaluation = checkpoint = False
        evaluation = evaluation or final
        row = evaluation or step % runtime.log_interval == 0
        kept = (
            step in self.rungs if self.budget is None else ladder.passed(self.rungs, self.gone_so_far()) > self.passed
        )
        return Due(evaluation, row, checkpoint, kept, losses=row or checkpoint or kept or ending)

    def note_kept(self) -> None:
        """End the lap, in which weights were kept. Of rungs that were passed at once, only one is kept."""
        self.passed = ladder.passed(self.rungs, self.gone_so_far())
        self.lap()

    def position(self) -> tuple[str, float, float]:
        """The unit of the run's length, how much is done, and the length: arguments of a listener's `progress`."""
        if self.budget is None:
            return STEPS, self.progress.step, self.config.schedule.max_iters
        return SECONDS, self.wall_seconds(), self.budget

    def figures(self) -> dict[str, float]:
        """step, tokens, seconds and tokens per second since the last row."""
        progress = self.progress
        elapsed = progress.seconds + self.uncounted - self.row_seconds
        tokens = progress.tokens - self.row_tokens
        self.ms_per_step = 1000 * elapsed / max(1, progress.step - self.row_step)
        self.row_seconds, self.row_tokens, self.row_step = progress.seconds, progress.tokens, progress.step
        return {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 4),
            "tokens_per_second": round(tokens / max(elapsed, 1e-9), 1),
        }
