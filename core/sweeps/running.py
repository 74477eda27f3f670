"""Run a sweep: make its datasets, train its points, write its results."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from core import files
from core.data.dataset import Dataset
from core.errors import Interrupted, RunFailed
from core.lab.assemble import refuse_unknown
from core.lab.opened import with_overrides
from core.lab.pipeline import prepare_all
from core.listener import Ended, tell
from core.process import refuse_shared
from core.report.tables import as_text
from core.sweeps import results
from core.sweeps.launching import HERE, Launcher, opened_launcher
from core.sweeps.live import Screen, live_table, sentence
from core.sweeps.plan import Point, Sweep
from core.sweeps.report import write_results
from core.sweeps.state import FILE, State, open_state
from core.sweeps.workers import Crew, Job
from core.tracking.run import lock_file

Show = Callable[[Sequence[Job]], None]


@dataclass(frozen=True)
class Where:
    """Where a sweep trains its runs. on: the name of a launcher. jobs: runs at a time; None: one here, and on a cluster as
    many as there is room for. address: of a cluster that is there already."""

    on: str = HERE
    jobs: int | None = None
    address: str = ""


def run_sweep(sweep: Sweep, where: Where, *, retry: bool = False, screen: Screen | None = None) -> State:
    """Train every point of a sweep, several at a time, and write the results.

    retry: train failed runs again. screen: a terminal for the live table. Raises Interrupted after a signal, when
    everything is saved, and UserError for wrong settings or arguments.
    """
    refuse_shared("a sweep")
    listener = sweep.opened.listener
    for point in sweep.points:
        refuse_unknown(replace(sweep.opened, config=point.config))
    busy = f"Wait until it ends, or choose another name: {sweep.call.another_name()}."
    launched = opened_launcher(sweep.opened, where.on, where.jobs, where.address)
    with files.lock(lock_file(sweep.folder), f"sweep {sweep.title}", busy), launched as launcher:
        state = open_state(sweep, datasets(sweep), retry=retry)
        try:
            train_all(state, launcher, screen)
        except Interrupted:
            report_so_far(state)
            raise
        found, state.conclusions = write_results(state)
        listener.say(
            "\n".join([as_text(results.table(sweep, found)), *results.remarks(state, found), *state.conclusions[:1]])
        )
        listener.say(f"report: {sweep.folder / 'report.html'}")
    return state


def refuse_unfinished(state: State) -> None:
    """Raise RunFailed if a run failed or was interrupted."""
    wrong = [
        (run, standing) for run, standing in state.standings.items() if standing.status in ("failed", "interrupted")
    ]
    if wrong:
        listed = "".join(f"\n  {run}: {standing.error or standing.status}" for run, standing in wrong[:5])
        raise RunFailed(
            f"{len(wrong)} of {len(state.standings)} runs of {state.sweep.title} have no result:{listed}\n"
            f"  The others are complete. {FILE} in the sweep's folder lists all runs; `retry=True` trains failed runs again."
        )


def datasets(sweep: Sweep) -> dict[str, Dataset]:
    """Make every dataset that the runs need, once. Returns run -> its dataset."""
    made: dict[str, Dataset] = {}
    result: dict[str, Dataset] = {}
    for point in sweep.points:
        key = json.dumps(point.config.prepare.model_dump(), sort_keys=True, default=str)
        if key not in made:
            made[key] = list(prepare_all(with_overrides(sweep.opened, point.overrides)).values())[-1]
        result[point.run] = made[key]
    return result


def train_all(state: State, launcher: Launcher, screen: Screen | None) -> None:
    """Train the remaining runs. Raises Interrupted, whose remedy is the command that continues."""
    left, sweep = state.left(), state.sweep
    halving = None
    if sweep.halving:
        from core.sweeps.halving import Halving

        halving = Halving(state)
    done, jobs = len(sweep.points) - len(left), len(launcher.shares)
    sweep.opened.listener.say(
        f"sweep {sweep.title}: {len(sweep.points)} runs, {done} of them done, {min(jobs, max(len(left), 1))} at a time"
    )
    with showing(state, screen if left else None) as (show, say):

        def ended(point: Point, seconds: float) -> None:
            if halving:
                halving.ended(state, point)
            say(sentence(state, point, seconds))
            standing = {**vars(state.standings[point.run]), "val_loss": state.loss(point), "seconds": round(seconds, 3)}
            tell(sweep.opened.listener, Ended(point.run, {"seed": point.seed, **standing}))

        crew = Crew(state, launcher, show=show, ended=ended, say=say, watch=halving.watch if halving else None)
        crew.work(left, f"Go on with: {sweep.call.command}")


@contextlib.contextmanager
def showing(state: State, screen: Screen | None) -> Iterator[tuple[Show, Callable[[str], None]]]:
    """Yields a function that shows the running jobs, and one that prints a line: a live table on a terminal, else the listener."""
    if screen is None:
        yield lambda jobs: None, state.sweep.opened.listener.say
        return
    with live_table(state, screen) as (show, say):
        yield show, say


def report_so_far(state: State) -> None:
    """Write the results of an interrupted sweep. A failure here must not hide the interrupt."""
    say = state.sweep.opened.listener.say
    try:
        write_results(state)
    except Exception as error:
        say(f"the report so far could not be written: {error}")
    else:
        say(f"report so far: {state.sweep.folder / 'report.html'}")
